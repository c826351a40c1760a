//! Commands that speak Kafka to any broker, and their exit codes.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use aquifer_agent::{
    cli::{
        self, Command, Usage, World,
        output::{OutputError, Terminal},
    },
    config::Cli,
};
use aquifer_storage::seam::system;
use clap::CommandFactory as _;

/// Made no sense, as clap has it for what it refuses itself.
const USAGE: u8 = 2;

/// Runs a command to its end and says what went wrong.
pub fn run(command: Command) -> ExitCode {
    // One thread more than this one: it sees a second Ctrl-C when this one waits for a pipe.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("aquifer: cannot start its threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        let shutdown = super::signals::shutdown()?;
        let world = World { seams: system::seams(), terminal: terminal(), shutdown };
        cli::run(command, world).await
    });
    // Nothing that still blocks, as a read of the terminal does, is waited for.
    runtime.shutdown_background();
    ended.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

/// Says why a command or a process failed, as its exit code does.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    if let Some(OutputError::Closed) = error.downcast_ref::<OutputError>() {
        return ExitCode::SUCCESS; // As `| head` ends a command.
    }
    let is_terminal = std::io::stderr().is_terminal() && has_colors();
    let name = if is_terminal { "\x1b[1;31maquifer:\x1b[0m" } else { "aquifer:" };
    eprintln!("{name} {error:#}");
    match error.is::<Usage>() {
        true => ExitCode::from(USAGE),
        false => ExitCode::FAILURE,
    }
}

/// Prints the completion script of a shell.
pub fn completion(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "aquifer", &mut script);
    match std::io::stdout().write_all(&script) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("aquifer: cannot write the script: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// What standard output and error are.
pub fn terminal() -> Terminal {
    let stdout = std::io::stdout();
    let columns = stdout.is_terminal().then(|| {
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        size.map(|size| usize::from(size.ws_col)).filter(|columns| 0 < *columns).unwrap_or(80)
    });
    Terminal {
        columns,
        has_colors: columns.is_some() && has_colors(),
        shows_progress: std::io::stderr().is_terminal(),
    }
}

/// See no-color.org: any value but the empty one turns colours off.
fn has_colors() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    !is_set("NO_COLOR") && !is_dumb
}
