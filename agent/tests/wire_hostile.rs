//! Hostile frames through prefix, header and body: no panic, and memory within its bound.
//!
//! `TEST_FULL=1` makes it ten times as many frames.

#[path = "wire_support/schema.rs"]
mod schema;

use aquifer_agent::wire::{
    ApiKey, Reader,
    fetch_walk::FetchWalk,
    frame::{FrameLimits, FramePrefix, PREFIX_BYTES, Service},
    header::RequestHeader,
    messages::{MessageId, recode},
    produce_walk::ProduceWalk,
    versions,
};
use bytes::Bytes;
use peak_alloc::PeakAlloc;
use schema::{Random, parse::Message};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const FRAMES: usize = 1_000_000;
const SLACK_BYTES: usize = 64 * 1024;

/// A valid body is damaged this often before the next is made.
const MUTANTS_PER_BODY: usize = 50;

/// What a frame may take, its own bytes apart.
fn bound(key: ApiKey, frame_bytes: usize) -> usize {
    match key {
        ApiKey::Produce | ApiKey::Fetch => 4 * frame_bytes + SLACK_BYTES,
        // The reader's budget, and what is there beside it: a few reference counts.
        _ => 16 * frame_bytes + SLACK_BYTES + 4096,
    }
}

/// Reads a frame as a connection does.
fn receive(frame: &Bytes) -> Option<ApiKey> {
    let prefix: [u8; PREFIX_BYTES] = *frame.first_chunk()?;
    let prefix = FramePrefix::parse(prefix, &FrameLimits::default(), true).ok()?;
    let rest = frame.slice(PREFIX_BYTES..);
    let mut r = Reader::new(rest);
    if prefix.service == Service::UnknownApiVersions {
        RequestHeader::decode_correlation_id(&mut r).ok();
        return Some(prefix.key);
    }
    let (key, version) = (prefix.key, prefix.version);
    if RequestHeader::decode(&mut r, key, version, false).is_err() {
        return Some(key);
    }
    match key {
        ApiKey::Produce => {
            if let Ok(walk) = ProduceWalk::read(r, version) {
                assert_eq!(walk.iter().count(), walk.partition_count());
            }
        }
        ApiKey::Fetch => {
            if let Ok(walk) = FetchWalk::read(r, version) {
                assert_eq!(walk.iter().count(), walk.partition_count());
                walk.forgotten().for_each(drop);
            }
        }
        _ => {
            let of = MessageId { key: key.code(), is_request: true, version };
            recode(of, &mut r, None).ok();
        }
    }
    Some(key)
}

fn frame(key: i16, version: i16, rest: &[u8]) -> Bytes {
    let mut frame = (rest.len() as i32 + 4).to_be_bytes().to_vec();
    frame.extend(key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(rest);
    Bytes::from(frame)
}

/// Receives a frame and fails if that took more memory than it may.
fn receive_within_bound(frame: &Bytes) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let key = receive(frame).unwrap_or(ApiKey::ApiVersions);
    let peak = MEMORY.peak_usage().saturating_sub(before);
    let bound = bound(key, frame.len());
    assert!(
        peak <= bound,
        "{peak} > {bound} bytes for {key:?}: {:02x?}",
        &frame[..64.min(frame.len())]
    );
}

/// Correlation id, client id and, where flexible, no tags.
fn header(flexible: bool) -> Vec<u8> {
    let mut header = vec![0, 0, 0, 7, 0, 3, b'a', b'b', b'c'];
    header.extend(flexible.then_some(0));
    header
}

fn served() -> Vec<(Message, i16)> {
    let request = |message: &Message| {
        let key = ApiKey::from_code(message.key).expect("the table has known keys only");
        message.is_request && versions::advertised(key).is_some()
    };
    let messages = schema::messages().into_iter().filter(request);
    messages
        .flat_map(|message| {
            let key = ApiKey::from_code(message.key).expect("the table has known keys only");
            let range = *versions::advertised(key).expect("filtered above");
            (range.served_min..=range.max).map(move |version| (message.clone(), version))
        })
        .collect()
}

fn damaged_frames(frames: usize) {
    let served = served();
    let mut random = Random(5);
    let mut sent = 0;
    while sent < frames {
        for (message, version) in &served {
            let body = schema::body(message, *version, &mut random);
            let whole = [header(message.is_flexible(*version)), body].concat();
            for _ in 0..MUTANTS_PER_BODY {
                let mut rest = whole.clone();
                schema::mutate(&mut rest, &mut random);
                receive_within_bound(&frame(message.key, *version, &rest));
                sent += 1;
            }
        }
    }
}

fn random_frames(frames: usize) {
    let served = served();
    let mut random = Random(6);
    for index in 0..frames {
        let (message, version) = &served[index % served.len()];
        let noise: Vec<u8> = (0..random.below(96)).map(|_| random.next() as u8).collect();
        let rest = match index % 2 {
            0 => [header(message.is_flexible(*version)), noise].concat(),
            _ => noise,
        };
        receive_within_bound(&frame(message.key, *version, &rest));
        if index % 16 == 0 {
            receive_within_bound(&Bytes::from(rest));
        }
    }
}

/// Messages of few bytes that ask for much, of the kinds that broke other brokers.
fn crafted_bombs() {
    const COUNT: &[u8] = &[0x7f, 0xff, 0xff, 0xff];
    const VARINT: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0x0f];
    let bombs: [(i16, i16, Vec<u8>); 8] = [
        // Metadata: 2^31 - 1 topics.
        (3, 0, [&header(false), COUNT].concat()),
        (3, 12, [&header(true), VARINT].concat()),
        // Produce: 2^32 topics.
        (0, 9, [&header(true)[..], &[0, 0, 1, 0, 0, 0, 1], VARINT].concat()),
        // 2^32 - 1 tagged fields in the header, and in a body.
        (18, 3, [&header(false), VARINT].concat()),
        (18, 3, [&header(true)[..], &[1, 1], VARINT].concat()),
        (1, 12, [&header(true)[..], &[0; 25], &[1, 1, 1], VARINT].concat()),
        // Records, and member metadata, of 2^32 bytes.
        (
            0,
            9,
            [&header(true)[..], &[0, 0, 1, 0, 0, 0, 1, 2, 2, b't', 2, 0, 0, 0, 0], VARINT].concat(),
        ),
        (11, 6, [&header(true)[..], &[2, b'g'], &[0; 8], &[1, 0, 1], VARINT].concat()),
    ];
    for (key, version, rest) in bombs {
        receive_within_bound(&frame(key, version, &rest));
    }
}

/// Valid frames that are small on the wire and large in memory.
fn amplifiers() {
    let members = [1u8, 1, 0].repeat(300_000);
    let topics = members.clone();
    let leave_group = [&header(true)[..], &[2, b'g'], &[0xe1, 0xa7, 0x12], &members].concat();
    let produce =
        [&header(true)[..], &[0, 0, 1, 0, 0, 0, 1, 0xe1, 0xa7, 0x12], &topics, &[0]].concat();
    let metadata = [&header(false)[..], &300_000i32.to_be_bytes(), &vec![0; 600_000]].concat();
    for (key, version, rest) in [(13, 4, leave_group), (0, 9, produce), (3, 1, metadata)] {
        receive_within_bound(&frame(key, version, &rest));
    }
}

/// One test, as the allocator counts for the whole process.
#[test]
fn hostile_frames_neither_panic_nor_take_more_memory_than_their_bound() {
    let full = std::env::var("TEST_FULL").is_ok_and(|full| !full.is_empty());
    let frames = if full { 10 * FRAMES } else { FRAMES };
    crafted_bombs();
    amplifiers();
    random_frames(frames / 2);
    damaged_frames(frames / 2);
}
