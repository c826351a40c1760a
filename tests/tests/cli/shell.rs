//! Runs the binary as a shell would, against a broker of the test's own or the one it is given.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context as _, ensure};
use aquifer_tests::process::{Place, Process, free_address, tool};
use serde_json::Value;

/// A broker and the command line.
pub struct Shell {
    /// The broker, as `host:port`.
    pub broker: String,
    /// Its `/metrics`, when it is the test's own.
    pub http: Option<SocketAddr>,
    binary: String,
    _running: Option<(Process, tempfile::TempDir)>,
}

/// How a command ended.
pub struct Ended {
    pub stdout: String,
    stderr: String,
    code: Option<i32>,
    command: String,
}

impl Shell {
    /// With nobody where the broker should be.
    pub fn without_broker() -> anyhow::Result<Self> {
        let broker = free_address()?.to_string();
        Ok(Self { broker, http: None, binary: tool("TEST_BIN")?, _running: None })
    }

    /// With a broker.
    pub fn start() -> anyhow::Result<Self> {
        let binary = tool("TEST_BIN")?;
        if let Ok(broker) = std::env::var("TEST_CLI_BROKER") {
            return Ok(Self { broker, http: None, binary, _running: None });
        }
        let folder = tempfile::tempdir()?;
        let mut place = Place::new(folder.path().join("data"))?;
        place.arguments = ["-o", "group.lag.interval=100ms"].map(str::to_owned).to_vec();
        place.log = Some(folder.path().join("log"));
        let process = place.up()?;
        let (broker, http) = (place.kafka.to_string(), Some(place.http));
        Ok(Self { broker, http, binary, _running: Some((process, folder)) })
    }

    /// A topic's name that no other test uses, and no other run on the same broker.
    pub fn name(&self, word: &str) -> String {
        static GIVEN: AtomicU16 = AtomicU16::new(0);
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        format!("{word}-{}-{given}", std::process::id())
    }

    /// A new topic.
    pub fn topic(&self, word: &str, partitions: u32) -> anyhow::Result<String> {
        let name = self.name(word);
        self.run(&format!("topic create {name} -p {partitions}"))?.ok()?;
        Ok(name)
    }

    /// The command, cut at its blanks, with the broker in the environment.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments.split(' ').filter(|argument| !argument.is_empty()));
        command.env("AQUIFER_BOOTSTRAP", &self.broker).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &str) -> anyhow::Result<Ended> {
        Ended::of(arguments, self.command(arguments).output()?)
    }

    /// Runs it with `input` on its standard input.
    pub fn feed(&self, arguments: &str, input: Vec<u8>) -> anyhow::Result<Ended> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().context("it is piped")?;
        let feeding = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output()?;
        // A command that fails may leave some of its input unread.
        let _ = feeding.join();
        Ended::of(arguments, output)
    }

    /// The JSON document it prints.
    pub fn json(&self, arguments: &str) -> anyhow::Result<Value> {
        let text = self.run(arguments)?.ok()?;
        ensure!(text.lines().count() == 1, "one document on one line: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// The JSON lines it prints.
    pub fn lines(&self, arguments: &str) -> anyhow::Result<Vec<Value>> {
        let text = self.run(arguments)?.ok()?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

impl Ended {
    fn of(command: &str, output: Output) -> anyhow::Result<Self> {
        Ok(Self {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
            command: command.to_owned(),
        })
    }

    /// What it printed, when it ended well.
    pub fn ok(&self) -> anyhow::Result<String> {
        let Self { command, code, stderr, .. } = self;
        ensure!(*code == Some(0), "aquifer {command}: exit code {code:?}: {stderr}");
        Ok(self.stdout.clone())
    }

    /// What it said on standard error, when it ended with `code`.
    pub fn refused(&self, code: i32) -> anyhow::Result<String> {
        let Self { command, stderr, stdout, .. } = self;
        let told = format!("aquifer {command}: exit code {:?}: {stderr}{stdout}", self.code);
        ensure!(self.code == Some(code), told);
        Ok(stderr.clone())
    }
}

/// Sends a signal by its name.
pub fn signal(child: &Child, name: &str) -> anyhow::Result<()> {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status()?;
    ensure!(status.success(), "signal {name}");
    Ok(())
}
