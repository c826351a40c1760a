//! Apache Kafka itself, from its jars: the judge.

use std::{
    fs::File,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::process::{Process, free_address, tool};

/// A broker alone takes about three seconds to start.
const READY_MAX: Duration = Duration::from_secs(90);

/// Starts one broker, also its own controller, with default settings but for factors of
/// replication and `more` of them; its data and its log lie in `folder`.
pub fn start(folder: &Path, more: &[(String, String)]) -> anyhow::Result<(Process, SocketAddr)> {
    let (clients, controller) = (free_address()?, free_address()?);
    let data = folder.join("data");
    let mut settings = vec![
        "process.roles=broker,controller".to_owned(),
        "node.id=1".to_owned(),
        format!("controller.quorum.bootstrap.servers={controller}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        format!("listeners=PLAINTEXT://{clients},CONTROLLER://{controller}"),
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
        format!("log.dirs={}", data.display()),
        "offsets.topic.replication.factor=1".to_owned(),
        "transaction.state.log.replication.factor=1".to_owned(),
        "transaction.state.log.min.isr=1".to_owned(),
        "share.coordinator.state.topic.replication.factor=1".to_owned(),
        "share.coordinator.state.topic.min.isr=1".to_owned(),
    ];
    settings.extend(more.iter().map(|(name, value)| format!("{name}={value}")));
    let file = folder.join("server.properties");
    std::fs::write(&file, settings.join("\n"))?;
    let log = File::create(folder.join("log"))?;
    let java = |main: &str| -> anyhow::Result<Command> {
        let mut command = Command::new("java");
        command.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
        command.arg(format!("{}/*", tool("TEST_KAFKA_LIBS")?)).arg(main);
        command.stdout(log.try_clone()?).stderr(log.try_clone()?);
        Ok(command)
    };
    let mut format = java("kafka.tools.StorageTool")?;
    format.args(["format", "--standalone", "-t", "AquiferOracle000000001", "-c"]).arg(&file);
    anyhow::ensure!(format.status()?.success(), "Kafka's storage was not formatted");
    let mut process = Process::start("Apache Kafka", java("kafka.Kafka")?.arg(&file))?;
    let deadline = Instant::now() + READY_MAX;
    while TcpStream::connect_timeout(&clients, Duration::from_millis(200)).is_err() {
        process.expect_alive().context("see its log")?;
        anyhow::ensure!(Instant::now() < deadline, "Kafka does not listen on {clients}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((process, clients))
}
