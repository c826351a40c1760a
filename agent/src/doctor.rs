//! `aquifer doctor`: what is looked at before a process is started, or when one does not work.
//!
//! The binary looks (`roles/doctor`), [`judge`] says what it means, this module prints it.

use std::path::PathBuf;

use aquifer_storage::probe::{Finding, Verdict};
use clap::Args;
use serde::Serialize;

use crate::{
    cli::output::{Format, FormatArgs, Output, OutputError, Terminal},
    config::Flags,
    tls::TlsFlags,
};

pub mod judge;

const HELP: &str = "Examples:
  aquifer doctor
  aquifer doctor --store s3://bucket/prefix
  aquifer doctor --store s3://bucket/prefix --metadata node-1:9340,node-2:9340 -o json
  aquifer doctor --config aquifer.toml

Writes, reads and deletes about 20 small objects under <store>/probe/, which costs $0.0001 on S3.
Exit codes: 0 nothing failed (there may be warnings), 1 something failed, 2 the command makes no
sense.";

/// The settings of the process that is to be looked at: the same flags, variables and file.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct DoctorArgs {
    /// TOML file with settings under the flags' names.
    #[arg(long, value_name = "FILE", env = "AQUIFER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Object store: file:PATH, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or
    /// memory: [file:<data>/bucket].
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Make the bucket of --store if it is not there, and add lifecycle rules for what is left of
    /// uploads and of deleted versions.
    #[arg(long)]
    pub create_bucket: bool,
    /// Folder of the metadata log [./aquifer-data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Kafka listener [127.0.0.1:9092].
    #[arg(long, value_name = "ADDR")]
    pub kafka: Option<String>,
    /// Health and metrics listener [127.0.0.1:9644].
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Where a metadata node will listen, if one is to.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Address that clients are told [the Kafka listener].
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Metadata nodes that an agent connects to: each one is asked.
    #[arg(long, value_name = "ADDR,...")]
    pub metadata: Option<String>,
    /// What this process proves itself with to metadata nodes.
    #[command(flatten)]
    pub tls: TlsFlags,
    /// Table or JSON.
    #[command(flatten)]
    pub format: FormatArgs,
}

impl DoctorArgs {
    /// The same, as the flags of a role.
    pub fn flags(&self) -> Flags {
        let Self {
            config,
            store,
            create_bucket,
            data,
            kafka,
            http,
            listen,
            advertise,
            metadata,
            tls,
            ..
        } = self.clone();
        Flags {
            config,
            store,
            create_bucket,
            data,
            kafka,
            http,
            listen,
            advertise,
            metadata,
            tls,
            ..Flags::default()
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    store: &'a str,
    failed: usize,
    warnings: usize,
    findings: &'a [Finding],
}

/// Prints what was found; how many things failed.
///
/// # Errors
/// Nobody reads it, or it cannot be written.
pub fn print(
    store: &str,
    findings: &[Finding],
    format: Format,
    terminal: Terminal,
) -> Result<usize, OutputError> {
    let count = |verdict| findings.iter().filter(|one| one.verdict == verdict).count();
    let (failed, warnings) = (count(Verdict::Failed), count(Verdict::Warning));
    let mut output = Output::new(terminal);
    match format {
        Format::Json => output.document(&Document { store, failed, warnings, findings })?,
        Format::Table => {
            output.title(&plain(store))?;
            output.text(&lines(findings))?;
        }
    }
    Ok(failed)
}

/// Lines and not a table: what to do about a finding must not be cut.
fn lines(findings: &[Finding]) -> String {
    let width = findings.iter().map(|one| one.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Unknown => "unknown",
            Verdict::Warning => "WARNING",
            Verdict::Failed => "FAILED",
        };
        let (check, what) = (finding.check, plain(&finding.what));
        text += &format!("{verdict:<7}  {check:<width$}  {what}\n");
        if !finding.advice.is_empty() {
            text += &format!("{:<7}  {:<width$}  -> {}\n", "", "", plain(&finding.advice));
        }
    }
    text
}

/// What a server said must not command the terminal.
fn plain(text: &str) -> String {
    match text.contains(char::is_control) {
        true => text.escape_debug().to_string(),
        false => text.to_owned(),
    }
}
