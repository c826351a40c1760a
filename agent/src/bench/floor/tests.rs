//! Laws of the floor model.

#![allow(clippy::disallowed_methods, reason = "a test may unwrap")]

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: FloorArgs,
}

fn report(line: &str) -> FloorReport {
    let words = std::iter::once("floor").chain(line.split_whitespace());
    floor(&Command::try_parse_from(words).unwrap().args).unwrap()
}

fn refused(line: &str) -> bool {
    let words = std::iter::once("floor").chain(line.split_whitespace());
    match Command::try_parse_from(words) {
        Err(_) => true,
        Ok(command) => floor(&command.args).is_err(),
    }
}

#[track_caller]
fn close(modelled: f64, published: f64, tolerance: f64) {
    let off = (modelled - published).abs() / published;
    assert!(off <= tolerance, "{modelled} is {:.1}% off {published}", off * 100.0);
}

const STANDARD: &str = "--put-p50 100 --put-p99 195 --get-p50 63 --get-p99 78";
const EXPRESS: &str = "--put-p50 8 --put-p99 25 --get-p50 6 --get-p99 15 --quorum 2:3";

/// Flush interval, then p50 and p99 of the acknowledgement and of the delivery.
type Row = (u32, [f64; 4]);

fn reproduces(store: &str, rows: &[Row]) {
    for (flush_ms, [ack_p50, ack_p99, e2e_p50, e2e_p99]) in rows {
        let report = report(&format!("--flush-ms {flush_ms} {store} --samples 60000"));
        close(report.ack.p50_ms, *ack_p50, 0.02);
        close(report.ack.p99_ms, *ack_p99, 0.02);
        close(report.e2e.p50_ms, *e2e_p50, 0.02);
        close(report.e2e.p99_ms, *e2e_p99, 0.02);
    }
}

#[test]
fn the_published_floors_of_a_standard_bucket_are_reproduced() {
    let rows = [
        (250, [234.0, 397.0, 298.0, 462.0]),
        (100, [157.0, 266.0, 222.0, 331.0]),
        (50, [130.0, 229.0, 195.0, 294.0]),
        (25, [117.0, 213.0, 181.0, 278.0]),
        (10, [110.0, 205.0, 174.0, 270.0]),
    ];
    reproduces(STANDARD, &rows);
}

#[test]
fn the_published_floors_of_two_of_three_express_buckets_are_reproduced() {
    let rows = [
        (250, [138.0, 261.0, 145.0, 269.0]),
        (100, [63.0, 114.0, 70.0, 122.0]),
        (50, [38.0, 66.0, 45.0, 75.0]),
        (25, [25.0, 42.0, 33.0, 52.0]),
        (10, [18.0, 30.0, 25.0, 39.0]),
    ];
    reproduces(EXPRESS, &rows);
}

#[test]
fn one_percent_of_puts_five_times_slow_moves_the_tail_as_published() {
    let report = report("--flush-ms 0 --put-p50 100 --put-p99 195 --tail 0.01:5");
    close(report.put.p50_ms, 100.0, 0.02);
    // Hardly any sample lies between the fast ones and the slow ones: the model's p99 is loose.
    close(report.put.p99_ms, 274.0, 0.12);
    close(report.put.p999_ms, 712.0, 0.04);
}

#[test]
fn the_same_seed_gives_the_same_output_and_another_seed_another() {
    let timed = "--flush-ms 100 --put-p50 100 --put-p99 195 --samples 2000";
    let clocked = format!("{timed} --self-clocked --rate 200 --arrivals poisson");
    for line in [timed, &clocked] {
        let text =
            |seed: u64| serde_json::to_string(&report(&format!("{line} --seed {seed}"))).unwrap();
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }
}

#[test]
fn an_unloaded_self_clocked_agent_adds_nothing_to_put_commit_and_round_trip() {
    // A request every ten seconds never meets another.
    let line = "--flush-ms 100 --put-p50 100 --put-p99 100 --commit-p50 3 --commit-p99 3";
    let report = report(&format!("{line} --self-clocked --rate 0.1 --samples 500"));
    assert_eq!(report.ack.p50_ms, 104.0);
    assert_eq!(report.ack.p999_ms, 104.0);
    assert_eq!(report.e2e.p50_ms, 105.0);
    assert_eq!(report.object_bytes_mean, Some(65_536.0));
}

#[test]
fn requests_during_a_put_leave_together_when_it_ends() {
    // Every 10 ms against PUTs of 45 ms. The first object holds the first request. The next four
    // arrive during its PUT and leave at its end, as do the four or five behind each other PUT.
    let line = "--flush-ms 100 --put-p50 45 --put-p99 45 --commit-p50 0 --commit-p99 0 --rtt 0";
    let report = report(&format!("{line} --self-clocked --rate 100 --samples 9000"));
    close(report.puts_per_s.unwrap(), 1000.0 / 45.0, 0.01);
    close(report.object_bytes_mean.unwrap(), 4.5 * 65_536.0, 0.01);
    // Waits are even over 0 to 45 ms.
    close(report.ack.p50_ms, 45.0 + 22.5, 0.05);
    assert!(report.ack.p999_ms <= 90.0);
}

#[test]
fn the_flush_interval_bounds_the_wait_behind_a_slow_put() {
    // Every 10 ms against PUTs of 1 s: one object each time its oldest request is 100 ms old.
    let line = "--flush-ms 100 --put-p50 1000 --put-p99 1000 --commit-p50 0 --commit-p99 0";
    let report = report(&format!("{line} --rtt 0 --self-clocked --rate 100 --samples 9000"));
    assert!(report.ack.p999_ms <= 1100.0, "{}", report.ack.p999_ms);
    assert!(1050.0 <= report.ack.p90_ms, "{}", report.ack.p90_ms);
    // A request opens the object, ten more arrive up to its flush, the eleventh opens the next.
    close(report.puts_per_s.unwrap(), 1000.0 / 110.0, 0.02);
}

#[test]
fn a_full_object_leaves_at_once() {
    let line = "--flush-ms 100 --put-p50 1000 --put-p99 1000 --commit-p50 0 --commit-p99 0";
    let size = "--bytes 4096 --object-bytes 8192";
    let report = report(&format!("{line} --rtt 0 --self-clocked --rate 100 {size} --samples 9000"));
    // The first of a pair waits 10 ms, the second not at all.
    assert_eq!(report.ack.p50_ms, 1000.0);
    assert_eq!(report.ack.p999_ms, 1010.0);
    close(report.object_bytes_mean.unwrap(), 8192.0, 0.01);
}

#[test]
fn the_put_budget_holds_back_all_but_full_objects() {
    let line = "--flush-ms 10 --put-p50 20 --put-p99 20 --self-clocked --rate 1000";
    let free = report(&format!("{line} --samples 20000"));
    let budget = "--put-budget 5 --put-burst 1";
    let held = report(&format!("{line} {budget} --samples 20000"));
    let full = report(&format!("{line} {budget} --object-bytes 655360 --samples 20000"));
    assert!(50.0 < free.puts_per_s.unwrap());
    // 64 KiB per millisecond fill 8 MiB in 128 ms: 7.8 PUTs per second, a few of them on tokens.
    close(held.puts_per_s.unwrap(), 7.8, 0.1);
    close(full.puts_per_s.unwrap(), 100.0, 0.05);
}

#[test]
fn answers_of_one_connection_arrive_in_order() {
    let line = "--flush-ms 5 --put-p50 20 --put-p99 200 --self-clocked --rate 500 --samples 20000";
    let apart = report(line);
    let one = report(&format!("{line} --connections 1"));
    let many = report(&format!("{line} --connections 1000"));
    assert!(apart.ack.p50_ms * 1.2 < one.ack.p50_ms, "{one:?}");
    close(many.ack.p50_ms, apart.ack.p50_ms, 0.05);
}

#[test]
fn bytes_cost_time_when_a_connection_has_a_bandwidth() {
    let line = "--flush-ms 100 --put-p50 10 --put-p99 10 --commit-p50 0 --commit-p99 0 --rtt 0";
    let load = "--self-clocked --rate 1 --bytes 1048576 --put-mib-per-s 50 --samples 100";
    assert_eq!(report(&format!("{line} {load}")).ack.p50_ms, 30.0);
}

#[test]
fn nonsense_is_refused() {
    let fine = "--flush-ms 100 --put-p50 100 --put-p99 195 --samples 10";
    assert!(!refused(fine));
    for wrong in [
        "--flush-ms 100 --put-p50 195 --put-p99 100",
        "--flush-ms 100 --put-p50 0 --put-p99 100",
        "--flush-ms 100 --put-p50 NaN --put-p99 100",
        "--flush-ms 100 --put-p50 100 --put-p99 inf",
        "--flush-ms -1 --put-p50 100 --put-p99 195",
    ] {
        assert!(refused(wrong), "{wrong}");
    }
    for wrong in [
        "--quorum 0:3",
        "--quorum 3:2",
        "--quorum 1:17",
        "--quorum 2",
        "--tail 2:5",
        "--tail 0.1:0.5",
        "--tail x:y",
        "--samples 0",
        "--samples 10000001",
        "--rate 20",
        "--self-clocked",
        "--self-clocked --rate 0",
        "--self-clocked --rate NaN",
        "--self-clocked --rate 20 --bytes 0",
        "--self-clocked --rate 20 --put-mib-per-s -1",
        "--self-clocked --rate 20 --connections 1000001",
    ] {
        assert!(refused(&format!("{fine} {wrong}")), "{wrong}");
    }
}
