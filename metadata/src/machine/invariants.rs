//! What always holds, as named predicates. Tests and the simulator check all of them after each
//! entry; a snapshot that breaks one is refused.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_storage::model::Offset;

use super::{
    MetadataState, object::ObjectId, partition_log::PAGE_ROWS_MAX, producer::BATCHES_KEPT,
    topic::PARTITIONS_MAX,
};

/// An invariant's name and whether it holds.
type Invariant = (&'static str, fn(&MetadataState) -> bool);

const INVARIANTS: [Invariant; 14] = [
    ("pointers are ordered and only existing partitions have a log", pointers_are_ordered),
    ("rows are contiguous up to the high watermark", rows_are_contiguous),
    ("pages are full in order and know their newest timestamp and their bytes", pages_are_sound),
    ("rows below a log start are known to be there", |state| state.logs.knows_surplus()),
    ("an object's live runs are the rows that name it", live_runs_equal_rows),
    ("an object has one id and an id one object", objects_have_one_id),
    ("only unused objects that nobody can name are condemned", condemned_are_unused),
    ("objects are open exactly while a commit may name them", open_may_be_named),
    ("remembered batches lie below the high watermark", remembered_lie_below),
    ("ids not yet given are above all that were", ids_are_above_all_used),
    ("a session's results are of parts before its next", results_are_of_the_past),
    ("groups keep their own invariants", groups_are_sound),
    ("partitions are counted and within their limit", partitions_are_counted),
    ("stored configs are counted and none is empty", configs_are_counted),
];

/// The names of the invariants that do not hold; none, or there is a bug.
pub fn violations(state: &MetadataState) -> Vec<&'static str> {
    INVARIANTS.iter().filter(|(_, holds)| !holds(state)).map(|(name, _)| *name).collect()
}

fn pointers_are_ordered(state: &MetadataState) -> bool {
    state.logs.iter().all(|(partition, log)| {
        log.log_start() <= log.high_watermark() && state.topics.has(partition)
    })
}

fn rows_are_contiguous(state: &MetadataState) -> bool {
    state.logs.iter().all(|(_, log)| {
        let mut rows = log.rows();
        let Some(first) = rows.next() else { return log.log_start() == log.high_watermark() };
        let mut end = first.next();
        let joined = rows.all(|row| row.base == std::mem::replace(&mut end, row.next()));
        joined && first.base <= log.log_start() && end == log.high_watermark()
    })
}

fn pages_are_sound(state: &MetadataState) -> bool {
    state.logs.iter().flat_map(|(_, log)| log.pages()).all(|(key, page)| {
        let rows: Vec<_> = page.rows_from(Offset::ZERO).collect();
        let newest = rows.iter().map(|row| row.max_timestamp).max();
        rows.first().is_some_and(|row| row.base == key)
            && rows.len() == page.row_count()
            && rows.len() <= PAGE_ROWS_MAX
            && newest == Some(page.max_timestamp())
            && page.record_bytes() == rows.iter().map(|row| u64::from(row.length)).sum::<u64>()
    })
}

fn live_runs_equal_rows(state: &MetadataState) -> bool {
    let mut counted: BTreeMap<ObjectId, u32> = BTreeMap::new();
    for row in state.logs.iter().flat_map(|(_, log)| log.rows()) {
        *counted.entry(row.object).or_default() += 1;
    }
    let known = state.objects.iter().filter(|(_, object)| object.live_runs > 0);
    known.map(|(id, object)| (id, object.live_runs)).eq(counted)
}

fn condemned_are_unused(state: &MetadataState) -> bool {
    let unnameable = state.objects.iter().all(|(_, object)| {
        let garbage = object.live_runs == 0 && !state.sessions.may_name(&object.name);
        object.condemned.is_some() == garbage
    });
    let marked =
        state.objects.iter().filter_map(|(id, object)| object.condemned.map(|at| (at, id)));
    let mut marked: Vec<_> = marked.collect();
    marked.sort_unstable();
    unnameable && state.objects.condemned().eq(marked)
}

/// Nobody commits for a session that was never registered: what is named after one may stay open.
fn open_may_be_named(state: &MetadataState) -> bool {
    let open: BTreeSet<_> = state.objects.open().collect();
    state.objects.iter().all(|(id, object)| {
        let is_open = open.contains(&id);
        is_open == state.sessions.may_name(&object.name)
            || (is_open && state.sessions.get(object.name.session).is_none())
    })
}

fn objects_have_one_id(state: &MetadataState) -> bool {
    let mut names: Vec<_> = state.objects.iter().map(|(_, object)| object.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    names.len() == count
}

fn groups_are_sound(state: &MetadataState) -> bool {
    state.groups.broken_invariant().is_none()
}

fn remembered_lie_below(state: &MetadataState) -> bool {
    let all_below = state.producers.iter().all(|((partition, _), producer)| {
        let log = state.logs.get(*partition);
        let high_watermark = log.map_or(Offset::ZERO, |log| log.high_watermark());
        let ascending = producer.batches.is_sorted_by_key(|batch| batch.base);
        let count = producer.batches.len();
        let below = producer.batches.iter().all(|batch| batch.base < high_watermark);
        (1..=BATCHES_KEPT).contains(&count) && ascending && below
    });
    all_below && state.producers.is_queued()
}

fn ids_are_above_all_used(state: &MetadataState) -> bool {
    let last = state.sessions.last();
    let nodes = state.nodes.iter().count();
    let node_ids: BTreeSet<_> = state.nodes.iter().map(|(_, id)| id).collect();
    let are_given = node_ids.len() == nodes
        && node_ids.last().is_none_or(|id| *id <= state.nodes.last())
        && node_ids.first().is_none_or(|id| 1 <= id.value());
    let live_are_known = state.sessions.live().all(|(_, session)| node_ids.contains(&session.node));
    state.sessions.iter().all(|(id, _)| id <= last) && are_given && live_are_known
}

fn results_are_of_the_past(state: &MetadataState) -> bool {
    state
        .sessions
        .iter()
        .all(|(_, session)| session.results.keys().all(|part| *part < session.next_commit_seq))
}

fn configs_are_counted(state: &MetadataState) -> bool {
    state.configs.is_sound()
}

fn partitions_are_counted(state: &MetadataState) -> bool {
    let counted: u64 = state.topics.iter().map(|topic| u64::from(topic.partitions)).sum();
    counted == state.topics.partition_count() && counted <= PARTITIONS_MAX
}
