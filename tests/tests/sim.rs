//! A few seeds of the simulation with every change; `cargo sim --seeds 200` runs more, and
//! `cargo sim-test` also proves that a seed decides everything.

use std::time::Duration;

use aquifer_tests::sim::{Report, RunConfig, run};

/// Seeds of the ordinary run.
const SEEDS: std::ops::Range<u64> = 1..5;

fn live(seed: u64, keep_trace: bool) -> Report {
    run(&RunConfig { seed, voters: 1, faults_for: Duration::from_secs(10), keep_trace })
}

#[test]
fn no_seed_breaks_a_law() {
    for seed in SEEDS {
        let report = live(seed, false);
        assert!(0 < report.records, "seed {seed} did nothing");
        assert!(
            report.violations.is_empty(),
            "REPLAY: cargo sim --seed {seed} --seconds 10 --trace t\n{:#?}",
            report.violations
        );
    }
}

#[test]
#[cfg_attr(not(tokio_unstable), ignore = "tokio's own choices are seeded in `cargo sim-test` only")]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    let (first, second) = (live(77, true), live(77, true));
    let differs = first.trace.iter().zip(&second.trace).find(|(first, second)| first != second);
    assert_eq!(differs, None);
    assert_eq!((first.hash, first.events), (second.hash, second.events));
    assert_eq!(first.history, second.history);
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(live(78, false).hash, live(79, false).hash);
}
