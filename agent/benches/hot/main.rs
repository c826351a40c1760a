//! Runs one hot path a fixed number of times over fixed input, for callgrind: `hot NAME`. Without
//! a name it prints the names.
//!
//! Instructions do not jitter, so a few hundred rounds tell a change of a percent. Only what runs
//! inside [`measured`] is collected; `tests/benches/instructions` counts it and compares.
//!
//! # Non-obvious
//! - No runtime, no clock, no randomness, no hash map with a random seed: twice the same figure.
//! - Batches are small: checksums of bulk bytes depend on the CPU's instructions and would hide
//!   what this is about.

use std::{hint::black_box, process::ExitCode};

mod common;
mod metadata;
mod read;
mod write;

/// A path, and what prepares and runs it.
struct Path {
    name: &'static str,
    run: fn(),
}

const PATHS: &[Path] = &[
    Path { name: "produce_walk_1", run: || write::walk(1) },
    Path { name: "produce_walk_64", run: || write::walk(64) },
    Path { name: "produce_walk_400", run: || write::walk(400) },
    Path { name: "commit_part_1", run: || write::commit(1) },
    Path { name: "commit_part_64", run: || write::commit(64) },
    Path { name: "commit_part_400", run: || write::commit(400) },
    Path { name: "produce_answer_64", run: || write::answer(64) },
    Path { name: "entry_decode_1x1", run: || metadata::decode(1, 1) },
    Path { name: "entry_decode_64x8", run: || metadata::decode(64, 8) },
    Path { name: "apply_fresh_1", run: || metadata::apply_fresh(1) },
    Path { name: "apply_fresh_64", run: || metadata::apply_fresh(64) },
    Path { name: "apply_1", run: || metadata::apply(1, false) },
    Path { name: "apply_64", run: || metadata::apply(64, false) },
    Path { name: "apply_producers_1", run: || metadata::apply(1, true) },
    Path { name: "apply_producers_64", run: || metadata::apply(64, true) },
    Path { name: "snapshot_encode", run: metadata::encode_snapshot },
    Path { name: "fetch_walk_64", run: || read::walk(64) },
    Path { name: "fetch_cut_1", run: || read::cut(1) },
    Path { name: "fetch_cut_64", run: || read::cut(64) },
    Path { name: "fetch_cut_row", run: read::cut_row },
    Path { name: "fetch_answer_1", run: || read::answer(1) },
    Path { name: "fetch_answer_64", run: || read::answer(64) },
    Path { name: "crc_combine", run: write::combine },
    Path { name: "footer_encode_64", run: || write::encode_footer(64) },
    Path { name: "footer_decode_64", run: || write::decode_footer(64) },
];

/// Rounds of every path: its figure is the count divided by them.
const ROUNDS: usize = 64;
/// Rounds before, which are not collected: the first is not like the others.
const WARM_ROUNDS: usize = 16;

/// The name callgrind collects under.
#[inline(never)]
fn measured<I, O>(work: &mut dyn FnMut(I) -> O, input: I) -> O {
    black_box(work(black_box(input)))
}

/// Runs `work` once per input; what it returns is dropped outside of what is collected.
fn rounds<I, O>(mut input: impl FnMut(usize) -> I, mut work: impl FnMut(I) -> O) {
    for round in 0..WARM_ROUNDS {
        black_box(work(input(round)));
    }
    for round in WARM_ROUNDS..WARM_ROUNDS + ROUNDS {
        let input = input(round);
        drop(measured(&mut work, input));
    }
}

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        for path in PATHS {
            println!("{}\t{ROUNDS}", path.name);
        }
        return ExitCode::SUCCESS;
    };
    match PATHS.iter().find(|path| path.name == name) {
        Some(path) => {
            (path.run)();
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("hot: no path {name}");
            ExitCode::FAILURE
        }
    }
}
