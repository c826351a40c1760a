//! The task that follows the watch stream, for ever.

use std::{future::Future, ops::ControlFlow, sync::Arc, sync::PoisonError, time::Duration};

use aquifer_metadata::{
    client::WatchStream,
    watch::{WatchEvent, WatchRequest},
};
use aquifer_storage::{
    model::{LogIndex, TopicPartition},
    seam::MonoTime,
};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::{
    Interest, PartitionSnapshot, Shared, lock, take_requests,
    window::{Advance, Merge, merge_advance, merge_state},
};
use crate::session::backoff::Backoff;

/// A node says something each 250 ms; one silent for this long is not there.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How often idle watches are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Follows the stream; see [`super::View`].
pub struct ViewService {
    shared: Arc<Shared>,
}

impl ViewService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Follows metadata until `shutdown` completes.
    ///
    /// # Cancel safety
    /// Dropping the future stops the view where it is; the handles keep answering.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut backoff = Backoff::new(self.shared.seams.clone());
        let mut sweep_at = self.shared.seams.clock.mono() + SWEEP_EVERY;
        loop {
            let seen = *self.shared.applied.borrow();
            match self.shared.metadata.open_watch(seen).await {
                Ok(stream) => {
                    // Idle ones are not asked for again: a node closes a stream of too many, and
                    // would close the next one as well.
                    let now = self.shared.seams.clock.mono();
                    sweep(&mut lock(&self.shared.interest), now);
                    self.rewatch_all();
                    if self.follow_stream(stream, &mut sweep_at).await {
                        backoff.reset();
                    }
                    debug!(%seen, "watch stream ended");
                }
                Err(error) => {
                    if backoff.is_line_due() {
                        warn!(%error, "watch stream cannot be opened, retrying");
                    }
                }
            }
            backoff.pause().await;
        }
    }

    /// Follows one stream to its end; whether it told anything.
    async fn follow_stream(&self, mut stream: WatchStream, sweep_at: &mut MonoTime) -> bool {
        let clock = &self.shared.seams.clock;
        let mut unsent: Vec<WatchRequest> = Vec::new();
        let mut told = false;
        let mut heard = clock.mono();
        loop {
            if unsent.is_empty() {
                unsent = take_requests(&mut lock(&self.shared.interest).pending);
                unsent.reverse(); // Sent from the back.
            }
            let silence = clock.sleep_until(heard + SILENCE_MAX);
            let step = tokio::select! {
                event = stream.events.recv() => match event {
                    Some(event) => {
                        told = true;
                        heard = clock.mono();
                        // What is told together ends with this.
                        let is_end = matches!(event, WatchEvent::Applied(_));
                        self.take(event);
                        if is_end || stream.events.is_empty() {
                            self.ring();
                        }
                        ControlFlow::Continue(())
                    }
                    None => ControlFlow::Break(()),
                },
                sent = send_next(&stream.requests, &mut unsent) => sent,
                () = self.shared.interested.notified(), if unsent.is_empty() => {
                    ControlFlow::Continue(())
                }
                () = silence => ControlFlow::Break(()),
            };
            if step.is_break() {
                self.ring();
                return told;
            }
            let now = clock.mono();
            if *sweep_at <= now {
                *sweep_at = now + SWEEP_EVERY;
                sweep(&mut lock(&self.shared.interest), now);
            }
        }
    }

    /// A new stream knows nothing of the old one's watches.
    fn rewatch_all(&self) {
        let mut interest = lock(&self.shared.interest);
        let Interest { partitions, groups, pending, unconfirmed, told, .. } = &mut *interest;
        pending.partitions = partitions.keys().map(|key| (*key, true)).collect();
        pending.groups = groups.keys().map(|key| (key.clone(), true)).collect();
        let shown = partitions
            .iter()
            .filter(|(_, watched)| *watched.value.borrow() != PartitionSnapshot::Pending);
        *unconfirmed = shown.map(|(key, _)| *key).collect();
        *told = LogIndex::default();
    }

    fn take(&self, event: WatchEvent) {
        self.shared.heard();
        match event {
            WatchEvent::Applied(index) => self.advance(index),
            WatchEvent::PartitionState(state) => {
                let partition = state.partition;
                self.merge(partition, |held| merge_state(held, state));
                self.confirm(partition);
            }
            WatchEvent::PartitionAdvanced {
                partition,
                from_index,
                index,
                from,
                runs,
                pointers,
            } => {
                let advance = Advance { from_index, index, from, runs, pointers };
                self.merge(partition, |held| merge_advance(held, advance));
            }
            WatchEvent::PartitionGone(partition, index) => {
                self.merge(partition, |held| match held {
                    PartitionSnapshot::Known(held) if index < held.index => Merge::Keep,
                    _ => Merge::Replace(PartitionSnapshot::Gone),
                });
                self.confirm(partition);
            }
            WatchEvent::Group { group, version } => {
                if let Some(watched) = lock(&self.shared.interest).groups.get(&group) {
                    tell(&watched.value, Some(version));
                }
            }
            catalog => self.take_catalog(catalog),
        }
    }

    fn take_catalog(&self, event: WatchEvent) {
        let mut index = self.shared.catalog.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            WatchEvent::Catalog(catalog) => {
                index.replace(catalog);
                drop(index);
                tell(&self.shared.complete, true);
            }
            WatchEvent::Topic(topic) => index.put_topic(topic),
            WatchEvent::TopicGone(topic) => index.drop_topic(topic),
            WatchEvent::Configs(configs) => index.put_configs(&configs),
            WatchEvent::Nodes(nodes) => index.replace_nodes(nodes),
            WatchEvent::Applied(_)
            | WatchEvent::PartitionState(_)
            | WatchEvent::PartitionAdvanced { .. }
            | WatchEvent::PartitionGone(..)
            | WatchEvent::Group { .. } => {}
        }
    }

    /// What the stream told is true of every partition only when none shows something older.
    fn advance(&self, index: LogIndex) {
        let mut interest = lock(&self.shared.interest);
        interest.told = index;
        let confirmed = interest.unconfirmed.is_empty();
        drop(interest);
        if confirmed {
            self.show(index);
        }
    }

    fn confirm(&self, partition: TopicPartition) {
        let mut interest = lock(&self.shared.interest);
        let last = interest.unconfirmed.remove(&partition) && interest.unconfirmed.is_empty();
        let told = interest.told;
        drop(interest);
        if last {
            self.show(told);
        }
    }

    fn show(&self, index: LogIndex) {
        self.shared.applied.send_if_modified(|applied| {
            let newer = *applied < index;
            if newer {
                *applied = index;
            }
            newer
        });
    }

    fn merge(&self, partition: TopicPartition, merge: impl FnOnce(&PartitionSnapshot) -> Merge) {
        let mut interest = lock(&self.shared.interest);
        let Interest { partitions, pending, unconfirmed, unrung, .. } = &mut *interest;
        let Some(watched) = partitions.get(&partition) else { return };
        let outcome = merge(&watched.value.borrow());
        match outcome {
            Merge::Keep => {}
            Merge::Replace(snapshot) => {
                tell(&watched.value, snapshot);
                for (id, bell) in &watched.bells {
                    bell.note(partition);
                    unrung.entry(*id).or_insert_with(|| Arc::clone(bell));
                }
            }
            Merge::Resync => {
                debug!(%partition, "a push was missed, watching again");
                pending.partitions.insert(partition, true);
                unconfirmed.insert(partition);
            }
        }
    }

    /// Wakes those who wait for what was taken: once for all of it, or a fetch that waits for a
    /// thousand partitions would be answered with the first of them.
    fn ring(&self) {
        let unrung = std::mem::take(&mut lock(&self.shared.interest).unrung);
        unrung.values().for_each(|bell| bell.ring());
    }
}

/// Wakes waiters only when the value differs.
fn tell<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|held| {
        let differs = *held != value;
        *held = value;
        differs
    });
}

/// Sends the last of `unsent`; waits for ever when there is none.
async fn send_next(
    requests: &mpsc::Sender<WatchRequest>,
    unsent: &mut Vec<WatchRequest>,
) -> ControlFlow<()> {
    if unsent.is_empty() {
        return std::future::pending().await;
    }
    match requests.reserve().await {
        Ok(permit) => {
            permit.send(unsent.pop().expect("checked above, and only this task takes from it"));
            ControlFlow::Continue(())
        }
        Err(_) => ControlFlow::Break(()),
    }
}

/// Drops watches nobody has used for a while.
pub(super) fn sweep(interest: &mut Interest, now: MonoTime) {
    let Interest { partitions, groups, pending, unconfirmed, .. } = interest;
    partitions.retain(|key, watched| {
        let idle = watched.is_idle(now);
        if idle {
            pending.partitions.insert(*key, false);
            unconfirmed.remove(key);
        }
        !idle
    });
    groups.retain(|key, watched| {
        let idle = watched.is_idle(now);
        if idle {
            pending.groups.insert(key.clone(), false);
        }
        !idle
    });
}
