//! Aquifer answers as Apache Kafka 4.3.1 does, but for listed differences.
//!
//! `TEST_KAFKA=ask` plays the steps to Kafka as well and fails where it answers otherwise than
//! recorded; `TEST_KAFKA=record` records instead; both need its jars in `TEST_KAFKA_LIBS`. `TEST_AREA` plays one
//! area only.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::path::PathBuf;

use aquifer_tests::{
    differential::{
        judge::{Verdict, drift, judge, table},
        kafka,
        play::{Played, play},
        recorded,
        script::{self, Area},
    },
    process::Place,
};

fn is_set(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| !value.is_empty())
}

fn areas() -> anyhow::Result<Vec<Area>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(recorded::folder())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "steps"));
    files.sort();
    let wanted = std::env::var("TEST_AREA").ok().filter(|area| !area.is_empty());
    let mut areas = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if wanted.as_ref().is_none_or(|wanted| *wanted == name) {
            areas.push(script::parse(&name, &std::fs::read_to_string(&file)?)?);
        }
    }
    anyhow::ensure!(!areas.is_empty(), "no files of steps");
    Ok(areas)
}

/// Asks Kafka itself; records, or compares with what was recorded.
fn ask_kafka(area: &Area) -> anyhow::Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let (_kafka, address) = kafka::start(folder.path(), &area.settings)?;
    let Played { answers, unmet } = play(area, address)?;
    anyhow::ensure!(unmet.is_empty(), "{}: never came true: {unmet:#?}", area.name);
    if std::env::var("TEST_KAFKA").is_ok_and(|what| what == "record") {
        recorded::write(&area.name, &answers)?;
        return Ok(Vec::new());
    }
    let drift = drift(area, &recorded::read(&area.name)?, &answers);
    Ok(drift.into_iter().map(|line| format!("Kafka answers otherwise: {line}")).collect())
}

fn play_area(area: &Area) -> anyhow::Result<Verdict> {
    let drift = if is_set("TEST_KAFKA") { ask_kafka(area)? } else { Vec::new() };
    let folder = tempfile::tempdir()?;
    let mut place = Place::new(folder.path().join("data"))?;
    let settings = area.settings.iter();
    let options = settings.flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")]);
    place.arguments.extend(options);
    let _process = place.up()?;
    let mut verdict = judge(area, &recorded::read(&area.name)?, &play(area, place.kafka)?.answers);
    verdict.wrong.extend(drift);
    Ok(verdict)
}

#[test]
fn every_answer_is_kafkas_or_a_listed_difference() -> anyhow::Result<()> {
    let verdicts: Vec<Verdict> = areas()?.iter().map(play_area).collect::<Result<_, _>>()?;
    println!("{}", table(&verdicts));
    if let Ok(folder) = std::env::var("TEST_TABLES") {
        std::fs::create_dir_all(&folder)?;
        let text = format!("## Beside Apache Kafka 4.3.1\n\n{}\n", table(&verdicts));
        std::fs::write(PathBuf::from(folder).join("differential.md"), text)?;
    }
    let wrong = verdicts.iter().flat_map(|verdict| {
        verdict.wrong.iter().map(move |line| format!("{}: {line}", verdict.area))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{} differences are not listed:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
