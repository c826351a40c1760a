//! Laws of reading frames.

use std::sync::Arc;

use aquifer_storage::{
    budget::MEMORY_BYTES_MIN,
    model::Timestamp,
    seam::{BoxFuture, Clock, MonoTime, system},
};
use futures::FutureExt;
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    sync::watch,
};

use super::*;

/// A clock that the test moves.
#[derive(Default)]
struct ManualClock(watch::Sender<Duration>);

impl ManualClock {
    fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now += by);
    }
}

impl Clock for ManualClock {
    fn mono(&self) -> MonoTime {
        MonoTime::from_zero(*self.0.borrow())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn sleep_until(&self, deadline: MonoTime) -> BoxFuture<'static, ()> {
        let mut now = self.0.subscribe();
        Box::pin(async move {
            let _ = now.wait_for(|now| deadline.since_zero() <= *now).await;
        })
    }
}

fn manual_seams() -> (Arc<ManualClock>, Seams) {
    let clock = Arc::new(ManualClock::default());
    (Arc::clone(&clock), Seams { clock, ..system::seams() })
}

const PRODUCE: [u8; 4] = [0, 0, 0, 8];
const METADATA: [u8; 4] = [0, 3, 0, 8];

/// A reader, the client's end, and the memory they share with others.
fn connected() -> (FrameReader<DuplexStream>, DuplexStream) {
    let (client, socket) = duplex(4 << 20);
    (FrameReader::new(socket, FrameLimits::default()), client)
}

fn announced(key: [u8; 4], frame_bytes: usize, sent: usize) -> Vec<u8> {
    let mut bytes = [&(frame_bytes as i32).to_be_bytes()[..], &key].concat();
    bytes.resize(sent, 7);
    bytes
}

async fn read(reader: &mut FrameReader<DuplexStream>, budgets: &Budgets) -> Option<Frame> {
    let (_, seams) = manual_seams();
    reader.next(budgets, &seams).await.unwrap()
}

#[tokio::test]
async fn frames_of_every_size_come_out_as_they_were_sent() {
    let budgets = Budgets::split(MEMORY_BYTES_MIN);
    for frame_bytes in [8, 9, 4091, 4092, 4093, 5000, 1 << 20, (1 << 20) + 5, 3 << 20] {
        let (mut reader, mut client) = connected();
        let bytes = announced(PRODUCE, frame_bytes, frame_bytes + 4);
        client.write_all(&bytes).await.unwrap();
        client.write_all(&announced(METADATA, 12, 16)).await.unwrap();
        let first = read(&mut reader, &budgets).await.unwrap();
        assert_eq!(first.rest, &bytes[8..], "{frame_bytes}");
        assert_eq!(first.permit.bytes(), first.rest.len() as u64);
        assert_eq!(budgets.produce.in_use(), first.rest.len() as u64);
        let second = read(&mut reader, &budgets).await.unwrap();
        assert_eq!(second.rest, [7; 8].as_slice());
        drop((first, client));
        assert!(read(&mut reader, &budgets).await.is_none());
        assert_eq!(budgets.produce.in_use(), 0);
    }
}

#[tokio::test]
async fn an_announced_frame_takes_no_memory_before_it_has_sent_some() {
    let budgets = Budgets::split(MEMORY_BYTES_MIN);
    let (_, seams) = manual_seams();
    for (sent, most) in [(8, 0), (1024, 0), (4000, 0), (5000, 1 << 20), (2 << 20, 2 << 20)] {
        let (mut reader, mut client) = connected();
        client.write_all(&announced(PRODUCE, 20 << 20, sent)).await.unwrap();
        assert!(reader.next(&budgets, &seams).now_or_never().is_none());
        assert_eq!(budgets.produce.in_use(), most, "{sent} bytes sent");
        assert!(reader.buffer.capacity() <= 2 * sent + (1 << 20) + 8192);
    }
}

#[tokio::test]
async fn a_client_that_stops_inside_a_granted_frame_is_given_up() {
    let budgets = Budgets::split(MEMORY_BYTES_MIN);
    let (clock, seams) = manual_seams();
    let (mut reader, mut client) = connected();
    client.write_all(&announced(PRODUCE, 20 << 20, 5000)).await.unwrap();
    let mut reading = Box::pin(reader.next(&budgets, &seams));
    assert!((&mut reading).now_or_never().is_none());
    // A trickle is not progress.
    clock.advance(PACE_EVERY / 2);
    client.write_all(&[0; 100]).await.unwrap();
    assert!((&mut reading).now_or_never().is_none());
    clock.advance(PACE_EVERY / 2);
    let error = reading.await.unwrap_err();
    assert!(matches!(error, ReadError::Stalled { read_bytes: 5092, .. }), "{error}");
    drop(reader);
    assert_eq!(budgets.produce.in_use(), 0);
}

#[tokio::test]
async fn a_slow_but_steady_client_is_waited_for() {
    let budgets = Budgets::split(MEMORY_BYTES_MIN);
    let (clock, seams) = manual_seams();
    let (mut reader, mut client) = connected();
    client.write_all(&announced(PRODUCE, 100_004, 8)).await.unwrap();
    let mut reading = Box::pin(reader.next(&budgets, &seams));
    for _ in 0..4 {
        client.write_all(&[0; 20_000]).await.unwrap();
        assert!((&mut reading).now_or_never().is_none());
        clock.advance(PACE_EVERY - Duration::from_millis(1));
    }
    client.write_all(&[0; 20_000]).await.unwrap();
    assert_eq!(reading.await.unwrap().unwrap().rest.len(), 100_000);
}

#[tokio::test]
async fn a_large_frame_does_not_hold_what_others_wait_for_for_ever() {
    let budgets = Budgets::split(MEMORY_BYTES_MIN);
    let (clock, seams) = manual_seams();
    let free = budgets.produce.capacity_bytes() - (1 << 20);
    let others = budgets.produce.try_acquire(free).unwrap().unwrap();
    let (mut reader, mut client) = connected();
    client.write_all(&announced(PRODUCE, 3 << 20, 2 << 20)).await.unwrap();
    let mut reading = Box::pin(reader.next(&budgets, &seams));
    assert!((&mut reading).now_or_never().is_none());
    clock.advance(GROW_MAX);
    assert!(matches!(reading.await, Err(ReadError::Starved { .. })));
    drop((reader, others));
    assert_eq!(budgets.produce.in_use(), 0);
}

#[tokio::test]
async fn a_small_control_request_needs_no_memory_of_others() {
    let budgets = Budgets::split(MEMORY_BYTES_MIN);
    let all = budgets.control.capacity_bytes();
    let _others = budgets.control.try_acquire(all).unwrap().unwrap();
    let (mut reader, mut client) = connected();
    client.write_all(&announced(METADATA, 4000, 4004)).await.unwrap();
    assert_eq!(read(&mut reader, &budgets).await.unwrap().rest.len(), 3996);
    client.write_all(&announced(METADATA, 5000, 5004)).await.unwrap();
    let (_, seams) = manual_seams();
    assert!(reader.next(&budgets, &seams).now_or_never().is_none(), "a large one waits");
}
