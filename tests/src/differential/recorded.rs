//! What Kafka answered, in `tests/differential/recorded/AREA.jsonl`: a line for each step and
//! version, in the steps' order.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One answer in its normal form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// The step's name, with the version behind `@`.
    pub step: String,
    /// The answer.
    pub answer: Value,
}

/// Answers by step.
pub type Answers = BTreeMap<String, Value>;

fn file(area: &str) -> PathBuf {
    folder().join("recorded").join(format!("{area}.jsonl"))
}

/// Where the files of steps lie.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("differential")
}

/// The recorded answers of an area.
///
/// # Errors
/// There are none, or they cannot be read.
pub fn read(area: &str) -> anyhow::Result<Answers> {
    let text = std::fs::read_to_string(file(area)).with_context(|| {
        format!("no answers of Kafka are recorded for {area}: `tests/differential/record {area}`")
    })?;
    let lines = text.lines().map(serde_json::from_str::<Answered>);
    lines.map(|line| line.map(|line| (line.step, line.answer)).context("a line")).collect()
}

/// Records the answers of an area.
pub fn write(area: &str, answers: &[Answered]) -> anyhow::Result<()> {
    let mut text = String::new();
    for answer in answers {
        text += &serde_json::to_string(answer)?;
        text.push('\n');
    }
    Ok(std::fs::write(file(area), text)?)
}
