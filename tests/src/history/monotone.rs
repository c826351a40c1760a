//! A5: the ends of a log never go back in real time, whoever answers; the high watermark that
//! comes with records never goes back at one server, and is never above the end of the log.

use std::collections::BTreeMap;

use super::{
    Action, Findings, History, Key, LogEnd,
    log::{Log, Stated, judge_against_past},
};

type ByKey<K> = BTreeMap<K, Vec<Stated>>;

pub(super) fn check(history: &History, _: &Log, findings: &mut Findings) {
    let mut ends = ByKey::<(Key, LogEnd)>::new();
    let mut watermarks = ByKey::<(Key, u32)>::new();
    let mut last = BTreeMap::<Key, i64>::new();
    for (key, polled) in &history.final_reads {
        last.insert(*key, polled.high_watermark);
    }
    for operation in &history.operations {
        let stated = |number| Stated { began: operation.began, ended: operation.ended, number };
        let number = match &operation.action {
            Action::Send(_) => continue,
            Action::Poll(poll) => {
                let Some(polled) = poll.answer.done() else { continue };
                let number = polled.high_watermark;
                let stated = stated(number);
                watermarks.entry((operation.key, operation.server)).or_default().push(stated);
                if number < polled.log_start {
                    findings
                        .add(|| format!("{:?}: {polled:?} ends before it starts", operation.key));
                }
                let behind = polled.records.last().map_or(0, |record| record.offset + 1);
                if number < behind {
                    findings.add(|| {
                        format!("{:?}: records up to {behind} above {number}", operation.key)
                    });
                }
                number
            }
            Action::ListOffsets { end, answer } => {
                let Some(number) = answer.done() else { continue };
                ends.entry((operation.key, *end)).or_default().push(stated(*number));
                *number
            }
        };
        if last.get(&operation.key).is_some_and(|last| *last < number) {
            findings.add(|| {
                let last = last[&operation.key];
                format!("{:?} was said to reach {number}, and ends at {last}", operation.key)
            });
        }
    }
    for (what, stated) in ends {
        never_back(&format!("{what:?}"), &stated, findings);
    }
    for ((key, server), stated) in watermarks {
        never_back(&format!("{key:?} watermark at server {server}"), &stated, findings);
    }
}

fn never_back(what: &str, stated: &[Stated], findings: &mut Findings) {
    let (mut known, mut asked) = (stated.to_vec(), stated.to_vec());
    judge_against_past(&mut known, &mut asked, |later, earlier| {
        if later.number < earlier.number {
            findings.add(|| {
                format!(
                    "{what} was {} at {} ns and {} when asked at {} ns",
                    earlier.number, earlier.ended, later.number, later.began
                )
            });
        }
    });
}
