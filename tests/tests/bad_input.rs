//! Bad input against a running process: the right error or a closed connection, neighbours
//! untouched, memory and log bounded, and never a panic.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::time::{Duration, Instant};

use anyhow::ensure;
use aquifer_tests::raw::{
    Bytes, Connection, Fields, Heard, Request, create_topics, created_topics, fetch, fetched,
    frame, key, metadata, metadata_topics, produce, produced,
};

#[path = "bad_input/batches.rs"]
mod batches;
#[path = "bad_input/store.rs"]
mod store;
#[path = "bad_input/world.rs"]
mod world;

use world::{World, batch};

/// A heartbeat of nobody: small, and answered at once.
fn heartbeat() -> Request {
    let body = Bytes::new().string("nobody").i32(1).string("none").i16(-1);
    Request::new(key::HEARTBEAT, 3, body)
}

/// Requests that are whole and right.
fn valid() -> Vec<Request> {
    let records = batch("valid");
    let compact = Bytes::new().uvarint(0).i16(-1).i32(1000).uvarint(2).compact_string("t");
    let compact = compact.uvarint(2).i32(0).uvarint(records.len() as u32 + 1).raw(&records);
    vec![
        metadata(&["t"], false),
        produce(-1, 1000, &[("t", 0, Some(&records))]),
        fetch("t", 0, 0, 0),
        heartbeat(),
        create_topics(&[("t", 1)]),
        Request::flexible(key::PRODUCE, 9, compact.uvarint(0).uvarint(0).uvarint(0)),
    ]
}

#[test]
fn a_frame_length_that_no_request_has_closes_the_connection() -> anyhow::Result<()> {
    let world = World::start(&["t"])?;
    for length in [i32::MAX, i32::MIN, -1, 0, 1, 7, (100 << 20) + 1] {
        for request in valid() {
            let payload = request.payload(1);
            let bytes = Bytes::new().i32(length).raw(&payload).0;
            world.expect_closed(&format!("length {length}, api {}", request.key), &bytes)?;
        }
        if length < 8 {
            world.expect_closed(&format!("length {length} alone"), &length.to_be_bytes())?;
        }
    }
    world.end()
}

#[test]
fn a_count_beyond_the_frame_is_refused_before_anything_is_allocated() -> anyhow::Result<()> {
    const MANY: i32 = i32::MAX;
    let world = World::start(&[])?;
    let new = Bytes::new;
    let offsets = |count: i32| new().i32(-1).i32(0).i32(1).i32(1).i8(0).i32(0).i32(-1).i32(count);
    let old: Vec<(i16, i16, Bytes)> = vec![
        (key::METADATA, 8, new().i32(MANY)),
        (key::PRODUCE, 8, new().i16(-1).i16(-1).i32(1).i32(MANY)),
        (key::PRODUCE, 8, new().i16(-1).i16(-1).i32(1).i32(1).string("t").i32(MANY)),
        (key::PRODUCE, 8, new().i16(-1).i16(-1).i32(1).i32(1).string("t").i32(1).i32(0).i32(MANY)),
        (key::FETCH, 11, offsets(MANY)),
        (key::FETCH, 11, offsets(1).string("t").i32(MANY)),
        (key::FETCH, 11, offsets(0).i32(MANY)),
        (key::LIST_OFFSETS, 5, new().i32(-1).i8(0).i32(MANY)),
        (key::OFFSET_COMMIT, 7, new().string("g").i32(1).string("m").i16(-1).i32(MANY)),
        (key::OFFSET_FETCH, 5, new().string("g").i32(MANY)),
        (key::OFFSET_FETCH, 5, new().string("g").i32(1).string("t").i32(MANY)),
        (
            key::JOIN_GROUP,
            5,
            new().string("g").i32(9000).i32(9000).string("").i16(-1).string("c").i32(MANY),
        ),
        (key::SYNC_GROUP, 3, new().string("g").i32(1).string("m").i16(-1).i32(MANY)),
        (key::LEAVE_GROUP, 3, new().string("g").i32(MANY)),
        (key::CREATE_TOPICS, 4, new().i32(MANY)),
        (key::CREATE_TOPICS, 4, new().i32(1).string("t").i32(1).i16(1).i32(MANY)),
        (key::CREATE_TOPICS, 4, new().i32(1).string("t").i32(1).i16(1).i32(0).i32(MANY)),
        (key::DELETE_TOPICS, 3, new().i32(MANY)),
        (key::DESCRIBE_CONFIGS, 1, new().i32(MANY)),
    ];
    let old = old.into_iter().map(|(key, version, body)| Request::new(key, version, body));
    let compact: Vec<(i16, i16, Bytes)> = vec![
        (key::METADATA, 12, new().uvarint(u32::MAX)),
        (key::PRODUCE, 9, new().uvarint(0).i16(-1).i32(1).uvarint(u32::MAX)),
        (key::PRODUCE, 13, new().uvarint(0).i16(-1).i32(1).uvarint(1 << 31)),
        (key::FETCH, 12, new().i32(-1).i32(0).i32(1).i32(1).i8(0).i32(0).i32(-1).uvarint(1 << 31)),
        (key::OFFSET_FETCH, 8, new().uvarint(u32::MAX)),
        (key::FIND_COORDINATOR, 4, new().i8(0).uvarint(u32::MAX)),
        (key::CREATE_TOPICS, 7, new().uvarint(u32::MAX)),
        (key::DELETE_TOPICS, 6, new().uvarint(u32::MAX)),
        (key::API_VERSIONS, 3, new().uvarint(u32::MAX)),
    ];
    let compact =
        compact.into_iter().map(|(key, version, body)| Request::flexible(key, version, body));
    for request in old.chain(compact) {
        for padding in [0, 3, 60_000] {
            let mut padded = request.clone();
            padded.body.resize(request.body.len() + padding, 0);
            let what = format!("api {} v{} + {padding}", request.key, request.version);
            world.expect_closed(&what, &padded.frame(1))?;
        }
    }
    world.end()
}

#[test]
fn tagged_fields_beyond_any_meaning_close_the_connection() -> anyhow::Result<()> {
    let world = World::start(&[])?;
    let many = |count: usize| {
        let tags = (0..count).map(|n| Bytes::new().uvarint(n as u32).uvarint(0).0);
        Bytes::new().uvarint(count as u32).raw(&tags.collect::<Vec<_>>().concat()).0
    };
    let bombs = [
        Bytes::new().uvarint(1 << 31).0,
        Bytes::new().uvarint(u32::MAX).raw(&[0; 2000]).0,
        many(65),
        many(10_000),
        Bytes::new().uvarint(1).uvarint(9).uvarint(1 << 30).0,
        Bytes::new().uvarint(1).uvarint(9).uvarint(3000).raw(&[0; 3000]).0,
        Bytes::new().uvarint(1).raw(&[0xff; 6]).0,
    ];
    let apis = [(key::METADATA, 12), (key::PRODUCE, 9), (key::FETCH, 12), (key::API_VERSIONS, 3)];
    for (index, bomb) in bombs.iter().enumerate() {
        for (key, version) in apis {
            let header = Bytes::new().i16(key).i16(version).i32(1).string("raw").raw(bomb).0;
            world.expect_closed(&format!("header tags {index} of {key}"), &frame(&header))?;
        }
    }
    for (index, bomb) in bombs.iter().enumerate().filter(|(index, _)| *index != 5) {
        let body = Bytes::new().uvarint(1).i8(0).i8(0).raw(bomb);
        let request = Request::flexible(key::METADATA, 12, body);
        world.expect_closed(&format!("body tags {index}"), &request.frame(1))?;
    }
    world.end()
}

#[test]
fn a_request_cut_off_anywhere_closes_the_connection() -> anyhow::Result<()> {
    let world = World::start(&["t"])?;
    for request in valid() {
        let payload = request.payload(1);
        for cut in 0..payload.len() {
            let what = format!("api {} v{} cut at {cut}", request.key, request.version);
            world.expect_closed(&what, &frame(&payload[..cut]))?;
        }
        // The frame says more than the client sends before it hangs up.
        for cut in (0..payload.len()).step_by(5) {
            let mut connection = world.connect()?;
            connection.send(&frame(&payload)[..cut + 4])?;
            connection.finish_sending();
            let heard = connection.hear()?;
            ensure!(heard == Heard::Closed, "api {} torn at {cut}: {heard:?}", request.key);
        }
    }
    world::expect_records(world.place.kafka, "t", &Default::default())?;
    world.end()
}

#[test]
fn bytes_behind_a_request_are_left_unread_as_kafka_leaves_them() -> anyhow::Result<()> {
    let world = World::start(&["t"])?;
    let mut connection = world.connect()?;
    for mut request in valid() {
        request.body.extend_from_slice(b"trailing bytes");
        connection.call(&request)?;
    }
    let topics = metadata_topics(&connection.call(&metadata(&["t"], false))?)?;
    ensure!(topics == [("t".to_owned(), 0)], "{topics:?}");
    world.end()
}

#[test]
fn an_unknown_version_is_answered_for_api_versions_and_closes_for_all_others() -> anyhow::Result<()>
{
    let world = World::start(&[])?;
    for version in [5, 99, i16::MAX, -1, i16::MIN] {
        let request = Request::new(key::API_VERSIONS, version, Bytes::new().raw(&[0xee; 40]));
        let mut connection = world.connect()?;
        let answer = connection.call(&request)?;
        let expected = Bytes::new().i16(35).i32(1).i16(key::API_VERSIONS).i16(0).i16(4).0;
        ensure!(answer == expected, "ApiVersions v{version}: {answer:?}");
        // The same connection then asks what it was told.
        let answer = connection.call(&Request::new(key::API_VERSIONS, 0, Bytes::new()))?;
        let mut fields = Fields::new(&answer);
        ensure!(fields.i16()? == 0 && 10 < fields.count()?, "no list of all keys");
    }
    for (key, version) in [
        (key::METADATA, 14),
        (key::METADATA, -1),
        (key::PRODUCE, 2),
        (key::PRODUCE, 14),
        (key::FETCH, 3),
        (key::FETCH, 99),
        (-1, 0),
        (4, 0),
        (7, 3),
        (999, 0),
        (i16::MAX, i16::MAX),
    ] {
        let frame = Request::new(key, version, Bytes::new().raw(&[0; 40])).frame(1);
        world.expect_closed(&format!("api {key} v{version}"), &frame)?;
    }
    world.end()
}

#[test]
fn another_protocol_on_the_kafka_port_is_hung_up_on() -> anyhow::Result<()> {
    let world = World::start(&[])?;
    let hello = Bytes::new().raw(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).raw(&[7; 506]).0;
    let others: [(&str, &[u8]); 5] = [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("TLS", &hello),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n"),
        ("Redis", b"*1\r\n$4\r\nPING\r\n"),
        ("zeros", &[0; 64]),
    ];
    for (name, bytes) in others {
        world.expect_closed(name, bytes)?;
    }
    world.end()
}

#[test]
fn random_bytes_are_answered_or_hung_up_on() -> anyhow::Result<()> {
    let world = World::start(&["t"])?;
    let mut state = 20_261_121_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let apis = [
        (key::PRODUCE, 9),
        (key::FETCH, 12),
        (key::FETCH, 11),
        (key::METADATA, 8),
        (key::METADATA, 12),
        (key::CREATE_TOPICS, 7),
        (key::OFFSET_FETCH, 8),
        (key::JOIN_GROUP, 5),
        (key::LIST_OFFSETS, 5),
        (key::DESCRIBE_CONFIGS, 1),
    ];
    for round in 0..600 {
        let mut noise: Vec<u8> = (0..random() % 300).map(|_| random() as u8).collect();
        if round % 3 == 0 {
            // Small numbers reach deeper than large ones.
            noise.iter_mut().for_each(|byte| *byte %= 4);
        }
        let (key, version) = apis[random() as usize % apis.len()];
        let bytes = match round % 10 {
            0 => noise,
            1 => frame(&noise),
            _ => frame(&Bytes::new().i16(key).i16(version).i32(1).raw(&noise).0),
        };
        let mut connection = world.connect()?;
        connection.send(&bytes)?;
        connection.finish_sending();
        while let heard @ (Heard::Frame(_) | Heard::Silence) = connection.hear()? {
            ensure!(heard != Heard::Silence, "round {round}: neither answer nor end");
        }
    }
    world.end()
}

/// Connections that have sent `bytes` and now say nothing.
fn silent(world: &World, count: usize, bytes: &[u8]) -> anyhow::Result<Vec<Connection>> {
    let open = |_| {
        let mut connection = world.connect()?;
        connection.send(bytes)?;
        Ok(connection)
    };
    (0..count).map(open).collect()
}

/// A frame of `bytes` announced for `request`'s API, of which only `sent` come.
fn announced(request: &Request, bytes: i32, sent: usize) -> Vec<u8> {
    let mut frame = Bytes::new().i32(bytes).raw(&request.payload(1)).0;
    frame.resize(sent, 0);
    frame
}

#[test]
fn half_frames_and_silence_take_nothing_from_others() -> anyhow::Result<()> {
    let world = World::start(&["t"])?;
    let mut open = Vec::new();
    for request in valid() {
        let frame = request.frame(1);
        open.extend(silent(&world, 40, &frame[..frame.len() / 2])?);
        open.extend(silent(&world, 10, &frame[..6])?);
    }
    // As much as each API may announce, together far above what all of memory is.
    let produce = produce(-1, 1000, &[("t", 0, None)]);
    open.extend(silent(&world, 200, &announced(&produce, 100 << 20, 1024))?);
    open.extend(silent(&world, 20, &announced(&metadata(&[], false), 4 << 20, 1024))?);
    open.extend(silent(&world, 20, &announced(&fetch("t", 0, 0, 0), 8 << 20, 1024))?);
    let sync = Request::new(key::SYNC_GROUP, 3, Bytes::new());
    open.extend(silent(&world, 20, &announced(&sync, 16 << 20, 1024))?);
    // Some have sent enough to be given memory for their frames.
    open.extend(silent(&world, 20, &announced(&produce, 100 << 20, 50_000))?);
    open.extend(silent(&world, 5, &announced(&sync, 16 << 20, 50_000))?);
    let mut connection = world.connect()?;
    for _ in 0..10 {
        for request in [heartbeat(), metadata(&["t"], false)] {
            let begun = Instant::now();
            connection.call(&request)?;
            let took = begun.elapsed();
            ensure!(took < Duration::from_secs(2), "api {} took {took:?}", request.key);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    world.end()?;
    drop(open);
    Ok(())
}

#[test]
fn a_thousand_bad_connections_are_counted_and_logged_in_a_few_lines() -> anyhow::Result<()> {
    let world = World::start(&[])?;
    let before = world.counter("aquifer_frames_refused_total")?;
    for _ in 0..1000 {
        world.expect_closed("bad length", &[0xff; 12])?;
    }
    // One connection with many bad frames: it ends at the first.
    let frames = Request::new(key::METADATA, 99, Bytes::new()).frame(1).repeat(50);
    world.expect_closed("many frames", &frames)?;
    let refused = world.counter("aquifer_frames_refused_total")? - before;
    ensure!(refused == 1001, "{refused} counted");
    let lines = world.offences()?;
    ensure!((1..=3).contains(&lines.len()), "{} lines", lines.len());
    ensure!(lines[0].contains("127.0.0.1") && lines[0].contains("frame length -1"), "{lines:?}");
    world.end()
}

#[test]
fn connections_beyond_what_fits_are_closed_and_leave_files_for_the_store() -> anyhow::Result<()> {
    let world = World::start_with(&["t"], |place| place.open_files = Some(200))?;
    let mut connection = world.connect()?;
    let idle = silent(&world, 400, &[])?;
    let records = batch("stored");
    let rows = produced(&connection.call(&produce(-1, 20_000, &[("t", 0, Some(&records))]))?)?;
    ensure!(rows[0].code == 0, "{rows:?}");
    ensure!((1..=3).contains(&world.offences()?.len()), "{:?}", world.offences()?);
    drop(idle); // Those that fit have their places free again.
    world.end()
}

#[test]
fn numbers_without_sense_are_bounded_or_refused() -> anyhow::Result<()> {
    let world = World::start(&["t"])?;
    let mut connection = world.connect()?;
    let records = batch("read");
    connection.call(&produce(-1, i32::MAX, &[("t", 0, Some(&records))]))?;
    connection.call(&produce(-1, i32::MIN, &[("t", 0, Some(&records))]))?;
    for number in [i32::MIN, -1, 0, i32::MAX] {
        // Wait, least and most bytes, isolation level, session id and epoch, and the partition's.
        let body = Bytes::new().i32(number).i32(number.min(0)).i32(number).i32(number);
        let body = body.i8(number as i8).i32(0).i32(-1).i32(1).string("t").i32(1);
        let body = body.i32(0).i32(-1).i64(0).i64(number.into()).i32(number);
        let request = Request::new(key::FETCH, 11, body.i32(0).string(""));
        let answer = fetched(&connection.call(&request)?)?;
        ensure!(answer.code == 0, "{number}: {answer:?}");
        // Somebody else's fetch session.
        let body = Bytes::new().i32(0).i32(0).i32(1).i8(0).i32(number.max(1)).i32(number.max(1));
        let session = body.i32(0).i32(0).string("");
        let session = Request::new(key::FETCH, 11, Bytes::new().i32(-1).raw(&session.0));
        let answer = fetched(&connection.call(&session)?)?;
        ensure!(answer.code == 70, "session {number}: {answer:?}");
        let join = Bytes::new().string("g").i32(number).i32(number).string("").i16(-1);
        let join = join.string("consumer").i32(1).string("range").bytes(Some(b""));
        let answer = connection.call(&Request::new(key::JOIN_GROUP, 5, join))?;
        let code = Fields::new(&answer[4..]).i16()?;
        ensure!(code == 26, "a session of {number} ms: {code}");
        let heartbeat = Bytes::new().string("g").i32(number).string("m").i16(-1);
        let answer = connection.call(&Request::new(key::HEARTBEAT, 3, heartbeat))?;
        ensure!(Fields::new(&answer[4..]).i16()? == 25, "generation {number}");
    }
    let heard = connection.call(&metadata(&["t"], false))?;
    ensure!(metadata_topics(&heard)? == [("t".to_owned(), 0)], "the connection goes on");
    world.end()
}

#[test]
fn topic_names_and_counts_that_kafka_refuses_are_refused_with_its_codes() -> anyhow::Result<()> {
    let world = World::start(&["t"])?;
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a/b", "a b", "ä", "a\0", &long] {
        let topics = metadata_topics(&world.call(&metadata(&[name], true))?)?;
        ensure!(topics == [(name.to_owned(), 17)], "Metadata: {topics:?}");
        let topics = created_topics(&world.call(&create_topics(&[(name, 1)]))?)?;
        ensure!(topics == [(name.to_owned(), 17)], "CreateTopics: {topics:?}");
        let records = batch("lost");
        let rows = world.call(&produce(-1, 5000, &[(name, 0, Some(&records))]))?;
        let codes: Vec<i16> = produced(&rows)?.iter().map(|row| row.code).collect();
        ensure!(codes == [3], "Produce to {name:?}: {codes:?}");
        let answer = fetched(&world.call(&fetch(name, 0, 0, 0))?)?;
        ensure!(answer.code == 3, "Fetch of {name:?}: {answer:?}");
    }
    // What is no number of partitions is one thing, too many of them another (POLICY_VIOLATION).
    for (partitions, code) in [(0, 37), (-2, 37), (i32::MIN, 37), (i32::MAX, 44)] {
        let topics = created_topics(&world.call(&create_topics(&[("new", partitions)]))?)?;
        ensure!(topics[0].1 == code, "{partitions} partitions: {topics:?}");
    }
    let topics = created_topics(&world.call(&create_topics(&[("two", 1), ("two", 1)]))?)?;
    ensure!(topics == [("two".to_owned(), 42)], "{topics:?}");
    let topics = metadata_topics(&world.call(&metadata(&["two", "new"], false))?)?;
    ensure!(topics.iter().all(|(_, code)| *code == 3), "{topics:?}");
    for (index, offset, code) in [(-1, 0, 3), (1_000_000, 0, 3), (0, -5, 1), (0, i64::MAX, 1)] {
        let answer = fetched(&world.call(&fetch("t", index, offset, 0))?)?;
        ensure!(answer.code == code, "Fetch of {index} at {offset}: {answer:?}");
    }
    world.end()
}
