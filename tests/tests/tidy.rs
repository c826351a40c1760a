//! The map, enforced: which module may know what, and the sizes that keep a file readable.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines of code (tests, blank lines and comments apart) a file may have.
const FILE_LINES_MAX: usize = 600;
/// Columns a line may have.
const COLUMNS_MAX: usize = 100;

/// Paths under which every module is pure: no I/O, no clock, no randomness, no tasks.
const PURE: &[&str] = &[
    "storage/src/model",
    "storage/src/format",
    "storage/src/probe/bucket",
    "storage/src/probe/judge.rs",
    "metadata/src/machine",
    "metadata/src/codec",
    "metadata/src/backup/choice.rs",
    "metadata/src/backup/file.rs",
    "metadata/src/backup/kept.rs",
    "metadata/src/backup/key.rs",
    "metadata/src/backup/marker.rs",
    "metadata/src/backup/plan.rs",
    "agent/src/topic_config.rs",
    "agent/src/api/features.rs",
    "agent/src/configs",
    "agent/src/doctor/judge.rs",
    "agent/src/produce/plan.rs",
    "agent/src/produce/chain.rs",
    "agent/src/produce/buffer.rs",
    "agent/src/produce/commit_stream.rs",
    "agent/src/fetch/line.rs",
    "agent/src/fetch/plan.rs",
    "agent/src/fetch/round.rs",
    "agent/src/fetch/session.rs",
    "agent/src/fetch/stage.rs",
    "agent/src/fetch/read_ahead.rs",
    "agent/src/fetch/older_rows.rs",
    "agent/src/fetch/place.rs",
    "tests/src/history",
];

/// Words a pure module never says.
const IMPURE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "Instant",
    "SystemTime",
    "rand::",
    "getrandom",
    "async fn",
    ".await",
    "HashMap",
    "HashSet",
];

/// A word, and the only places that may say it.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("object_store::", &["storage/src/store/"]),
    ("openraft::", &["metadata/src/raft", "metadata/tests/raft"]),
    ("getrandom::", &["storage/src/seam.rs"]),
    (
        "std::env::",
        &[
            "agent/src/main.rs",
            "agent/src/roles/",
            "agent/build",
            "agent/tests/",
            "agent/benches/",
            "storage/tests/",
            "metadata/tests/",
            "tests/",
        ],
    ),
    (
        "aquifer_metadata::node",
        &["agent/src/roles/", "agent/src/bench/metadata", "agent/tests/", "metadata/", "tests/"],
    ),
    ("aquifer_metadata::raft", &["agent/src/roles/", "metadata/"]),
    (
        "aquifer_agent",
        &["agent/src/main", "agent/src/roles/", "agent/tests/", "agent/benches/", "tests/"],
    ),
];

/// A package, and the packages it may not know.
const NEVER: &[(&str, &[&str])] =
    &[("storage/", &["aquifer_metadata", "aquifer_agent"]), ("metadata/", &["aquifer_agent"])];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root").to_owned()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("folder is readable").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file, as (path from the root, text).
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut paths = Vec::new();
    for package in ["storage", "metadata", "agent", "tests"] {
        rust_files(&root.join(package), &mut paths);
    }
    paths.sort();
    let name = |path: &Path| {
        path.strip_prefix(&root).expect("under the root").to_string_lossy().into_owned()
    };
    paths.iter().map(|path| (name(path), fs::read_to_string(path).expect("utf-8"))).collect()
}

/// The code of a file: without comments and without its test module.
fn code(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        let trimmed = line.trim_start();
        if !trimmed.is_empty() && !trimmed.starts_with("//") {
            lines.push(line);
        }
    }
    lines
}

/// Whether `line` holds `word` and not only a longer one that begins with it.
fn says(line: &str, word: &str) -> bool {
    let longer = |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let ends_open = word.ends_with(|c: char| c.is_alphanumeric());
    line.match_indices(word).any(|(at, _)| !(ends_open && longer(&line[at + word.len()..])))
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.contains("/benches/")
}

fn report(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn pure_modules_do_no_io_and_read_no_clock() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let pure = PURE.iter().any(|pure| path.starts_with(pure));
        if !pure || is_test(&path) {
            continue;
        }
        for word in IMPURE {
            for line in code(&text) {
                if says(line, word) {
                    broken.push(format!("{path}: says {word:?}: {}", line.trim()));
                }
            }
        }
    }
    report(broken);
}

#[test]
fn only_its_own_module_knows_each_secret() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let lines = code(&text);
        for (word, places) in ONLY_IN {
            let allowed = places.iter().any(|place| path.starts_with(place));
            let allowed = allowed || path == "tests/tests/tidy.rs";
            if !allowed && lines.iter().any(|line| line.contains(word)) {
                broken.push(format!("{path}: only {places:?} may say {word:?}"));
            }
        }
        for (package, others) in NEVER {
            let knows = |other: &&&str| lines.iter().any(|line| line.contains(**other));
            if path.starts_with(package)
                && let Some(other) = others.iter().find(knows)
            {
                broken.push(format!("{path}: {package} must not know {other}"));
            }
        }
    }
    report(broken);
}

#[test]
fn a_file_is_read_in_one_sitting() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let lines = code(&text).len();
        if FILE_LINES_MAX < lines && !is_test(&path) {
            broken.push(format!("{path}: {lines} lines of code, at most {FILE_LINES_MAX}"));
        }
        if !text.starts_with("//!") {
            broken.push(format!("{path}: does not begin with a module doc (//!)"));
        }
        for (number, line) in text.lines().enumerate() {
            if COLUMNS_MAX < line.chars().count() && !is_test(&path) {
                broken.push(format!("{path}:{}: more than {COLUMNS_MAX} columns", number + 1));
            }
        }
    }
    report(broken);
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    let marks = [concat!("to", "do!("), concat!("unimpl", "emented!("), concat!("#[ig", "nore")];
    let mut broken = Vec::new();
    for (path, text) in sources() {
        for mark in marks {
            if text.contains(mark) {
                broken.push(format!("{path}: contains {mark}"));
            }
        }
    }
    report(broken);
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The planted bugs, as (name, text of the patch).
fn planted() -> Vec<(String, String)> {
    let folder = fs::read_dir(root().join("tests/planted")).expect("tests/planted is readable");
    let paths = folder.map(|entry| entry.expect("entry").path());
    let patches = paths.filter(|path| path.extension().is_some_and(|end| end == "patch"));
    let read = |path: PathBuf| {
        let name = path.file_stem().expect("a patch has a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("utf-8"))
    };
    patches.map(read).collect()
}

#[test]
fn every_test_that_holds_an_invariant_exists_and_every_planted_bug_has_its_row() {
    let table = fs::read_to_string(root().join("tests/INVARIANTS.md")).expect("utf-8");
    let sources = sources();
    let bugs = planted();
    let mut broken = Vec::new();
    for (file, test) in quoted(&table).filter_map(|word| word.split_once(".rs::")) {
        let file = format!("{file}.rs");
        let function = format!("fn {test}(");
        if !sources.iter().any(|(path, text)| *path == file && text.contains(&function)) {
            broken.push(format!("INVARIANTS.md: {file} has no test {test}"));
        }
    }
    for row in table.lines() {
        let bugs_of = row.split(" | ").nth(3).unwrap_or_default();
        for bug in quoted(bugs_of).filter(|bug| !bugs.iter().any(|(name, _)| name == bug)) {
            broken.push(format!("INVARIANTS.md: there is no tests/planted/{bug}.patch"));
        }
    }
    for (name, patch) in &bugs {
        let head = |key: &str| patch.lines().find_map(|line| line.strip_prefix(key));
        let test = head("# caught by: ").and_then(|command| command.rsplit([' ', ':']).next());
        if test.is_none_or(|test| !table.contains(&format!(".rs::{test}`"))) {
            broken.push(format!("INVARIANTS.md: does not name {test:?}, which catches {name}"));
        }
        for invariant in head("# holds: ").unwrap_or("none").split(", ") {
            let (row, bug) = (format!("| {invariant} | "), format!("`{name}`"));
            if !table.lines().any(|line| line.starts_with(&row) && line.contains(&bug)) {
                broken.push(format!("INVARIANTS.md: the row of {invariant} does not name {name}"));
            }
        }
    }
    report(broken);
}

/// The lines that each change of a patch finds in its file, as (file, lines).
fn places(patch: &str) -> Vec<(&str, Vec<&str>)> {
    let (mut file, mut found) = ("", Vec::<(&str, Vec<&str>)>::new());
    for line in patch.lines() {
        if let Some(path) = line.strip_prefix("+++ b/") {
            file = path;
        } else if line.starts_with("@@ ") {
            found.push((file, Vec::new()));
        } else if let (false, Some((_, old))) = (line.starts_with("---"), found.last_mut()) {
            // An editor may have taken the blank that stands for an unchanged empty line.
            let is_old = line.is_empty() || line.starts_with([' ', '-']);
            old.extend(is_old.then(|| line.get(1..).unwrap_or_default()));
        }
    }
    found
}

#[test]
fn every_planted_bug_still_has_its_place_in_the_code() {
    let mut broken = Vec::new();
    for (name, patch) in planted() {
        let places = places(&patch);
        assert!(!places.is_empty(), "{name} changes nothing");
        for (file, old) in places {
            let text = fs::read_to_string(root().join(file)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            if !lines.windows(old.len()).any(|lines| lines == old) {
                broken
                    .push(format!("tests/planted/{name}.patch does not apply to {file} any more"));
            }
        }
    }
    report(broken);
}

#[test]
fn modules_are_files_next_to_their_folder() {
    let broken = sources().into_iter().map(|(path, _)| path).filter(|p| p.ends_with("/mod.rs"));
    report(broken.collect());
}

#[test]
fn the_root_holds_only_the_front_door() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "Dockerfile",
        "LICENSE",
        "README.md",
        "agent",
        "metadata",
        "storage",
        "tests",
        "localstack",
    ];
    let extra = fs::read_dir(root()).expect("root is readable").filter_map(|entry| {
        let name = entry.expect("entry").file_name().to_string_lossy().into_owned();
        let generated = name.starts_with('.') || name.starts_with("target");
        let data = name == "aquifer-data";
        (!generated && !data && !allowed.contains(&name.as_str())).then_some(name)
    });
    report(extra.collect());
}
