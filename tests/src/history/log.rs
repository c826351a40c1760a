//! What a history says about the logs: which value was seen where, and who wrote it.

use std::collections::BTreeMap;

use super::{Action, History, Key, Nanos, Operation, Polled, Record, Send, Value};

/// The logs as all readers together saw them.
pub(crate) struct Log {
    keys: BTreeMap<Key, KeyLog>,
}

/// One key's log.
#[derive(Default)]
pub(crate) struct KeyLog {
    /// What was read, by offset; every pair once.
    pub(crate) seen: Vec<(i64, Value)>,
    /// The same by value.
    places: Vec<(Value, i64)>,
    /// Who sent which value, by value.
    writers: Vec<(Value, usize)>,
    /// What it holds at the end.
    pub(crate) last: Option<usize>,
}

impl KeyLog {
    /// Where `value` was seen, rising.
    pub(crate) fn places(&self, value: Value) -> impl Iterator<Item = i64> {
        let first = self.places.partition_point(|(other, _)| *other < value);
        let places = self.places[first..].iter();
        places.take_while(move |(other, _)| *other == value).map(|(_, offset)| *offset)
    }

    /// The operation that sent `value`, as its place in the history.
    pub(crate) fn writer(&self, value: Value) -> Option<usize> {
        let found = self.writers.binary_search_by_key(&value, |(other, _)| *other);
        found.ok().map(|place| self.writers[place].1)
    }
}

impl Log {
    pub(crate) fn of(history: &History) -> Self {
        let mut keys = BTreeMap::<Key, KeyLog>::new();
        for key in &history.keys {
            keys.entry(*key).or_default();
        }
        for (place, operation) in history.operations.iter().enumerate() {
            let log = keys.entry(operation.key).or_default();
            match &operation.action {
                Action::Send(send) => {
                    log.writers.extend(send.values.iter().map(|value| (*value, place)));
                }
                Action::Poll(poll) => log.see(poll.answer.done()),
                Action::ListOffsets { .. } => {}
            }
        }
        for (place, (key, polled)) in history.final_reads.iter().enumerate() {
            let log = keys.entry(*key).or_default();
            log.see(Some(polled));
            log.last = Some(place);
        }
        for log in keys.values_mut() {
            log.seen.sort_unstable();
            log.seen.dedup();
            log.places = log.seen.iter().map(|(offset, value)| (*value, *offset)).collect();
            log.places.sort_unstable();
            log.writers.sort_unstable();
        }
        Self { keys }
    }

    /// Every key with its log.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (Key, &KeyLog)> {
        self.keys.iter().map(|(key, log)| (*key, log))
    }

    /// The log of a key of the history.
    pub(crate) fn of_key(&self, key: Key) -> &KeyLog {
        self.keys.get(&key).expect("every key of the history has a log")
    }
}

impl KeyLog {
    fn see(&mut self, polled: Option<&Polled>) {
        let records = polled.into_iter().flat_map(|polled| &polled.records);
        self.seen.extend(records.map(|Record { offset, value, .. }| (*offset, *value)));
    }
}

/// All sends with their operation.
pub(crate) fn sends(history: &History) -> impl Iterator<Item = (&Operation, &Send)> {
    history.operations.iter().filter_map(|operation| match &operation.action {
        Action::Send(send) => Some((operation, send)),
        _ => None,
    })
}

/// A number that some answer stated, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stated {
    pub(crate) began: Nanos,
    pub(crate) ended: Nanos,
    pub(crate) number: i64,
}

/// For each of `asked`, the largest number of `known` whose answer was there before the question:
/// what a linearizable answer must reach. Calls `judge` with both.
pub(crate) fn judge_against_past<'a>(
    known: &mut [Stated],
    asked: &'a mut [Stated],
    mut judge: impl FnMut(&'a Stated, &Stated),
) {
    known.sort_unstable_by_key(|stated| stated.ended);
    asked.sort_unstable_by_key(|stated| stated.began);
    let mut known = known.iter().peekable();
    let mut highest: Option<Stated> = None;
    for question in &*asked {
        while let Some(stated) = known.next_if(|stated| stated.ended < question.began) {
            if highest.is_none_or(|highest| highest.number < stated.number) {
                highest = Some(*stated);
            }
        }
        if let Some(highest) = &highest {
            judge(question, highest);
        }
    }
}

/// Every answer that states how far a key's log reaches at least: the offset behind the last
/// record that it knows of.
pub(crate) fn known_ends(history: &History) -> BTreeMap<Key, Vec<Stated>> {
    let mut ends = BTreeMap::<Key, Vec<Stated>>::new();
    for operation in &history.operations {
        let Operation { began, ended, key, .. } = *operation;
        let number = match &operation.action {
            Action::Send(send) => send.answer.done().map(|base| base + send.values.len() as i64),
            Action::Poll(poll) => poll.answer.done().map(|polled| polled.high_watermark),
            Action::ListOffsets { end: super::LogEnd::Latest, answer } => answer.done().copied(),
            Action::ListOffsets { .. } => None,
        };
        if let Some(number) = number {
            ends.entry(key).or_default().push(Stated { began, ended, number });
        }
    }
    ends
}
