//! The `aquifer` binary: reads the environment and builds the object graph of a role.

mod roles;

use std::process::ExitCode;

use aquifer_agent::config::{Cli, Role};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Commands of a client start without what a server needs.
    let role = match cli.role.unwrap_or(Role::Up(cli.flags)) {
        Role::Client(command) => return roles::client::run(command),
        Role::Health(flags) => return roles::health::run(&flags),
        Role::Completion { shell } => return roles::client::completion(shell),
        role => role,
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("AQUIFER_LOG")
        // Raft's own warnings repeat with each heartbeat a node that is down does not answer.
        .unwrap_or_else(|_| {
            tracing_subscriber::EnvFilter::new(
                "warn,aquifer=info,aquifer_metadata=info,openraft=error",
            )
        });
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was already installed");
    }
    raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("aquifer: cannot start its threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        match role {
            // They ran above.
            Role::Client(_) | Role::Completion { .. } | Role::Health(_) => Ok(()),
            Role::Up(flags) => roles::up::run(&flags).await,
            Role::Metadata(flags) => roles::metadata::run(&flags).await,
            Role::Agent(flags) => roles::agent::run(&flags).await,
            Role::Cluster(cluster) => {
                roles::cluster::run(&cluster, roles::client::terminal()).await
            }
            Role::Doctor(doctor) => roles::doctor::run(&doctor, roles::client::terminal()).await,
            Role::Bench(bench) => aquifer_agent::bench::run(bench).await,
        }
    });
    ended.map_or_else(|error| roles::client::failed(&error), |()| ExitCode::SUCCESS)
}

/// Every client is an open file, and the limit a shell sets is low: takes all that are allowed.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "cannot raise the number of open files");
    }
}
