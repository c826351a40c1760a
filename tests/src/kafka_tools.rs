//! Apache Kafka's command line tools, unmodified, each in a Java virtual machine of its own.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{client::java, matrix::tables, process::tool};

/// How long a tool is asked for what comes later.
const UNTIL_MAX: Duration = Duration::from_secs(60);

/// The tools over one broker address, and what came of each use.
pub struct Tools<'a> {
    bootstrap: SocketAddr,
    folder: &'a Path,
    outcomes: Vec<(String, String, Result<(), String>)>,
}

/// What a use of a tool must print.
pub enum Says<'a> {
    /// Exactly this on standard output.
    Exactly(&'a str),
    /// Each of these somewhere on standard output or standard error.
    All(&'a [&'a str]),
    /// Each of these as a whole line, of either output, with one blank where the tool has several.
    Lines(&'a [&'a str]),
    /// All of the first, none of the second.
    Only(&'a [&'a str], &'a [&'a str]),
}

impl<'a> Tools<'a> {
    /// Tools for the cluster at `bootstrap`; files for them go to `folder`.
    pub fn new(bootstrap: SocketAddr, folder: &'a Path) -> Self {
        Self { bootstrap, folder, outcomes: Vec::new() }
    }

    /// Writes a file for a tool and returns its path.
    pub fn file(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Runs a tool with these words after its main class and bootstrap address.
    pub fn run(&self, main: &str, words: &[&str], input: &str) -> anyhow::Result<Output> {
        let archive = archive()?;
        if !archive.exists() {
            // Under a name of its own until it is whole: tests run beside each other.
            let part = archive.with_extension(format!("{:?}", thread::current().id()));
            let dump = format!("-XX:ArchiveClassesAtExit={}", part.display());
            self.start(&dump, "TopicCommand", &["--list"])?.wait_with_output()?;
            std::fs::rename(&part, &archive).context("the archive of classes")?;
        }
        let shared = format!("-XX:SharedArchiveFile={}", archive.display());
        let mut child = self.start(&shared, main, words)?;
        let mut stdin = child.stdin.take().context("standard input")?;
        // A tool that reads none may have ended by now.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        Ok(child.wait_with_output()?)
    }

    fn start(&self, option: &str, main: &str, words: &[&str]) -> anyhow::Result<Child> {
        let libs = Path::new(&tool("TEST_KAFKA_LIBS")?).join("*");
        let package = match main {
            "ConfigCommand" => "kafka.admin.",
            "ConsoleConsumer" => "org.apache.kafka.tools.consumer.",
            "ConsumerGroupCommand" => "org.apache.kafka.tools.consumer.group.",
            "ReassignPartitionsCommand" => "org.apache.kafka.tools.reassign.",
            _ => "org.apache.kafka.tools.",
        };
        let mut command = java(&libs.to_string_lossy());
        // Nothing of the machine itself on standard output.
        command.args(["-Xlog:disable", option, &format!("{package}{main}")]);
        // These have a command, which is the first word.
        let first = usize::from(main == "ClusterTool");
        command.args(&words[..first]);
        command.args(["--bootstrap-server", &self.bootstrap.to_string()]).args(&words[first..]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().with_context(|| format!("start {main}"))
    }

    /// Notes whether a tool ends with success and says what it must.
    pub fn expect(&mut self, main: &str, words: &[&str], says: Says<'_>) {
        self.expect_with(main, words, "", says);
    }

    /// As [`Tools::expect`], with `input` on standard input.
    pub fn expect_with(&mut self, main: &str, words: &[&str], input: &str, says: Says<'_>) {
        self.note((main, words, input), 0, says);
    }

    /// Notes whether a tool ends with exit code 1 and says what it must.
    pub fn refuses(&mut self, main: &str, words: &[&str], says: &[&str]) {
        self.note((main, words, ""), 1, Says::All(says));
    }

    fn note(&mut self, (main, words, input): Use<'_>, code: i32, says: Says<'_>) {
        let outcome = self.run(main, words, input).and_then(|output| judge(&output, code, &says));
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        let name = |word: &&&str| word.starts_with("--") || !word.contains(['/', '-', '.', ':']);
        let use_of: Vec<&str> = words.iter().filter(name).copied().collect();
        self.outcomes.push((main.to_owned(), use_of.join(" "), outcome));
    }

    /// Runs a tool until it says `text`, with one blank where it has several; a minute at most.
    ///
    /// # Errors
    /// It never does.
    pub fn until(&self, main: &str, words: &[&str], text: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let output = self.run(main, words, "")?;
            let said = squeezed(&String::from_utf8_lossy(&output.stdout));
            if said.contains(text) {
                return Ok(());
            }
            ensure!(begun.elapsed() < UNTIL_MAX, "{main} {words:?} never says {text:?}: {said}");
        }
    }

    /// The cluster's address.
    pub const fn bootstrap(&self) -> SocketAddr {
        self.bootstrap
    }

    /// Writes what came of every use to the file of `area`, and fails with every failure.
    pub fn finish(self, area: &str) -> anyhow::Result<()> {
        let mut text = format!("## Kafka's tools: {area}\n\n| tool | use | |\n|---|---|---|\n");
        for (main, use_of, outcome) in &self.outcomes {
            let cell = if outcome.is_ok() { "ok" } else { "**FAILED**" };
            writeln!(text, "| {main} | {use_of} | {cell} |")?;
        }
        let file = tables()?.join(format!("tools-{area}.md"));
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        let failures: Vec<String> = self
            .outcomes
            .into_iter()
            .filter_map(|(main, use_of, outcome)| {
                Some(format!("{main} {use_of}: {}", outcome.err()?))
            })
            .collect();
        ensure!(failures.is_empty(), "{area}:\n{}", failures.join("\n"));
        Ok(())
    }
}

/// A tool, its arguments, and what stands on its standard input.
type Use<'a> = (&'a str, &'a [&'a str], &'a str);

/// Classes as the virtual machine keeps them: with it a tool starts in half the time.
fn archive() -> anyhow::Result<PathBuf> {
    Ok(Path::new(&tool("TEST_KAFKA_LIBS")?).with_file_name("tools.jsa"))
}

/// A text with one blank where it has several.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn judge(output: &Output, code: i32, says: &Says<'_>) -> anyhow::Result<()> {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    let both = format!("{out}{err}");
    let told: Vec<&str> = both.lines().filter(|line| !line.starts_with("\tat ")).collect();
    let told: String = told.join("\n").chars().take(1_500).collect();
    ensure!(output.status.code() == Some(code), "exit {:?}:\n{told}", output.status.code());
    match says {
        Says::Exactly(text) => ensure!(out == *text, "{text:?} expected:\n{told}"),
        Says::Lines(_) => {}
        Says::All(texts) | Says::Only(texts, _) => {
            for text in *texts {
                ensure!(both.contains(text), "no {text:?} in:\n{told}");
            }
        }
    }
    if let Says::Lines(lines) = says {
        let told_lines: Vec<String> = both.lines().map(squeezed).collect();
        for line in *lines {
            ensure!(told_lines.iter().any(|told| told == line), "no line {line:?} in:\n{told}");
        }
    }
    if let Says::Only(_, never) = says {
        for text in *never {
            ensure!(!both.contains(text), "{text:?} is in:\n{told}");
        }
    }
    Ok(())
}
