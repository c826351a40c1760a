//! Steps as they stand in `tests/differential/AREA.steps`.
//!
//! ```text
//! # A comment.
//! differs * -- before the first step: of all steps of the area
//! with NAME=VALUE                            before the first step: both servers are started so
//!
//! = a name for people
//! Metadata 0-13 {topics: [{name: 'a'}]}      played once in each of these versions; JSON5
//! on second                                  over another connection
//! until topics.0.errorCode = 0               asked again until it is so, 5 s at most
//! keep id = topics.0.topicId                 `'$id'` from here on
//! unanswered                                 waits for an answer for half a second only
//! later                                      waits for none: a step `Answer` takes it
//! mask PATH -- why                           a value that no two runs share: only that it is there
//! differs PATH = OURS -- why                 a difference that stays; `= OURS` may be left out
//!
//! = a frame made by hand: what follows the length
//! Raw '0003 7fff 00000001 ffff'
//!
//! = the answer to what was asked `later` over this connection; once for each version, if any
//! Answer 4-9
//! on c${version}
//!
//! = a client program, which prints JSON
//! Run librdkafka offsets {topic: 'a'}
//! ```
//!
//! A text that is `$name` stands for what was kept, or for `$now`, `$node`, `$cluster`, `$version`;
//! `$now-1000` counts from it; `${name}` may stand inside a text, also one that begins with `$`,
//! and in the names of connections and of what is kept: `keep member${version} = memberId`.

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// One file of steps.
#[derive(Clone, Debug)]
pub struct Area {
    /// The file's name without its ending.
    pub name: String,
    /// In their order.
    pub steps: Vec<Step>,
    /// What both servers are started with.
    pub settings: Vec<(String, String)>,
    /// For all of its steps.
    pub rules: Vec<Rule>,
}

/// One request, in one or more versions.
#[derive(Clone, Debug)]
pub struct Step {
    /// Unique in its area.
    pub name: String,
    /// What is asked.
    pub action: Action,
    /// The connection it goes over.
    pub connection: String,
    /// Path and value.
    pub until: Option<(String, Value)>,
    /// Names and the paths of what they will stand for.
    pub keep: Vec<(String, String)>,
    /// Nothing is expected to come.
    pub unanswered: bool,
    /// The answer is taken by a later step.
    pub later: bool,
    /// What the comparison forgives.
    pub rules: Vec<Rule>,
    /// It has been said what is asked.
    is_complete: bool,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sends a request of an API in each version.
    Request {
        /// Kafka's name.
        api: String,
        /// Which versions.
        versions: std::ops::RangeInclusive<i16>,
        /// The body, with variables.
        body: Value,
    },
    /// Sends these bytes behind their length.
    Raw(Vec<u8>),
    /// Takes the answer to what was asked over the connection before, in each version.
    Answer(Option<std::ops::RangeInclusive<i16>>),
    /// Runs a client program.
    Run {
        /// Which one, and its command.
        command: Vec<String>,
        /// Its argument, with variables.
        argument: Value,
    },
}

/// What the comparison forgives, and why.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Of the values.
    pub path: String,
    /// How much of it.
    pub kind: RuleKind,
    /// For people.
    pub reason: String,
}

/// See [`Rule`].
#[derive(Clone, Debug, PartialEq)]
pub enum RuleKind {
    /// No two runs have the same value here.
    Mask,
    /// Aquifer answers otherwise; with this value, if one is named.
    Differs(Option<Value>),
}

/// Reads a file of steps.
///
/// # Errors
/// The first line that is none, by its number.
pub fn parse(area_name: &str, text: &str) -> anyhow::Result<Area> {
    let (name, steps, rules, settings) = (area_name.to_owned(), Vec::new(), Vec::new(), Vec::new());
    let mut area = Area { name, steps, rules, settings };
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let mut line = line.to_owned();
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        // JSON goes on until it is whole.
        while is_cut_off(&line)
            && let Some((_, more)) = lines.next_if(|(_, more)| !more.starts_with('='))
        {
            line = format!("{line}\n{more}");
        }
        let place = || format!("{}.steps line {}", area_name, number + 1);
        take(&mut area, &line).with_context(place)?;
    }
    for step in &area.steps {
        ensure!(step.is_complete, "{area_name}.steps: step {:?} asks nothing", step.name);
        let same = area.steps.iter().filter(|other| other.name == step.name).count();
        ensure!(same == 1, "{area_name}.steps: {same} steps are named {:?}", step.name);
    }
    Ok(area)
}

fn is_cut_off(line: &str) -> bool {
    let count = |brackets: [char; 2]| line.matches(brackets).count();
    count(['{', '[']) > count(['}', ']'])
}

fn take(area: &mut Area, line: &str) -> anyhow::Result<()> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    if word == "=" {
        area.steps.push(Step {
            name: rest.to_owned(),
            action: Action::Raw(Vec::new()),
            connection: "first".to_owned(),
            until: None,
            keep: Vec::new(),
            unanswered: false,
            later: false,
            rules: Vec::new(),
            is_complete: false,
        });
        return Ok(());
    }
    if matches!(word, "mask" | "differs") {
        let rule = rule(word, rest)?;
        area.steps.last_mut().map_or(&mut area.rules, |step| &mut step.rules).push(rule);
        return Ok(());
    }
    if word == "with" {
        ensure!(area.steps.is_empty(), "with stands before the first step");
        let (name, value) = rest.split_once('=').context("with NAME=VALUE")?;
        area.settings.push((name.trim().to_owned(), value.trim().to_owned()));
        return Ok(());
    }
    let step = area.steps.last_mut().context("a step begins with `= its name`")?;
    step.is_complete |= word.starts_with(char::is_uppercase);
    match word {
        "on" => step.connection = rest.to_owned(),
        "unanswered" => step.unanswered = true,
        "later" => step.later = true,
        "until" => {
            let (path, value) = rest.split_once('=').context("until PATH = VALUE")?;
            step.until = Some((path.trim().to_owned(), json5::from_str(value)?));
        }
        "keep" => {
            let (name, path) = rest.split_once('=').context("keep NAME = PATH")?;
            step.keep.push((name.trim().to_owned(), path.trim().to_owned()));
        }
        "Answer" => step.action = Action::Answer(versions(rest)?),
        "Raw" => step.action = Action::Raw(super::codec::unhex(rest.trim_matches('\''))?),
        "Run" => {
            let (command, argument) = rest.split_at(rest.find('{').context("Run A B {..}")?);
            let command = command.split_whitespace().map(str::to_owned).collect();
            step.action = Action::Run { command, argument: json5::from_str(argument)? };
        }
        api => {
            let (asked, body) = rest.split_once(' ').context("API VERSIONS {BODY}")?;
            let versions = versions(asked)?.context("API VERSIONS {BODY}")?;
            super::schema::api(api)?;
            step.action =
                Action::Request { api: api.to_owned(), versions, body: json5::from_str(body)? };
        }
    }
    Ok(())
}

/// `3` or `2-7`; nothing for nothing.
fn versions(text: &str) -> anyhow::Result<Option<std::ops::RangeInclusive<i16>>> {
    if text.is_empty() {
        return Ok(None);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Ok(Some(first.parse()?..=last.parse()?))
}

fn rule(word: &str, rest: &str) -> anyhow::Result<Rule> {
    let (what, reason) = rest.split_once(" -- ").context("PATH -- WHY")?;
    let (path, ours) = match what.split_once(" = ") {
        None => (what, None),
        Some((path, ours)) => (path, Some(json5::from_str(ours)?)),
    };
    let kind = match word {
        "differs" => RuleKind::Differs(ours),
        _ if ours.is_none() => RuleKind::Mask,
        _ => bail!("mask PATH -- WHY"),
    };
    Ok(Rule { path: path.trim().to_owned(), kind, reason: reason.trim().to_owned() })
}
