//! What Raft runs on: tokio, with the randomness of the node's own seam.
//!
//! Raft draws election time-outs and the phase of its tick. The library's own runtime draws them
//! from the operating system, so that in a simulation one seed would give another history each
//! time. Here a node's tasks carry a stream of their own, begun with a number from the seam.

use std::{cell::Cell, future::Future, time::Duration};

use aquifer_storage::seam::Rng;
use openraft::{AsyncRuntime, OptionalSend, impls::TokioRuntime};
use rand::{SeedableRng, rngs::SmallRng};

tokio::task_local! {
    /// Where the stream of this task, and of those it spawns, is.
    static STREAM: Cell<u64>;
}

/// Runs `raft` so that what it draws, it and every task it spawns, comes from `rng`.
pub fn drawing_from<F: Future>(rng: &dyn Rng, raft: F) -> impl Future<Output = F::Output> {
    STREAM.scope(Cell::new(rng.next_u64()), raft)
}

/// The next number of this task's stream; `None` in a task that no node spawned.
fn draw() -> Option<u64> {
    let next = |stream: &Cell<u64>| {
        // SplitMix64: streams begun with its numbers do not meet.
        let state = stream.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        stream.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    STREAM.try_with(next).ok()
}

/// Tokio, drawing from the node's stream.
#[derive(Debug)]
pub struct SeededRuntime(TokioRuntime);

impl AsyncRuntime for SeededRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match draw() {
            Some(stream) => TokioRuntime::spawn(STREAM.scope(Cell::new(stream), future)),
            None => TokioRuntime::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    /// A task that no node spawned, such as one that calls Raft from outside, is not part of any
    /// stream, and what it draws decides nothing.
    fn thread_rng() -> SmallRng {
        SmallRng::seed_from_u64(draw().unwrap_or_else(rand::random))
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use rand::Rng as _;

    use super::*;

    struct Counting(AtomicU64);

    impl Rng for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            bytes.copy_from_slice(&number.to_le_bytes()[..bytes.len()]);
        }
    }

    /// What a task and one it spawned draw.
    async fn drawn() -> [u64; 3] {
        let mine = SeededRuntime::thread_rng().next_u64();
        let spawned = SeededRuntime::spawn(async { SeededRuntime::thread_rng().next_u64() });
        let spawned = spawned.await.expect("it does not panic");
        [mine, spawned, SeededRuntime::thread_rng().next_u64()]
    }

    #[tokio::test]
    async fn one_seed_gives_one_stream_to_a_node_and_all_its_tasks() {
        let rng = Counting(AtomicU64::new(7));
        let first = drawing_from(&rng, drawn()).await;
        let other = drawing_from(&rng, drawn()).await;
        let again = drawing_from(&Counting(AtomicU64::new(7)), drawn()).await;
        assert_eq!(first, again);
        let mut all = [first, other].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6, "no two of them are the same");
    }

    #[tokio::test]
    async fn a_task_of_no_node_draws_from_the_operating_system() {
        assert_ne!(drawn().await, drawn().await);
    }
}
