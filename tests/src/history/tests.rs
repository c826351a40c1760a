//! Every law passes a history that obeys it and fails one with a planted breach.

use super::*;

fn send(
    process: u32,
    (began, ended): (u64, u64),
    values: &[u64],
    answer: Answer<i64>,
) -> Operation {
    let send = Send {
        chain: process,
        place: began,
        values: values.iter().map(|value| Value(*value)).collect(),
        idempotent: true,
        sent_once: false,
        answer,
        refusals: Vec::new(),
    };
    Operation { process, server: 0, key: Key(0), began, ended, action: Action::Send(send) }
}

fn polled(from: i64, values: &[u64], high_watermark: i64) -> Polled {
    let record =
        |(offset, value): (i64, &u64)| Record { offset, value: Value(*value), intact: true };
    let records = (from..).zip(values).map(record).collect();
    Polled { records, high_watermark, log_start: 0 }
}

fn poll(server: u32, (began, ended): (u64, u64), from: i64, answer: Answer<Polled>) -> Operation {
    let action = Action::Poll(Poll { from, answer });
    Operation { process: 9, server, key: Key(0), began, ended, action }
}

fn latest((began, ended): (u64, u64), offset: i64) -> Operation {
    let action = Action::ListOffsets { end: LogEnd::Latest, answer: Answer::Done(offset) };
    Operation { process: 8, server: 1, key: Key(0), began, ended, action }
}

/// Two producers, a consumer, somebody who asks for the end, and a final read.
fn lawful() -> History {
    History {
        operations: vec![
            send(1, (1, 5), &[10, 11], Answer::Done(0)),
            send(2, (2, 8), &[20], Answer::Unknown),
            send(1, (6, 9), &[12], Answer::Done(3)),
            send(2, (9, 10), &[21], Answer::Failed(56)),
            latest((6, 7), 2),
            poll(0, (7, 8), 0, Answer::Done(polled(0, &[10, 11], 2))),
            poll(0, (9, 11), 2, Answer::Done(polled(2, &[20, 12], 4))),
            poll(1, (8, 9), 7, Answer::Failed(1)),
            latest((12, 13), 4),
        ],
        final_reads: vec![(Key(0), polled(0, &[10, 11, 20, 12], 4))],
        healed: Some((5, 10)),
        keys: vec![Key(0)],
        groups: Groups::default(),
    }
}

/// The laws that `lawful`, changed by `breach`, breaks.
fn broken(breach: impl FnOnce(&mut History)) -> Vec<&'static str> {
    let mut history = lawful();
    breach(&mut history);
    let mut laws: Vec<_> = check(&history).into_iter().map(|violation| violation.law).collect();
    laws.dedup();
    laws
}

#[test]
fn a_lawful_history_breaks_no_law() {
    assert_eq!(check(&lawful()), Vec::new());
}

#[test]
fn an_acknowledged_record_that_is_not_there_at_the_end_is_lost() {
    let laws = broken(|history| {
        let last = &mut history.final_reads[0].1;
        (last.records, last.high_watermark) = (last.records[..3].to_vec(), 3);
        history.operations.retain(|operation| {
            !matches!(&operation.action,
            Action::Poll(poll) if poll.from == 2)
        });
        history.operations.pop();
        history.healed = None;
    });
    assert_eq!(laws, ["A1 lost"]);
}

#[test]
fn a_record_that_was_read_and_is_not_there_at_the_end_is_lost() {
    let laws = broken(|history| {
        history.operations.push(send(3, (11, 12), &[30], Answer::Unknown));
        history.operations.push(poll(7, (13, 14), 4, Answer::Done(polled(4, &[30], 5))));
    });
    assert_eq!(laws, ["A1 lost", "A5 monotone"]);
}

#[test]
fn two_values_at_one_offset_are_inconsistent() {
    let laws = broken(|history| {
        history.operations.push(poll(2, (13, 14), 2, Answer::Done(polled(2, &[12], 4))));
    });
    assert!(laws.contains(&"A2 inconsistent offsets"), "{laws:?}");
    let laws = broken(|history| {
        history.operations.push(send(3, (11, 12), &[31], Answer::Done(2)));
    });
    assert!(laws.contains(&"A2 inconsistent offsets"), "{laws:?}");
}

#[test]
fn an_ack_that_names_another_offset_is_noticed() {
    let laws = broken(|history| {
        let Action::Send(send) = &mut history.operations[2].action else { unreachable!() };
        send.answer = Answer::Done(4);
    });
    assert!(laws.contains(&"A3 ack offset"), "{laws:?}");
}

#[test]
fn an_error_with_an_offset_is_noticed() {
    let laws = broken(|history| {
        let Action::Send(send) = &mut history.operations[1].action else { unreachable!() };
        send.refusals.extend([(56, -1), (56, 0)]);
    });
    assert_eq!(laws, ["A3 ack offset"]);
}

#[test]
fn a_gap_is_noticed_inside_a_poll_at_its_start_and_at_the_end() {
    let laws = broken(|history| {
        history.operations.push(poll(2, (13, 14), 0, Answer::Done(polled(1, &[11], 4))));
    });
    assert_eq!(laws, ["A4 dense"]);
    let laws = broken(|history| {
        let mut gap = polled(0, &[10, 11, 20, 12], 4);
        gap.records.remove(1);
        history.operations.push(poll(2, (13, 14), 0, Answer::Done(gap)));
    });
    assert_eq!(laws, ["A4 dense"]);
    let laws = broken(|history| history.final_reads[0].1.high_watermark = 5);
    assert_eq!(laws, ["A4 dense"]);
}

#[test]
fn an_end_that_goes_back_is_noticed() {
    let laws = broken(|history| history.operations.push(latest((14, 15), 3)));
    assert_eq!(laws, ["A5 monotone", "E3 read your ack"]);
    // Both were under way at once: either may have been first.
    assert!(broken(|history| history.operations.push(latest((7, 15), 3))).is_empty());
}

#[test]
fn a_watermark_may_lag_at_another_server_but_not_go_back_at_one() {
    let lagging = |server| poll(server, (14, 15), 2, Answer::Done(polled(2, &[], 2)));
    assert!(broken(|history| history.operations.push(lagging(5))).is_empty());
    assert_eq!(broken(|history| history.operations.push(lagging(0))), ["A5 monotone"]);
}

#[test]
fn a_failure_that_took_effect_is_noticed() {
    let laws = broken(|history| {
        let Action::Send(send) = &mut history.operations[1].action else { unreachable!() };
        send.answer = Answer::Failed(56);
    });
    assert_eq!(laws, ["A8 definite failure"]);
}

#[test]
fn a_duplicate_is_noticed_of_an_idempotent_producer_only() {
    let twice = |history: &mut History| {
        let last = &mut history.final_reads[0].1;
        *last = polled(0, &[10, 11, 20, 12, 20], 5);
    };
    assert_eq!(broken(twice), ["B1 duplicate"]);
    let laws = broken(|history| {
        twice(history);
        let Action::Send(send) = &mut history.operations[1].action else { unreachable!() };
        send.idempotent = false;
    });
    assert!(laws.is_empty(), "{laws:?}");
}

#[test]
fn a_duplicate_of_what_was_sent_once_is_noticed() {
    let laws = broken(|history| {
        history.final_reads[0].1 = polled(0, &[10, 11, 20, 12, 20], 5);
        let Action::Send(send) = &mut history.operations[1].action else { unreachable!() };
        (send.idempotent, send.sent_once) = (false, true);
    });
    assert_eq!(laws, ["A7 sent once"]);
}

#[test]
fn codes_that_make_a_producer_give_up_are_noticed() {
    for code in [-1, 2, 45, 47, 87] {
        let laws = broken(|history| {
            let Action::Send(send) = &mut history.operations[3].action else { unreachable!() };
            send.answer = Answer::Failed(code);
        });
        assert_eq!(laws, ["B3 error code"], "{code}");
    }
    let laws = broken(|history| {
        let Action::Send(send) = &mut history.operations[1].action else { unreachable!() };
        send.refusals.extend([(45, -1), (-1, -1)]);
    });
    assert_eq!(laws, ["B3 error code"]);
}

#[test]
fn batches_of_a_chain_out_of_order_are_noticed() {
    let laws = broken(|history| {
        for (operation, place) in [(0, 7), (2, 3)] {
            let Action::Send(send) = &mut history.operations[operation].action else {
                unreachable!()
            };
            send.place = place;
        }
    });
    assert_eq!(laws, ["B4 order"]);
}

#[test]
fn bytes_that_nobody_sent_are_noticed() {
    let laws = broken(|history| {
        history.final_reads[0].1.records[0].intact = false;
    });
    assert_eq!(laws, ["E1 payload"]);
    let laws = broken(|history| {
        history.final_reads[0].1 = polled(0, &[10, 11, 20, 12, 99], 5);
    });
    assert_eq!(laws, ["E1 payload"]);
}

#[test]
fn an_end_before_an_acknowledged_record_is_noticed() {
    let laws = broken(|history| {
        history.operations.retain(|operation| operation.began != 12);
        history.operations.push(latest((10, 11), 3));
    });
    assert_eq!(laws, ["E3 read your ack"]);
}

#[test]
fn an_offset_that_was_told_is_not_out_of_range() {
    let laws = broken(|history| history.operations.push(poll(3, (15, 16), 4, Answer::Failed(1))));
    assert_eq!(laws, ["E6 out of range"]);
}

#[test]
fn a_key_that_takes_or_serves_nothing_after_the_heal_is_noticed() {
    let laws = broken(|history| history.healed = Some((14, 10)));
    assert_eq!(laws, ["H1 liveness"]);
    let laws = broken(|history| {
        history.keys.push(Key(1));
        history.healed = Some((5, 10));
    });
    assert_eq!(laws, ["H1 liveness"]);
}

#[test]
fn a_million_operations_take_seconds() {
    let mut history = History { keys: vec![Key(0)], ..History::default() };
    let count = 500_000u64;
    for value in 0..count {
        let (time, offset) = (value * 10, value as i64);
        history.operations.push(send(1, (time, time + 3), &[value], Answer::Done(offset)));
        let read = polled(offset, &[value], offset + 1);
        history.operations.push(poll(0, (time + 4, time + 5), offset, Answer::Done(read)));
    }
    let all: Vec<u64> = (0..count).collect();
    history.final_reads.push((Key(0), polled(0, &all, count as i64)));
    let began = std::time::Instant::now();
    assert_eq!(check(&history), Vec::new());
    let took = began.elapsed();
    println!("{} operations in {took:?}", history.operations.len());
    assert!(took.as_secs() < 30, "{took:?}");
}
