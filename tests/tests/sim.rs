//! A few seeds of the simulation with every change; `cargo sim --seeds 200` runs more, and
//! `cargo sim-test` also proves that a seed decides everything, and that planted mistakes are
//! caught.

use std::time::Duration;

use aquifer_tests::sim::{Report, RunConfig, run};

/// Seeds of the ordinary run: with one voter, and with three, which cost more.
const SEEDS: [(u64, &[u64]); 2] = [(1, &[2, 4]), (3, &[77])];

fn config(seed: u64, voters: u64) -> RunConfig {
    let faults_for = Duration::from_secs(if voters == 1 { 10 } else { 3 });
    RunConfig { seed, voters, faults_for, keep_trace: false, groups: true, plant: None }
}

fn replay(RunConfig { seed, voters, faults_for, .. }: &RunConfig) -> String {
    let seconds = faults_for.as_secs();
    format!("REPLAY: cargo sim --seed {seed} --seconds {seconds} --voters {voters} --trace t")
}

#[test]
fn no_seed_breaks_a_law() {
    for (voters, seeds) in SEEDS {
        for &seed in seeds {
            let config = config(seed, voters);
            let report = run(&config);
            assert!(0 < report.records, "seed {seed} did nothing");
            let broken = &report.violations;
            assert!(broken.is_empty(), "{}\n{broken:#?}", replay(&config));
        }
    }
}

fn told(seed: u64, voters: u64) -> Report {
    run(&RunConfig { keep_trace: true, ..config(seed, voters) })
}

fn same_twice(seed: u64, voters: u64) {
    let (first, second) = (told(seed, voters), told(seed, voters));
    let differs = first.trace.iter().zip(&second.trace).find(|(first, second)| first != second);
    assert_eq!(differs, None);
    assert_eq!((first.hash, first.events), (second.hash, second.events));
    assert_eq!(first.history, second.history);
}

#[test]
#[cfg_attr(not(tokio_unstable), ignore = "tokio's own choices are seeded in `cargo sim-test` only")]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    same_twice(77, 1);
}

#[test]
#[cfg_attr(not(tokio_unstable), ignore = "tokio's own choices are seeded in `cargo sim-test` only")]
fn the_same_seed_gives_the_same_trace_with_three_voters() {
    same_twice(77, 3);
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(told(78, 1).hash, told(79, 1).hash);
}
