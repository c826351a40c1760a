//! E6: an offset that some answer told of is never out of range afterwards. For topics that lose
//! nothing to retention.

use std::collections::BTreeMap;

use super::{
    Action, Answer, Findings, History, Key,
    log::{Log, Stated, judge_against_past, known_ends},
};

/// Kafka's `OFFSET_OUT_OF_RANGE`.
const OUT_OF_RANGE: i16 = 1;

pub(super) fn check(history: &History, _: &Log, findings: &mut Findings) {
    let mut known = known_ends(history);
    let mut asked = BTreeMap::<Key, Vec<Stated>>::new();
    for operation in &history.operations {
        if let Action::Poll(poll) = &operation.action
            && poll.answer == Answer::Failed(OUT_OF_RANGE)
            && 0 <= poll.from
        {
            let (began, ended, number) = (operation.began, operation.ended, poll.from);
            asked.entry(operation.key).or_default().push(Stated { began, ended, number });
        }
    }
    for (key, mut asked) in asked {
        let known = known.get_mut(&key).map(Vec::as_mut_slice).unwrap_or_default();
        judge_against_past(known, &mut asked, |refused, told| {
            if refused.number <= told.number {
                findings.add(|| {
                    format!(
                        "{key:?} reached {} at {} ns, and {} was out of range at {} ns",
                        told.number, told.ended, refused.number, refused.began
                    )
                });
            }
        });
    }
}
