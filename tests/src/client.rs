//! The client programs of `clients/`, all behind one command line.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use anyhow::Context;

use crate::{
    process::tool,
    record::{ConsumedRecord, Record, to_line},
};

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// confluent-kafka for Python: librdkafka.
    Librdkafka,
    /// Apache's Java client.
    Java,
    /// segmentio kafka-go.
    KafkaGo,
    /// twmb franz-go.
    FranzGo,
    /// IBM sarama, for Go.
    Sarama,
    /// kafka-python.
    KafkaPython,
    /// aiokafka, for Python.
    AioKafka,
    /// KafkaJS.
    KafkaJs,
    /// Confluent's client for JavaScript: librdkafka.
    ConfluentJs,
    /// Platformatic's client for JavaScript.
    Platformatic,
    /// The crate rdkafka: librdkafka.
    Rdkafka,
    /// The crate rskafka.
    Rskafka,
}

/// Every client.
pub const ALL: [Client; 12] = [
    Client::Librdkafka,
    Client::Java,
    Client::KafkaGo,
    Client::FranzGo,
    Client::Sarama,
    Client::KafkaPython,
    Client::AioKafka,
    Client::KafkaJs,
    Client::ConfluentJs,
    Client::Platformatic,
    Client::Rdkafka,
    Client::Rskafka,
];

/// One client of each of three families, for tests of something else than clients.
pub const FAMILIES: [Client; 3] = [Client::Librdkafka, Client::Java, Client::KafkaGo];

/// How members of a group come to share its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// The classic one: everybody gives everything up, then one member assigns.
    Eager,
    /// The classic one with an assignor that moves only what has to move (KIP-429).
    Cooperative,
    /// That of KIP-848: the coordinator assigns.
    Consumer,
}

impl Protocol {
    /// Its name on the command line of the client programs.
    pub fn argument(self) -> &'static str {
        match self {
            Self::Eager => "classic",
            Self::Cooperative => "cooperative",
            Self::Consumer => "consumer",
        }
    }

    /// The type of its groups, as Kafka calls it.
    pub fn group_type(self) -> &'static str {
        if self == Self::Consumer { "consumer" } else { "classic" }
    }
}

/// Kafka's codecs.
pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Admin steps of `clients/README.md` that every client with an admin has.
const ADMIN_STEPS: [&str; 14] = [
    "create-topic",
    "create-again",
    "list-topics",
    "describe-topic",
    "create-partitions",
    "describe-configs",
    "alter-configs",
    "list-offsets",
    "delete-records",
    "list-groups",
    "describe-group",
    "committed-offsets",
    "delete-group",
    "delete-topic",
];

impl Client {
    /// A command of this client's program.
    pub fn command(self, arguments: &[&str]) -> anyhow::Result<Command> {
        let python = |program: &str| -> anyhow::Result<Command> {
            let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
            let mut command = Command::new(tool("TEST_PYTHON")?);
            command.arg(clients.join("python").join(program));
            Ok(command)
        };
        let node = |program: &str| -> anyhow::Result<Command> {
            let mut command = Command::new("node");
            command.arg(Path::new(&tool("TEST_NODE")?).join(program));
            Ok(command)
        };
        let crates = |name: &str| -> anyhow::Result<Command> {
            let mut command = Command::new(tool("TEST_RUST_CLIENTS")?);
            command.arg(name);
            Ok(command)
        };
        let mut command = match self {
            Self::Librdkafka => python("client.py")?,
            Self::KafkaPython => python("kafka_python_client.py")?,
            Self::AioKafka => python("aiokafka_client.py")?,
            Self::Java => {
                let mut command = java(&tool("TEST_JAVA_CLASSPATH")?);
                command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "Client"]);
                command
            }
            Self::KafkaGo => Command::new(tool("TEST_KAFKA_GO")?),
            Self::FranzGo => Command::new(tool("TEST_FRANZ_GO")?),
            Self::Sarama => Command::new(tool("TEST_SARAMA")?),
            Self::KafkaJs => node("kafkajs.cjs")?,
            Self::ConfluentJs => node("confluent.cjs")?,
            Self::Platformatic => node("platformatic.mjs")?,
            Self::Rdkafka => crates("rdkafka")?,
            Self::Rskafka => crates("rskafka")?,
        };
        command.args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// The codecs it writes and reads as it is installed here.
    pub fn codecs(self) -> &'static [&'static str] {
        match self {
            Self::KafkaJs => &CODECS[..2],
            Self::Platformatic => &CODECS[..4], // Its zstd is that of node 22 and later.
            _ => &CODECS,
        }
    }

    /// Whether it has an idempotent producer.
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::KafkaGo | Self::Rskafka)
    }

    /// Whether it knows groups.
    pub fn has_groups(self) -> bool {
        self != Self::Rskafka
    }

    /// The protocols of groups that its program can be a member by (`group`).
    pub fn protocols(self) -> &'static [Protocol] {
        match self {
            Self::Java | Self::Librdkafka | Self::FranzGo => {
                &[Protocol::Eager, Protocol::Cooperative, Protocol::Consumer]
            }
            Self::KafkaPython => &[Protocol::Eager, Protocol::Cooperative],
            Self::KafkaGo | Self::Sarama | Self::AioKafka | Self::KafkaJs => &[Protocol::Eager],
            // Their programs have no such command: two are librdkafka again.
            Self::ConfluentJs | Self::Platformatic | Self::Rdkafka | Self::Rskafka => &[],
        }
    }

    /// Whether it can be in one group with other families: these two have assignors of their own,
    /// or subscriptions that nobody else reads.
    pub fn mixes(self) -> bool {
        !matches!(self, Self::KafkaGo | Self::KafkaJs)
    }

    /// The admin steps of `clients/README.md` that it has.
    pub fn admin_steps(self) -> Vec<&'static str> {
        let lacks: &[&str] = match self {
            Self::KafkaGo => &["delete-records"],
            Self::AioKafka => &["delete-group"],
            Self::ConfluentJs => &["create-partitions", "describe-configs", "alter-configs"],
            Self::Rskafka => &[
                "create-partitions",
                "describe-configs",
                "alter-configs",
                "list-groups",
                "describe-group",
                "committed-offsets",
                "delete-group",
            ],
            _ => &[],
        };
        ADMIN_STEPS.into_iter().filter(|step| !lacks.contains(step)).collect()
    }

    /// Whether it can read what `producer` writes with `codec`: few pairs cannot, over any broker.
    pub fn reads(self, producer: Self, codec: &str) -> bool {
        let is_understood = match (producer, self) {
            // Its snappy knows one block, and theirs is of blocks of 32 KiB with a header.
            (
                Self::Java | Self::KafkaGo | Self::Sarama | Self::KafkaPython | Self::AioKafka,
                Self::Platformatic,
            ) => codec != "snappy",
            // An empty header becomes one without a value, which rskafka does not parse.
            (Self::ConfluentJs, Self::Rskafka) => false,
            _ => true,
        };
        is_understood && self.codecs().contains(&codec)
    }

    /// `records` as this client can send them: some refuse a record of neither key nor value.
    pub fn sendable(self, records: &[Record]) -> Vec<Record> {
        let mut records = records.to_vec();
        if matches!(self, Self::KafkaPython | Self::AioKafka) {
            for record in &mut records {
                if record.value.is_none() {
                    record.key.get_or_insert_default();
                }
            }
        }
        records
    }

    /// Whether it takes null for empty or empty for null.
    pub fn confuses_null(self) -> bool {
        matches!(self, Self::KafkaGo | Self::ConfluentJs)
    }

    /// Whether it forgets the order of headers.
    pub fn sorts_headers(self) -> bool {
        self == Self::Rskafka
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
        self.send("produce", bootstrap, (topic, codec), records)
    }

    /// As [`Client::produce`], with the idempotent producer.
    pub fn produce_idempotently(
        self,
        bootstrap: SocketAddr,
        topic: &str,
        codec: &str,
        records: &[Record],
    ) -> anyhow::Result<Vec<i64>> {
        self.send("idempotent", bootstrap, (topic, codec), records)
    }

    fn send(
        self,
        command: &str,
        bootstrap: SocketAddr,
        (topic, codec): (&str, &str),
        records: &[Record],
    ) -> anyhow::Result<Vec<i64>> {
        let file = tempfile::NamedTempFile::new()?;
        let lines: Vec<String> = records.iter().map(to_line).collect();
        std::fs::write(file.path(), lines.join("\n") + "\n")?;
        let path = file.path().to_string_lossy();
        let printed = self.run(&[command, &bootstrap.to_string(), topic, codec, &path])?;
        printed.lines().map(|line| line.parse().context("an offset")).collect()
    }

    /// Takes the admin steps: on the new topic `topic`, on the records of `old` and on its reader
    /// `group`, which committed. Returns what was printed of each step.
    pub fn administrate(
        self,
        bootstrap: SocketAddr,
        topic: &str,
        (old, group, time): (&str, &str, i64),
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let time = time.to_string();
        let printed = self.run(&["admin", &bootstrap.to_string(), topic, old, group, &time])?;
        let pair = |line: &str| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        printed.lines().map(|line| pair(line).context("step and result")).collect()
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

/// A Java virtual machine that starts soon.
pub fn java(classpath: &str) -> Command {
    let mut command = Command::new("java");
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", "-cp", classpath]);
    command
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
