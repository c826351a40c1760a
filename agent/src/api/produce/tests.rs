//! What a client is told of each outcome: the table behind RELIABILITY A3, A8 and B3.

use aquifer_storage::model::{Offset, Timestamp};

use super::*;

/// Every version that is served, and one from each side of a change.
const VERSIONS: [i16; 3] = [3, 12, 13];

const FAILURES: [AppendOutcome; 7] = [
    AppendOutcome::Rejected(BatchRejected::UnknownPartition),
    AppendOutcome::Rejected(BatchRejected::OutOfOrderSequence),
    AppendOutcome::Rejected(BatchRejected::InvalidProducerEpoch),
    AppendOutcome::Rejected(BatchRejected::OffsetsExhausted),
    AppendOutcome::BrokenChain,
    AppendOutcome::Unavailable,
    AppendOutcome::Unknown,
];

fn code_of(version: i16, outcome: AppendOutcome) -> i16 {
    answer(version, (0, -1), outcome).error_code
}

fn offset(value: i64) -> Offset {
    Offset::new(value).expect("not negative")
}

#[test]
fn every_error_names_no_offset() {
    for version in VERSIONS {
        for outcome in FAILURES {
            let row = answer(version, (4, -1), outcome);
            assert_eq!((row.index, row.base_offset), (4, -1), "{outcome:?}");
            assert_eq!((row.log_append_time_ms, row.log_start_offset), (-1, -1), "{outcome:?}");
            assert_ne!(row.error_code, 0, "{outcome:?}");
        }
    }
    let early = refused(2, ErrorCode::CorruptMessage, None);
    assert_eq!((early.base_offset, early.log_start_offset), (-1, -1));
}

#[test]
fn an_unknown_outcome_is_never_answered_as_a_failure() {
    let unknown = ErrorCode::RequestTimedOut.code();
    for version in VERSIONS {
        for outcome in FAILURES {
            let is_unknown = outcome == AppendOutcome::Unknown;
            assert_eq!(code_of(version, outcome) == unknown, is_unknown, "{outcome:?}");
        }
    }
}

/// UNKNOWN_SERVER_ERROR makes an idempotent producer bump its epoch and send again, and
/// OUT_OF_ORDER_SEQUENCE_NUMBER says that a batch is missing (KAFKA-14034).
#[test]
fn an_idempotent_producer_is_never_made_to_give_up() {
    let gap = ErrorCode::OutOfOrderSequenceNumber.code();
    for version in VERSIONS {
        for outcome in FAILURES {
            let code = code_of(version, outcome);
            assert_ne!(code, ErrorCode::UnknownServerError.code(), "{outcome:?}");
            let is_gap = outcome == AppendOutcome::Rejected(BatchRejected::OutOfOrderSequence);
            assert_eq!(code == gap, is_gap, "{outcome:?}");
        }
        for retried in [AppendOutcome::BrokenChain, AppendOutcome::Unavailable] {
            assert_eq!(code_of(version, retried), ErrorCode::KafkaStorageError.code());
        }
    }
}

#[test]
fn a_duplicate_is_a_success_at_its_original_offset() {
    let (base, log_start) = (offset(7), offset(2));
    let row = answer(13, (0, 44), AppendOutcome::Appended { base, log_start });
    assert_eq!((row.error_code, row.base_offset, row.log_start_offset), (0, 7, 2));
    assert_eq!(row.log_append_time_ms, 44);
    let max_timestamp = Timestamp::from_millis(55);
    let row = answer(13, (0, 44), AppendOutcome::Duplicate { base, max_timestamp, log_start });
    assert_eq!((row.error_code, row.base_offset, row.log_append_time_ms), (0, 7, 55));
}

#[test]
fn an_answer_that_is_missing_is_unknown() {
    let row = Row { index: 3, refused: None, append_time_ms: -1 };
    let topic = TopicRef::Name(Str::from_static("t"));
    let response = respond(12, vec![TopicRows { topic, rows: vec![row] }], Vec::new());
    let told = &response.responses[0].partition_responses[0];
    assert_eq!((told.error_code, told.base_offset), (ErrorCode::RequestTimedOut.code(), -1));
}
