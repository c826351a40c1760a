//! The client programs of `clients/`, all behind one command line.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use anyhow::Context;

use crate::{
    process::tool,
    record::{ConsumedRecord, Record, to_line},
};

/// A client family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// confluent-kafka for Python: librdkafka.
    Librdkafka,
    /// Apache's Java client.
    Java,
    /// segmentio kafka-go.
    KafkaGo,
}

/// Every client family.
pub const ALL: [Client; 3] = [Client::Librdkafka, Client::Java, Client::KafkaGo];

impl Client {
    /// A command of this client's program.
    pub fn command(self, arguments: &[&str]) -> anyhow::Result<Command> {
        let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        let mut command = match self {
            Self::Librdkafka => {
                let mut command = Command::new(tool("TEST_PYTHON")?);
                command.arg(clients.join("python/client.py"));
                command
            }
            Self::Java => {
                let mut command = Command::new("java");
                command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m"]);
                command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
                command.args(["-cp", &tool("TEST_JAVA_CLASSPATH")?, "Client"]);
                command
            }
            Self::KafkaGo => Command::new(tool("TEST_KAFKA_GO")?),
        };
        command.args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command of this client's program to its end and returns what it printed.
    pub fn run(self, arguments: &[&str]) -> anyhow::Result<String> {
        succeeded(&format!("{self:?} {arguments:?}"), self.command(arguments)?.output()?)
    }

    /// Starts a command of this client's program in the background, its output kept.
    pub fn start(self, arguments: &[&str]) -> anyhow::Result<Child> {
        Ok(self.command(arguments)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Produces `records` to partition 0 and returns their offsets.
    pub fn produce(
        self,
        bootstrap: SocketAddr,
        topic: &str,
        codec: &str,
        records: &[Record],
    ) -> anyhow::Result<Vec<i64>> {
        let file = tempfile::NamedTempFile::new()?;
        let lines: Vec<String> = records.iter().map(to_line).collect();
        std::fs::write(file.path(), lines.join("\n") + "\n")?;
        let path = file.path().to_string_lossy();
        let printed = self.run(&["produce", &bootstrap.to_string(), topic, codec, &path])?;
        printed.lines().map(|line| line.parse().context("an offset")).collect()
    }

    /// Consumes `count` records as a new group.
    pub fn consume(
        self,
        bootstrap: SocketAddr,
        topic: &str,
        group: &str,
        count: usize,
    ) -> anyhow::Result<Vec<ConsumedRecord>> {
        let count = count.to_string();
        let printed = self.run(&["consume", &bootstrap.to_string(), topic, group, &count])?;
        printed.lines().map(|line| serde_json::from_str(line).context("a record")).collect()
    }
}

/// What a finished program printed.
///
/// # Errors
/// It failed; with what it said.
pub fn succeeded(name: &str, output: Output) -> anyhow::Result<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{name}: {}\n{said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
