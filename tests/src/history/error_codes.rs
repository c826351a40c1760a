//! B3: a valid batch is only ever refused with a code that tells its producer to try again.

use super::{
    Answer, Findings, History,
    log::{Log, sends},
};

/// Kafka's retriable codes with which a broker may refuse a valid batch.
const RETRIABLE: &[i16] = &[
    3,  // UNKNOWN_TOPIC_OR_PARTITION
    5,  // LEADER_NOT_AVAILABLE
    6,  // NOT_LEADER_OR_FOLLOWER
    7,  // REQUEST_TIMED_OUT
    19, // NOT_ENOUGH_REPLICAS
    56, // KAFKA_STORAGE_ERROR
    89, // THROTTLING_QUOTA_EXCEEDED
];

/// `OUT_OF_ORDER_SEQUENCE_NUMBER`: for what follows a batch that is not there yet. Clients put it
/// among the refusals only when it was the answer to such a one, and fail on it otherwise.
const OUT_OF_ORDER: i16 = 45;

/// `REQUEST_TIMED_OUT` leaves the outcome open: it is never a failure.
const TIMED_OUT: i16 = 7;

pub(super) fn check(history: &History, _: &Log, findings: &mut Findings) {
    for (operation, send) in sends(history) {
        for (code, _) in &send.refusals {
            if !RETRIABLE.contains(code) && *code != OUT_OF_ORDER {
                findings.add(|| format!("{:?} refused with {code}", operation.key));
            }
        }
        if let Answer::Failed(code) = send.answer
            && (!RETRIABLE.contains(&code) || code == TIMED_OUT)
        {
            findings.add(|| format!("{:?} failed with {code}", operation.key));
        }
    }
}
