//! The README's tour, typed: its commands in order, in one shell, in a folder of their own, and
//! what they print beside what the README shows.
//!
//! A ```` ```sh ```` block is typed; a ```` ```text ```` block after it is all that it prints on
//! standard output, where `...` stands for anything within a line. Every command must end well.
//! `cargo` does nothing here, since `TEST_BIN` is what it built, and each port is moved to a free
//! one.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    os::unix::{fs::symlink, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aquifer_tests::process::{free_address, tool};

/// A tour of ten minutes takes a machine that does not read much less.
const TOUR_MAX: Duration = Duration::from_secs(300);
/// Stands between what two blocks print.
const MARK: &str = "--- next block of the tour ---";

/// A block of commands.
struct Step {
    /// Its line in the README.
    line: usize,
    commands: String,
    /// What it prints, where the README says.
    shown: Option<String>,
}

/// The blocks of a section of the README.
fn steps(readme: &str, section: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut is_inside, mut fence) = (false, None::<(usize, &str, String)>);
    for (index, text) in readme.lines().enumerate() {
        match &mut fence {
            None if text.starts_with("## ") => is_inside = text == section,
            None if is_inside && text.starts_with("```") => {
                fence = Some((index + 1, &text[3..], String::new()));
            }
            None => {}
            Some((line, kind, block)) if text == "```" => {
                let (line, block) = (*line, std::mem::take(block));
                match (*kind, steps.last_mut()) {
                    ("sh", _) => steps.push(Step { line, commands: block, shown: None }),
                    ("text", Some(step)) => step.shown = Some(block),
                    _ => panic!("README.md:{line}: neither commands nor what they print"),
                }
                fence = None;
            }
            Some((.., block)) => {
                block.push_str(text);
                block.push('\n');
            }
        }
    }
    steps
}

/// Gives every port of the tour a free one instead, always the same.
#[derive(Default)]
struct Ports(BTreeMap<u16, u16>);

impl Ports {
    const HOST: &str = "127.0.0.1:";

    fn of(&mut self, port: u16) -> anyhow::Result<u16> {
        if let Some(port) = self.0.get(&port) {
            return Ok(*port);
        }
        let free = free_address()?.port();
        self.0.insert(port, free);
        Ok(free)
    }

    fn moved(&mut self, text: &str) -> anyhow::Result<String> {
        let mut pieces = text.split(Self::HOST);
        let mut moved = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
            let port = self.of(piece[..digits].parse().context(piece.to_owned())?)?;
            write!(moved, "{}{port}{}", Self::HOST, &piece[digits..])?;
        }
        Ok(moved)
    }
}

/// Whether `printed` is what is `shown`, but for what `...` stands for.
fn is_as_shown(printed: &str, shown: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect()
    };
    let (printed, shown) = (lines(printed), lines(shown));
    printed.len() == shown.len()
        && printed.iter().zip(&shown).all(|(printed, shown)| line_is_as_shown(printed, shown))
}

fn line_is_as_shown(printed: &str, shown: &str) -> bool {
    let Some((head, rest)) = shown.split_once("...") else { return printed == shown };
    let Some(mut printed) = printed.strip_prefix(head) else { return false };
    let mut pieces: Vec<&str> = rest.split("...").collect();
    let tail = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = printed.find(piece) else { return false };
        printed = &printed[at + piece.len()..];
    }
    printed.ends_with(tail)
}

/// A script that types the blocks and marks where each one ends.
fn script(steps: &[Step], ports: &mut Ports) -> anyhow::Result<String> {
    let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n\
                      cargo() { :; }\n"
        .to_owned();
    for step in steps {
        writeln!(script, "{}echo '{MARK}'", ports.moved(&step.commands)?)?;
    }
    Ok(script)
}

/// Runs `script` in `folder` to its end and returns what it printed, and whether all went well.
fn typed(script: &str, folder: &Path, ports: &mut Ports) -> anyhow::Result<(String, bool)> {
    let written = folder.join("tour.sh");
    fs::write(&written, script)?;
    let (output, errors) = (folder.join("output"), folder.join("errors"));
    let mut command = Command::new("bash");
    command.arg(&written).current_dir(folder).stdin(Stdio::null());
    command.stdout(File::create(&output)?).stderr(File::create(&errors)?).process_group(0);
    // Defaults have ports too.
    let mut moved = |port: u16| anyhow::Ok(format!("127.0.0.1:{}", ports.of(port)?));
    command.env("AQUIFER_KAFKA", moved(9092)?).env("AQUIFER_HTTP", moved(9644)?);
    command.env("AQUIFER_BOOTSTRAP", moved(9092)?).env("TMPDIR", folder);
    command.env("S3_ADDRESS", moved(9000)?).env("S3_CONSOLE_ADDRESS", moved(9001)?);
    // Where tests/run put MinIO.
    command.env("TEST_TOOLS", tool("TEST_TOOLS")?).env_remove("AQUIFER_LOG");
    let mut shell = command.spawn().context("start bash")?;
    let deadline = Instant::now() + TOUR_MAX;
    let status = loop {
        if let Some(status) = shell.try_wait()? {
            break Some(status);
        }
        if deadline < Instant::now() {
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // What the shell started is of its group, and nothing of it outlives the tour.
    let group = format!("-{}", shell.id());
    let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status();
    let _ = shell.wait();
    let printed = fs::read_to_string(&output)?;
    let went_well = status.is_some_and(|status| status.success());
    if !went_well {
        println!("ended with {status:?}; standard error:\n{}", fs::read_to_string(&errors)?);
    }
    Ok((printed, went_well))
}

#[test]
fn the_tour_of_the_readme_prints_what_it_shows() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the root")?;
    let readme = fs::read_to_string(root.join("README.md"))?;
    let steps = steps(&readme, "## A tour");
    ensure!(9 <= steps.len(), "README.md has no tour any more");
    // A folder that looks like this repository after a build.
    let folder = tempfile::tempdir()?;
    fs::create_dir_all(folder.path().join("target/release"))?;
    symlink(tool("TEST_BIN")?, folder.path().join("target/release/aquifer"))?;
    symlink(root.join("localstack"), folder.path().join("localstack"))?;
    let mut ports = Ports::default();
    let script = script(&steps, &mut ports)?;
    let begun = Instant::now();
    let (printed, went_well) = typed(&script, folder.path(), &mut ports)?;
    let mark = format!("{MARK}\n");
    let mut blocks = printed.split(&mark);
    for step in &steps {
        let (line, commands) = (step.line, &step.commands);
        let block = blocks.next().unwrap_or_default();
        println!("README.md:{line}:\n{block}");
        if let Some(shown) = &step.shown {
            let shown = ports.moved(shown)?;
            ensure!(
                is_as_shown(block, &shown),
                "README.md:{line}:\n{commands}prints:\n{block}and should print:\n{shown}"
            );
        }
    }
    ensure!(went_well, "a command of the tour failed, see above");
    let left = fs::read_dir(folder.path())?.count();
    ensure!(left == 5, "the tour cleans up behind itself: {left} entries are left");
    println!("the tour took {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

#[test]
fn dots_stand_for_anything_within_a_line_and_nothing_else_does() {
    for (printed, shown, is_same) in [
        ("a\nb\n", "a\nb\n", true),
        ("a  \nb", "a\nb\n", true),
        ("a 17 c", "a ... c", true),
        ("a 17 c 18", "a ... c ...", true),
        ("a 17 b", "a ... c", false),
        ("b 17 c", "a ... c", false),
        ("a", "a\nb", false),
        ("a\nb", "a", false),
        ("a\nx\nb", "a\n...b", false),
        ("", "a", false),
    ] {
        assert_eq!(is_as_shown(printed, shown), is_same, "{printed:?} beside {shown:?}");
    }
}
