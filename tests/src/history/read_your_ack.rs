//! E3: whoever asks for the end of a log, of any server, after an answer told of a record, is told
//! of an end behind that record.

use std::collections::BTreeMap;

use super::{
    Action, Findings, History, Key, LogEnd,
    log::{Log, Stated, judge_against_past, known_ends},
};

pub(super) fn check(history: &History, _: &Log, findings: &mut Findings) {
    let mut known = known_ends(history);
    let mut asked = BTreeMap::<Key, Vec<Stated>>::new();
    for operation in &history.operations {
        if let Action::ListOffsets { end: LogEnd::Latest, answer } = &operation.action
            && let Some(number) = answer.done()
        {
            let (began, ended, number) = (operation.began, operation.ended, *number);
            asked.entry(operation.key).or_default().push(Stated { began, ended, number });
        }
    }
    for (key, mut asked) in asked {
        let known = known.get_mut(&key).map(Vec::as_mut_slice).unwrap_or_default();
        judge_against_past(known, &mut asked, |later, earlier| {
            if later.number < earlier.number {
                findings.add(|| {
                    format!(
                        "{key:?} reached {} at {} ns, and ended at {} when asked at {} ns",
                        earlier.number, earlier.ended, later.number, later.began
                    )
                });
            }
        });
    }
}
