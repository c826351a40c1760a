//! Reads and their answers, and the rows and pointers that watches carry too.

use aquifer_storage::model::{LeaderEpoch, OffsetRange, ProducerId, Timestamp};

use super::{
    CodecError, admin, group, object_from_proto, object_to_proto, offset, partition_from_proto,
    partition_to_proto,
};
use crate::{
    machine::{
        effect::{Pointers, Run},
        query::{Answer, PartitionRuns, Query, TimeSpec},
    },
    proto::{self, answer::Answer as AnswerKind, query::Query as QueryKind},
};

/// A query as a message.
pub fn query_to_proto(query: &Query) -> proto::Query {
    let kind = match query {
        Query::Runs { partition, offset, limit } => QueryKind::Runs(proto::RunsQuery {
            partition: Some(partition_to_proto(*partition)),
            offset: offset.value(),
            limit: *limit,
        }),
        Query::RunByTime { partition, offset, time } => {
            QueryKind::RunByTime(proto::RunByTimeQuery {
                partition: Some(partition_to_proto(*partition)),
                offset: offset.value(),
                since: match time {
                    TimeSpec::Since(oldest) => Some(oldest.millis()),
                    TimeSpec::Newest => None,
                },
            })
        }
        Query::Group(query) => QueryKind::Group(group::query_to_proto(query)),
        Query::Sizes { from, to, limit } => QueryKind::Sizes(proto::SizesQuery {
            from: Some(admin::partition_to_proto(*from)),
            to: Some(admin::partition_to_proto(*to)),
            limit: *limit,
        }),
        Query::Producers { partition, after, limit } => {
            QueryKind::Producers(proto::ProducersQuery {
                partition: Some(admin::partition_to_proto(*partition)),
                after: after.map(ProducerId::value),
                limit: *limit,
            })
        }
        Query::Groups { after, limit } => {
            QueryKind::Groups(proto::GroupsQuery { after: after.clone(), limit: *limit })
        }
    };
    proto::Query { query: Some(kind) }
}

/// A query from a message.
pub fn query_from_proto(query: proto::Query) -> Result<Query, CodecError> {
    Ok(match query.query.ok_or(CodecError::Missing("query"))? {
        QueryKind::Runs(runs) => Query::Runs {
            partition: partition_from_proto(runs.partition)?,
            offset: offset(runs.offset)?,
            limit: runs.limit,
        },
        QueryKind::RunByTime(asked) => Query::RunByTime {
            partition: partition_from_proto(asked.partition)?,
            offset: offset(asked.offset)?,
            time: asked
                .since
                .map_or(TimeSpec::Newest, |since| TimeSpec::Since(Timestamp::from_millis(since))),
        },
        QueryKind::Group(query) => Query::Group(group::query_from_proto(query)?),
        QueryKind::Sizes(sizes) => Query::Sizes {
            from: admin::partition_from_proto(sizes.from)?,
            to: admin::partition_from_proto(sizes.to)?,
            limit: sizes.limit,
        },
        QueryKind::Producers(producers) => Query::Producers {
            partition: admin::partition_from_proto(producers.partition)?,
            after: producers.after.map(ProducerId::new),
            limit: producers.limit,
        },
        QueryKind::Groups(groups) => Query::Groups { after: groups.after, limit: groups.limit },
    })
}

/// An answer as a message.
pub fn answer_to_proto(answer: &Answer) -> proto::Answer {
    let kind = match answer {
        Answer::Runs(found) => AnswerKind::Runs(proto::RunsAnswer {
            found: found.as_ref().map(|found| proto::PartitionRuns {
                pointers: Some(pointers_to_proto(&found.pointers)),
                runs: runs_to_proto(&found.runs),
            }),
        }),
        Answer::Group(answer) => AnswerKind::Group(group::answer_to_proto(answer)),
        Answer::Sizes(sizes) => AnswerKind::Sizes(admin::sizes_to_proto(sizes)),
        Answer::Producers(producers) => {
            AnswerKind::Producers(admin::producers_to_proto(producers.as_deref()))
        }
        Answer::Groups(groups) => AnswerKind::Groups(admin::groups_to_proto(groups)),
    };
    proto::Answer { answer: Some(kind) }
}

/// An answer from a message.
pub fn answer_from_proto(answer: proto::Answer) -> Result<Answer, CodecError> {
    Ok(match answer.answer.ok_or(CodecError::Missing("answer"))? {
        AnswerKind::Runs(proto::RunsAnswer { found: None }) => Answer::Runs(None),
        AnswerKind::Runs(proto::RunsAnswer { found: Some(found) }) => {
            Answer::Runs(Some(PartitionRuns {
                pointers: pointers_from_proto(found.pointers)?,
                runs: runs_from_proto(found.runs)?,
            }))
        }
        AnswerKind::Group(answer) => Answer::Group(group::answer_from_proto(answer)?),
        AnswerKind::Sizes(sizes) => Answer::Sizes(admin::sizes_from_proto(sizes)?),
        AnswerKind::Producers(answer) => Answer::Producers(admin::producers_from_proto(answer)?),
        AnswerKind::Groups(groups) => Answer::Groups(admin::groups_from_proto(groups)?),
    })
}

pub(super) fn pointers_to_proto(pointers: &Pointers) -> proto::Pointers {
    proto::Pointers {
        log_start: pointers.log_start.value(),
        last_stable: pointers.last_stable.value(),
        high_watermark: pointers.high_watermark.value(),
        leader_epoch: pointers.leader_epoch.value(),
    }
}

pub(super) fn pointers_from_proto(
    pointers: Option<proto::Pointers>,
) -> Result<Pointers, CodecError> {
    let pointers = pointers.ok_or(CodecError::Missing("pointers"))?;
    let read = Pointers {
        log_start: offset(pointers.log_start)?,
        last_stable: offset(pointers.last_stable)?,
        high_watermark: offset(pointers.high_watermark)?,
        leader_epoch: LeaderEpoch::new(pointers.leader_epoch),
    };
    if read.log_start > read.last_stable || read.last_stable > read.high_watermark {
        return Err(CodecError::Invalid("pointers"));
    }
    Ok(read)
}

pub(super) fn runs_to_proto(runs: &[Run]) -> Vec<proto::Run> {
    let run = |run: &Run| proto::Run {
        base: run.offsets.base.value(),
        next: run.offsets.next.value(),
        object: Some(object_to_proto(&run.object)),
        object_bytes: run.object_bytes,
        position: run.position,
        length: run.length,
        max_timestamp: run.max_timestamp.millis(),
        offsets_final: run.offsets_final,
    };
    runs.iter().map(run).collect()
}

pub(super) fn runs_from_proto(runs: Vec<proto::Run>) -> Result<Vec<Run>, CodecError> {
    let run = |run: proto::Run| {
        let offsets = OffsetRange { base: offset(run.base)?, next: offset(run.next)? };
        let end = u64::from(run.position) + u64::from(run.length);
        if offsets.base >= offsets.next || end > run.object_bytes {
            return Err(CodecError::Invalid("run"));
        }
        Ok(Run {
            offsets,
            object: object_from_proto(run.object)?,
            object_bytes: run.object_bytes,
            position: run.position,
            length: run.length,
            max_timestamp: Timestamp::from_millis(run.max_timestamp),
            offsets_final: run.offsets_final,
        })
    };
    runs.into_iter().map(run).collect()
}
