//! `aquifer bench store`: an S3-speaking store, or a proxy before a real one, that fails on demand.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use crate::process::{Process, free_address, http_get, tool, wait_ready};

/// A store or proxy under a test's control.
pub struct StoreStub {
    /// Where it listens.
    pub address: SocketAddr,
    /// Ends with the handle, unless somebody else started it.
    _process: Option<Process>,
}

impl StoreStub {
    /// Starts a store that answers at once.
    pub fn start() -> anyhow::Result<Self> {
        Self::with(&["--preset", "zero"])
    }

    /// Starts a proxy that answers at once before the server at `upstream`.
    pub fn before(upstream: SocketAddr) -> anyhow::Result<Self> {
        Self::with(&["--preset", "zero", "--upstream", &format!("http://{upstream}")])
    }

    /// Starts one with these arguments.
    pub fn with(arguments: &[&str]) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(tool("TEST_BIN")?);
        command.args(["bench", "store", "--listen", &address.to_string()]).args(arguments);
        let mut process = Process::start("aquifer bench store", &mut command)?;
        wait_ready(&mut process, address, "/-/counters")?;
        Ok(Self { address, _process: Some(process) })
    }

    /// The one that somebody else runs at `address`.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, _process: None }
    }

    /// Replaces the fault rules, a JSON list; `[]` heals.
    pub fn fail(&self, rules: &str) -> anyhow::Result<()> {
        let body = format!("{{\"rules\":{rules}}}");
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let (address, bytes) = (self.address, body.len());
        write!(stream, "PUT /-/faults HTTP/1.1\r\nHost: {address}\r\n")?;
        write!(stream, "Content-Length: {bytes}\r\nConnection: close\r\n\r\n{body}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).context("status")?;
        anyhow::ensure!(matches!(status, "200" | "204"), "faults {rules}: {answer}");
        Ok(())
    }

    /// What it counted, by kind of request.
    pub fn counters(&self) -> anyhow::Result<serde_json::Value> {
        let (status, body) = http_get(self.address, "/-/counters")?;
        anyhow::ensure!(status == 200, "counters: {status}");
        // An HTTP/1.1 body may come in chunks; a JSON object is what is between its braces.
        let (first, last) = (body.find('{'), body.rfind('}'));
        let object = first.zip(last).map(|(first, last)| &body[first..=last]).context("JSON")?;
        Ok(serde_json::from_str(object)?)
    }
}
