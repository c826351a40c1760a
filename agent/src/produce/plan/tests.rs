//! Laws of plan.

use super::*;

const LIMITS: FlushLimits = FlushLimits {
    object_bytes: 1000,
    interval: Duration::from_millis(100),
    in_flight_bytes_max: 5000,
    put_budget: PutBudget { per_second: 10, burst: 2 },
};

fn ms(millis: u64) -> MonoTime {
    MonoTime::from_zero(Duration::from_millis(millis))
}

fn input(now: u64, puts_in_flight: usize) -> FlushInput {
    FlushInput {
        now: ms(now),
        buffered: Some(Buffered { bytes: 100, oldest: ms(1000), full: false }),
        puts_in_flight,
        bytes_in_flight: 100 * puts_in_flight as u64,
        draining: false,
    }
}

fn plan(input: FlushInput) -> Flush {
    plan_flush(input, &LIMITS, &TokenBucket::new(LIMITS.put_budget))
}

#[test]
fn an_empty_buffer_is_never_flushed() {
    let input = FlushInput { buffered: None, draining: true, ..input(5000, 0) };
    assert_eq!(plan(input), Flush::Wait);
}

#[test]
fn with_no_put_in_flight_the_first_batch_leaves_at_once() {
    assert_eq!(plan(input(1000, 0)), Flush::Now);
}

#[test]
fn with_a_put_in_flight_a_batch_waits_for_the_interval() {
    assert_eq!(plan(input(1000, 1)), Flush::At(ms(1100)));
    assert_eq!(plan(input(1100, 3)), Flush::Now);
}

#[test]
fn a_full_object_waits_only_for_bytes_in_flight() {
    let buffered = Some(Buffered { bytes: 1000, oldest: ms(1000), full: true });
    let mut tokens = TokenBucket::new(LIMITS.put_budget);
    for _ in 0..9 {
        tokens.take(ms(1000));
    }
    let full = FlushInput { buffered, ..input(1000, 1) };
    assert_eq!(plan_flush(full, &LIMITS, &tokens), Flush::Now);
    let crowded = FlushInput { bytes_in_flight: 4500, ..full };
    assert_eq!(plan_flush(crowded, &LIMITS, &tokens), Flush::Wait);
}

#[test]
fn an_object_above_the_bound_leaves_when_nothing_else_is_in_flight() {
    let buffered = Some(Buffered { bytes: 90_000, oldest: ms(1000), full: true });
    assert_eq!(plan(FlushInput { buffered, ..input(1000, 0) }), Flush::Now);
}

#[test]
fn the_budget_bounds_puts_to_its_rate_after_the_burst() {
    let mut tokens = TokenBucket::new(LIMITS.put_budget);
    let mut now = ms(1000);
    let mut puts = 0;
    while now < ms(11_000) {
        match plan_flush(FlushInput { now, ..input(1000, 0) }, &LIMITS, &tokens) {
            Flush::Now => {
                tokens.take(now);
                puts += 1;
            }
            Flush::At(at) => {
                assert!(now < at, "a plan names a later moment");
                now = at;
            }
            Flush::Wait => unreachable!("the buffer is not empty"),
        }
    }
    assert_eq!(puts, 101);
}

#[test]
fn a_budget_of_zero_is_no_limit() {
    let mut tokens = TokenBucket::new(PutBudget { per_second: 0, burst: 1 });
    for _ in 0..1000 {
        assert_eq!(tokens.next_token(ms(1)), ms(1));
        tokens.take(ms(1));
    }
}
