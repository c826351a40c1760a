//! From a Fetch request to its answer, every row in memory.

use std::sync::Arc;

use aquifer_agent::{
    fetch::{
        hot,
        plan::{PartitionInput, PartitionPlan, plan_partition, share_bytes, share_memory},
    },
    wire::{
        Records, Str, Writer,
        fetch_walk::FetchWalk,
        header::response_frame,
        messages::{
            FetchRequest, FetchRequestTopics, FetchRequestTopicsPartitions, FetchResponse,
            FetchResponseResponses, FetchResponseResponsesPartitions, Message,
        },
    },
};
use aquifer_metadata::machine::effect::{Pointers, Run};
use aquifer_storage::{
    cache::{ObjectReader, history::History, memory::LruCache},
    format::object::ObjectBuilder,
    model::{LeaderEpoch, Offset, OffsetRange, Timestamp},
    store::MemoryStore,
};
use bytes::Bytes;
use futures::FutureExt;

use crate::{
    common::{batch, object, partition},
    rounds,
};

const VERSION: i16 = 12;
/// Records of a batch: the batch is above a KiB and is sent as it lies.
const RECORDS: u32 = 100;

/// Reads and checks a request of `count` partitions.
pub fn walk(count: usize) {
    let asked = |index: usize| FetchRequestTopicsPartitions {
        partition: i32::try_from(index).expect("a few hundred"),
        partition_max_bytes: 1 << 20,
        ..FetchRequestTopicsPartitions::default()
    };
    let topic = FetchRequestTopics {
        topic: Str::from_static("a-topic"),
        partitions: (0..count).map(asked).collect(),
        ..FetchRequestTopics::default()
    };
    let request =
        FetchRequest { max_bytes: 1 << 20, topics: vec![topic], ..FetchRequest::default() };
    let mut w = Writer::default();
    request.encode_body(VERSION, &mut w);
    let body = w.into_bytes();
    rounds(
        |_| body.clone(),
        |body| {
            let walk = FetchWalk::parse(body, VERSION).expect("it is well-formed");
            walk.iter().map(|asked| asked.partition.fetch_offset).sum::<i64>()
        },
    );
}

fn offset(value: u32) -> Offset {
    Offset::new(value.into()).expect("not negative")
}

fn pointers(end: u32) -> Pointers {
    Pointers {
        log_start: Offset::ZERO,
        last_stable: offset(end),
        high_watermark: offset(end),
        leader_epoch: LeaderEpoch::new(0),
    }
}

/// One object with an extent of `batches` batches for each of `count` partitions, in the cache, and
/// the partitions' rows.
fn cached(count: usize, batches: u32) -> (ObjectReader, Vec<Run>) {
    let mut builder = ObjectBuilder::new();
    let per_extent = usize::try_from(batches).expect("a few");
    for index in 0..count {
        for _ in 0..batches {
            builder.add(partition(index), batch(0, RECORDS));
        }
    }
    let built = builder.finish();
    let name = object(0);
    let rows = built.positions.chunks(per_extent).map(|extent| {
        let (start, end) = (extent[0].range.start, extent[per_extent - 1].range.end);
        Run {
            offsets: OffsetRange { base: Offset::ZERO, next: offset(RECORDS * batches) },
            object: name,
            object_bytes: built.object_bytes,
            position: u32::try_from(start).expect("a small object"),
            length: u32::try_from(end - start).expect("a small object"),
            max_timestamp: Timestamp::from_millis(0),
            offsets_final: false,
        }
    });
    let rows = rows.collect();
    let (tail, history) = (Arc::new(LruCache::new(64 << 20)), History::new(64 << 20));
    let reader = ObjectReader::new(Arc::new(MemoryStore::default()), tail, history);
    let body: Bytes = built.body.concat().into();
    reader.insert_written(name, &[body]).now_or_never().expect("the cache does not wait");
    (reader, rows)
}

fn plan_and_cut(reader: &ObjectReader, rows: &[Run], end: u32) -> Vec<Vec<Bytes>> {
    let plan = |row: &Run| {
        plan_partition(&PartitionInput {
            offset: Offset::ZERO,
            bytes_max: 1 << 20,
            runs: std::slice::from_ref(row),
            rows_follow: false,
            bound: offset(end),
        })
    };
    let mut plans: Vec<PartitionPlan> = rows.iter().map(plan).collect();
    share_bytes(&mut plans, 50 << 20);
    share_memory(&mut plans, 50 << 20);
    let pointers = pointers(end);
    plans.iter().map(|plan| hot::cut(reader, plan, &pointers)).collect()
}

/// Plans and cuts one batch of each of `count` partitions.
pub fn cut(count: usize) {
    let (reader, rows) = cached(count, 1);
    rounds(|_| (), |()| plan_and_cut(&reader, &rows, RECORDS));
}

/// Plans and cuts a row of 64 batches.
pub fn cut_row() {
    let (reader, rows) = cached(1, 64);
    rounds(|_| (), |()| plan_and_cut(&reader, &rows, RECORDS * 64));
}

/// Encodes an answer with one batch of each of `count` partitions.
pub fn answer(count: usize) {
    let (reader, rows) = cached(count, 1);
    let input = |_| {
        let cut = plan_and_cut(&reader, &rows, RECORDS);
        let row = |(index, chunks): (usize, Vec<Bytes>)| FetchResponseResponsesPartitions {
            partition_index: i32::try_from(index).expect("a few hundred"),
            high_watermark: i64::from(RECORDS),
            last_stable_offset: i64::from(RECORDS),
            records: Some(Records::from(chunks)),
            ..FetchResponseResponsesPartitions::default()
        };
        let topic = FetchResponseResponses {
            topic: Str::from_static("a-topic"),
            partitions: cut.into_iter().enumerate().map(row).collect(),
            ..FetchResponseResponses::default()
        };
        FetchResponse { responses: vec![topic], ..FetchResponse::default() }
    };
    rounds(input, |response| (response_frame(9, VERSION, &response), response));
}
