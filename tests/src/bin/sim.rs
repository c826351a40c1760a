//! `cargo sim`: runs seeds of the simulation; ends with 1 when one breaks a law.

#![allow(clippy::disallowed_methods, reason = "how long it took is told in real time")]

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use aquifer_storage::planted::Bug;
use aquifer_tests::sim::{Report, RunConfig, run};

const USAGE: &str =
    "cargo sim [--seed S] [--seeds N] [--seconds T] [--voters V] [--threads T] [--twice]
          [--trace FILE] [--go-on] [--no-groups] [--plant BUG]
  --seed S      the first seed (default 1)
  --seeds N     how many (default 1)
  --seconds T   how long things go wrong in each, simulated (default 30)
  --voters V    nodes of the metadata group (default 1)
  --threads T   seeds that run side by side (default 1); told in order all the same
  --twice       run each seed twice and compare the traces
  --trace FILE  write the trace of the last seed there
  --go-on       do not stop at the first seed that breaks a law
  --no-groups   worlds without groups, as they were before there were members
  --plant BUG   make a mistake on purpose, which a law should catch; `list` tells them all";

struct Arguments {
    seed: u64,
    seeds: u64,
    seconds: u64,
    voters: u64,
    threads: u64,
    twice: bool,
    trace: Option<String>,
    go_on: bool,
    groups: bool,
    plant: Option<Bug>,
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut parsed = Arguments {
        seed: 1,
        seeds: 1,
        seconds: 30,
        voters: 1,
        threads: 1,
        twice: false,
        trace: None,
        go_on: false,
        groups: true,
        plant: None,
    };
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let mut value = || given.next().with_context(|| format!("{flag} needs a value\n{USAGE}"));
        match flag.as_str() {
            "--seed" => parsed.seed = value()?.parse()?,
            "--seeds" => parsed.seeds = value()?.parse()?,
            "--seconds" => parsed.seconds = value()?.parse()?,
            "--voters" => parsed.voters = value()?.parse()?,
            "--threads" => parsed.threads = value()?.parse::<u64>()?.clamp(1, 64),
            "--trace" => parsed.trace = Some(value()?),
            "--plant" => parsed.plant = Some(bug(&value()?)?),
            "--twice" => parsed.twice = true,
            "--go-on" => parsed.go_on = true,
            "--no-groups" => parsed.groups = false,
            _ => bail!("{flag}?\n{USAGE}"),
        }
    }
    Ok(parsed)
}

fn bug(name: &str) -> anyhow::Result<Bug> {
    let list = || {
        let lines = Bug::ALL.iter().map(|bug| format!("  {:<26}{}", bug.name(), bug.what()));
        lines.collect::<Vec<_>>().join("\n")
    };
    let bug = Bug::ALL.iter().find(|bug| bug.name() == name);
    let bug = bug.with_context(|| format!("mistakes that can be planted:\n{}", list()))?;
    ensure!(cfg!(planted), "this build has no planted mistakes: use the alias `cargo sim`");
    Ok(*bug)
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = arguments()?;
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .without_time()
            .init();
    }
    let began = std::time::Instant::now();
    let (mut simulated, mut failed) = (Duration::ZERO, Vec::new());
    let (tell, told) = mpsc::channel();
    let turns = Turns {
        next: AtomicU64::new(arguments.seed),
        end: arguments.seed.saturating_add(arguments.seeds),
        stop: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        for _ in 0..arguments.threads {
            let (tell, turns, arguments) = (tell.clone(), &turns, &arguments);
            scope.spawn(move || {
                while let Some(seed) = turns.next(arguments.go_on) {
                    let done = try_seed(arguments, seed);
                    turns.stop.fetch_or(done.is_bad, Ordering::Relaxed);
                    let _ = tell.send((seed, done)); // Whoever listens ended with an error.
                }
            });
        }
        drop(tell);
        let (mut early, mut next) = (BTreeMap::new(), arguments.seed);
        for (seed, done) in told {
            early.insert(seed, done);
            while let Some(done) = early.remove(&next) {
                print!("{}", done.told);
                simulated += done.simulated;
                failed.extend(done.is_bad.then_some(next));
                next += 1;
            }
        }
    });
    let real = began.elapsed();
    println!(
        "{:.1} simulated hours per real minute ({simulated:.1?} in {real:.1?}); failed: {failed:?}",
        simulated.as_secs_f64() / 3600.0 / (real.as_secs_f64() / 60.0)
    );
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Which seed is run next.
struct Turns {
    next: AtomicU64,
    end: u64,
    /// A seed broke a law.
    stop: AtomicBool,
}

impl Turns {
    fn next(&self, go_on: bool) -> Option<u64> {
        let stopped = !go_on && self.stop.load(Ordering::Relaxed);
        let seed = if stopped { self.end } else { self.next.fetch_add(1, Ordering::Relaxed) };
        (seed < self.end).then_some(seed)
    }
}

/// What came of a seed.
struct Done {
    told: String,
    simulated: Duration,
    is_bad: bool,
}

fn try_seed(arguments: &Arguments, seed: u64) -> Done {
    let began = std::time::Instant::now();
    let Arguments { seconds, voters, twice, groups, plant, .. } = *arguments;
    let config = RunConfig {
        seed,
        voters,
        faults_for: Duration::from_secs(seconds),
        keep_trace: arguments.trace.is_some() || twice,
        groups,
        plant,
    };
    let report = run(&config);
    let mut simulated = report.simulated;
    let mut told = tell(&report, began.elapsed());
    let mut is_bad = !report.violations.is_empty();
    if twice {
        let again = run(&config);
        simulated += again.simulated;
        if again.hash != report.hash {
            told += &differs(&report, &again);
            is_bad = true;
        }
    }
    if let Some(path) = &arguments.trace
        && let Err(error) = std::fs::write(path, report.trace.join("\n"))
    {
        told += &format!("  the trace is not in {path}: {error}\n");
        is_bad = true;
    }
    if is_bad {
        let planted = plant.map(|bug| format!(" --plant {}", bug.name())).unwrap_or_default();
        let twice = if twice { " --twice" } else { "" };
        let groups = if groups { "" } else { " --no-groups" };
        told += &format!(
            "REPLAY: cargo sim --seed {seed} --seconds {seconds} --voters {voters}{groups}{planted}\
             {twice} --trace t\n"
        );
    }
    Done { told, simulated, is_bad }
}

fn tell(report: &Report, real: Duration) -> String {
    let mut told = format!(
        "seed {}: trace {:016x} of {} events, {} operations, {} records, {:.0} s in {real:.1?}\n",
        report.seed,
        report.hash,
        report.events,
        report.operations,
        report.records,
        report.simulated.as_secs_f64()
    );
    if 0 < report.planted {
        told += &format!("  the place of the mistake was reached {} times\n", report.planted);
    }
    for violation in &report.violations {
        told += &format!("  VIOLATION {violation}\n");
    }
    told
}

fn differs(first: &Report, second: &Report) -> String {
    let counts = (first.events, second.events);
    let mut told = format!("  THE SAME SEED GAVE TWO TRACES, of {counts:?} events\n");
    let pairs = first.trace.iter().zip(&second.trace);
    if let Some((place, (first, second))) =
        pairs.enumerate().find(|(_, (first, second))| first != second)
    {
        told += &format!("  at event {place}:\n    {first}\n    {second}\n");
    }
    told
}
