//! Processes under test, started on free loopback ports and ended by their id.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// The time a process may take to become ready on a busy machine.
const READY_MAX: Duration = Duration::from_secs(60);

/// A variable that `tests/run` sets.
pub fn tool(variable: &str) -> anyhow::Result<String> {
    std::env::var(variable).with_context(|| format!("{variable} is not set: use tests/run"))
}

/// A port nobody listens on at this moment, below those that the system gives to whoever connects:
/// one of these could be taken before the process under test listens on it.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 20_000;
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Test processes that run beside each other begin far apart.
    let begin = (std::process::id() as u16).wrapping_mul(997);
    for _ in 0..PORTS {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + begin.wrapping_add(given) % PORTS;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port from {FIRST} on is free")
}

/// A child process, killed when dropped.
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `command`; its output goes to this test's.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let child =
            command.stdin(Stdio::null()).spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// The memory it holds at this moment, in bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).context(path)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line
            .and_then(|line| line.trim().strip_suffix("kB"))
            .context("VmRSS")?
            .trim()
            .parse()?;
        Ok(kib * 1024)
    }

    /// Kills it as `kill -9` does and waits for its end.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends it a signal by its name, such as STOP.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status()?;
        anyhow::ensure!(status.success(), "signal {name} to {}", self.name);
        Ok(())
    }

    /// Asks it to end (SIGTERM) and returns whether it did so with success.
    pub fn terminate(mut self) -> anyhow::Result<bool> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status()?;
        anyhow::ensure!(status.success(), "kill {}", self.name);
        let deadline = Instant::now() + READY_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("{} did not end {READY_MAX:?} after SIGTERM", self.name)
    }

    /// Fails when the process has ended.
    pub fn expect_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended: {status}", self.name),
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `GET path` at `address`, as (status, body).
pub fn http_get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).context("status")?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}

/// Waits until `path` at `address` answers 200.
pub fn wait_ready(process: &mut Process, address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_MAX;
    loop {
        process.expect_alive()?;
        let last = http_get(address, path);
        if matches!(last, Ok((200, _))) {
            return Ok(());
        }
        if deadline < Instant::now() {
            bail!("{} is not ready after {READY_MAX:?}: {last:?}", process.name);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where an Aquifer process listens and keeps its data, stable over restarts.
#[derive(Clone, Debug)]
pub struct Place {
    /// Kafka listener.
    pub kafka: SocketAddr,
    /// Health and metrics listener.
    pub http: SocketAddr,
    /// Data folder.
    pub data: PathBuf,
    /// `--store`, or the default.
    pub store: Option<String>,
    /// More arguments.
    pub arguments: Vec<String>,
    /// Environment, for S3 credentials.
    pub environment: Vec<(String, String)>,
    /// Where standard error is appended, without the banner; this test's output when `None`.
    pub log: Option<PathBuf>,
    /// The most files the process may have open; this test's limit when `None`.
    pub open_files: Option<u32>,
}

impl Place {
    /// Free ports and `data`.
    pub fn new(data: PathBuf) -> anyhow::Result<Self> {
        Ok(Self {
            kafka: free_address()?,
            http: free_address()?,
            data,
            store: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            log: None,
            open_files: None,
        })
    }

    /// Starts `aquifer up` here and waits until it is ready.
    pub fn up(&self) -> anyhow::Result<Process> {
        let mut command = self.command("up")?;
        command.arg("--data").arg(&self.data);
        self.ready("aquifer up", command)
    }

    /// Starts `aquifer agent` here, connected to `metadata`, and waits until it is ready.
    pub fn agent(&self, metadata: SocketAddr) -> anyhow::Result<Process> {
        let mut command = self.command("agent")?;
        command.args(["--metadata", &metadata.to_string()]);
        self.ready("aquifer agent", command)
    }

    fn command(&self, role: &str) -> anyhow::Result<Command> {
        let mut command = match self.open_files {
            None => Command::new(tool("TEST_BIN")?),
            Some(files) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")]);
                shell.arg(tool("TEST_BIN")?);
                shell
            }
        };
        command.arg(role).args(["--kafka", &self.kafka.to_string()]);
        command.args(["--http", &self.http.to_string()]).args(&self.arguments);
        if let Some(store) = &self.store {
            command.args(["--store", store]);
        }
        command.envs(self.environment.clone());
        if let Some(log) = &self.log {
            // The default log is what is looked at.
            command.env_remove("AQUIFER_LOG").stdout(Stdio::null());
            command.stderr(File::options().create(true).append(true).open(log)?);
        }
        Ok(command)
    }

    fn ready(&self, name: &str, mut command: Command) -> anyhow::Result<Process> {
        let mut process = Process::start(name, &mut command)?;
        wait_ready(&mut process, self.http, "/readyz")?;
        Ok(process)
    }
}

/// Starts `aquifer metadata` and returns once it accepts connections.
pub fn metadata_node(place: &Place, listen: SocketAddr) -> anyhow::Result<Process> {
    metadata_node_with(place, listen, &["--id", "1"])
}

/// As [`metadata_node`], with other arguments than those of a node alone.
pub fn metadata_node_with(
    place: &Place,
    listen: SocketAddr,
    arguments: &[&str],
) -> anyhow::Result<Process> {
    let mut command = Command::new(tool("TEST_BIN")?);
    command.args(["metadata", "--listen", &listen.to_string()]).args(arguments);
    command.arg("--data").arg(&place.data).envs(place.environment.clone());
    if let Some(store) = &place.store {
        command.args(["--store", store]);
    }
    let mut process = Process::start("aquifer metadata", &mut command)?;
    let deadline = Instant::now() + READY_MAX;
    while TcpStream::connect_timeout(&listen, Duration::from_millis(200)).is_err() {
        process.expect_alive()?;
        anyhow::ensure!(Instant::now() < deadline, "metadata does not listen on {listen}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(process)
}

/// A MinIO server on `data`, with a bucket named `aquifer`.
pub fn minio(data: &std::path::Path) -> anyhow::Result<(Process, SocketAddr)> {
    // MinIO's single-drive layout makes a folder a bucket.
    std::fs::create_dir_all(data.join("aquifer"))?;
    let (address, console) = (free_address()?, free_address()?);
    let mut command = Command::new(tool("TEST_MINIO")?);
    command.args(["server", "--quiet", "--address", &address.to_string()]);
    command.args(["--console-address", &console.to_string()]).arg(data);
    command.env("MINIO_ROOT_USER", "AKIATEST").env("MINIO_ROOT_PASSWORD", "secrettest");
    let mut process = Process::start("minio", &mut command)?;
    wait_ready(&mut process, address, "/minio/health/ready")?;
    Ok((process, address))
}

/// A LocalStack server in memory, with a bucket named `aquifer`, started as a user would.
pub fn localstack() -> anyhow::Result<(Process, SocketAddr)> {
    let (mut process, address) = emulator("localstack", "S3_ADDRESS")?;
    wait_ready(&mut process, address, "/aquifer")?;
    Ok((process, address))
}

/// An emulator of Google's store, likewise.
pub fn fake_gcs() -> anyhow::Result<(Process, SocketAddr)> {
    let (mut process, address) = emulator("gcs", "GCS_ADDRESS")?;
    wait_ready(&mut process, address, "/storage/v1/b/aquifer")?;
    Ok((process, address))
}

/// An emulator of Azure's store, likewise. It tells strangers nothing, so its words are waited for.
pub fn azurite() -> anyhow::Result<(Process, SocketAddr)> {
    let folder = tempfile::tempdir()?;
    let said = folder.path().join("said");
    let address = free_address()?;
    let mut command = script("azure", "AZURE_ADDRESS", address)?;
    command.stdout(std::fs::File::create(&said)?);
    let mut process = Process::start("azurite", &mut command)?;
    let deadline = Instant::now() + READY_MAX;
    while !std::fs::read_to_string(&said)?.contains("container aquifer is there") {
        process.expect_alive()?;
        anyhow::ensure!(Instant::now() < deadline, "azurite is not ready on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((process, address))
}

fn emulator(name: &str, variable: &str) -> anyhow::Result<(Process, SocketAddr)> {
    let address = free_address()?;
    let process = Process::start(name, &mut script(name, variable, address)?)?;
    Ok((process, address))
}

/// A script of `localstack/`, which is told its address by a variable.
fn script(name: &str, variable: &str, address: SocketAddr) -> anyhow::Result<Command> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../localstack");
    let mut command = Command::new(format!("{folder}/{name}"));
    command.env(variable, address.to_string()).env("TEST_TOOLS", tool("TEST_TOOLS")?);
    Ok(command)
}

/// The environment that points an S3 client at [`minio`] or a proxy before it.
pub fn s3_environment(endpoint: SocketAddr) -> Vec<(String, String)> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        pair("AWS_ENDPOINT_URL", &format!("http://{endpoint}")),
        pair("AWS_ACCESS_KEY_ID", "AKIATEST"),
        pair("AWS_SECRET_ACCESS_KEY", "secrettest"),
        pair("AWS_REGION", "us-east-1"),
    ]
}
