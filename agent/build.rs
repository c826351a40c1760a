//! Generates the Kafka messages from `src/wire/messages.txt`.
//!
//! A new Kafka version is an edited table; no generated code is kept in the tree.

#[path = "build/emit.rs"]
mod emit;
#[path = "build/parse.rs"]
mod parse;

use std::{env, error::Error, fs, path::Path};

const TABLE: &str = "src/wire/messages.txt";

fn main() -> Result<(), Box<dyn Error>> {
    for input in [TABLE, "build.rs", "build/parse.rs", "build/emit.rs"] {
        println!("cargo:rerun-if-changed={input}");
    }
    let messages = parse::table(&fs::read_to_string(TABLE)?)?;
    let out_dir = env::var("OUT_DIR")?;
    fs::write(Path::new(&out_dir).join("messages.rs"), emit::module(&messages)?)?;
    Ok(())
}
