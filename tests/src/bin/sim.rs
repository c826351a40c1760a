//! `cargo sim`: runs seeds of the simulation; ends with 1 when one breaks a law.

#![allow(clippy::disallowed_methods, reason = "how long it took is told in real time")]

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, bail, ensure};
use aquifer_storage::planted::Bug;
use aquifer_tests::sim::{Report, RunConfig, run};

const USAGE: &str =
    "cargo sim [--seed S] [--seeds N] [--seconds T] [--voters V] [--twice] [--trace FILE] [--go-on]
          [--plant BUG]
  --seed S      the first seed (default 1)
  --seeds N     how many (default 1)
  --seconds T   how long things go wrong in each, simulated (default 30)
  --voters V    nodes of the metadata group (default 1)
  --twice       run each seed twice and compare the traces
  --trace FILE  write the trace of the last seed there
  --go-on       do not stop at the first seed that breaks a law
  --plant BUG   make a mistake on purpose, which a law should catch; `list` tells them all";

struct Arguments {
    seed: u64,
    seeds: u64,
    seconds: u64,
    voters: u64,
    twice: bool,
    trace: Option<String>,
    go_on: bool,
    plant: Option<Bug>,
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut parsed = Arguments {
        seed: 1,
        seeds: 1,
        seconds: 30,
        voters: 1,
        twice: false,
        trace: None,
        go_on: false,
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
            "--trace" => parsed.trace = Some(value()?),
            "--plant" => parsed.plant = Some(bug(&value()?)?),
            "--twice" => parsed.twice = true,
            "--go-on" => parsed.go_on = true,
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
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        let config = RunConfig {
            seed,
            voters: arguments.voters,
            faults_for: Duration::from_secs(arguments.seconds),
            keep_trace: arguments.trace.is_some() || arguments.twice,
            plant: arguments.plant,
        };
        let report = run(&config);
        simulated += report.simulated;
        tell(&report);
        if arguments.twice {
            let again = run(&config);
            simulated += again.simulated;
            if again.hash != report.hash {
                differs(&report, &again);
                failed.push(seed);
            }
        }
        if let Some(path) = &arguments.trace {
            std::fs::write(path, report.trace.join("\n")).with_context(|| path.clone())?;
        }
        if !report.violations.is_empty() {
            let Arguments { seconds, voters, .. } = arguments;
            let planted = arguments.plant.map(|bug| format!(" --plant {}", bug.name()));
            println!(
                "REPLAY: cargo sim --seed {seed} --seconds {seconds} --voters {voters}{} --trace t",
                planted.unwrap_or_default()
            );
            failed.push(seed);
        }
        if !failed.is_empty() && !arguments.go_on {
            break;
        }
    }
    let real = began.elapsed();
    println!(
        "{:.1} simulated hours per real minute ({simulated:.1?} in {real:.1?}); failed: {failed:?}",
        simulated.as_secs_f64() / 3600.0 / (real.as_secs_f64() / 60.0)
    );
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(report: &Report) {
    println!(
        "seed {}: trace {:016x} of {} events, {} operations, {} records, {:.0} s",
        report.seed,
        report.hash,
        report.events,
        report.operations,
        report.records,
        report.simulated.as_secs_f64()
    );
    if 0 < report.planted {
        println!("  the place of the mistake was reached {} times", report.planted);
    }
    for violation in &report.violations {
        println!("  VIOLATION {violation}");
    }
}

fn differs(first: &Report, second: &Report) {
    println!("  THE SAME SEED GAVE TWO TRACES, of {} and {} events", first.events, second.events);
    let pairs = first.trace.iter().zip(&second.trace);
    if let Some((place, (first, second))) =
        pairs.enumerate().find(|(_, (first, second))| first != second)
    {
        println!("  at event {place}:\n    {first}\n    {second}");
    }
}
