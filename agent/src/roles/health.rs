//! `aquifer health`: what a container without a shell or an HTTP client asks its own process.

use std::{
    io::{
        ErrorKind::{BrokenPipe, ConnectionReset},
        Read as _, Write as _,
    },
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use aquifer_agent::config::{self, HealthFlags};

/// More than any answer of ours to a probe.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// Asks, prints the answer, and ends with 0 only when it is a good one.
pub fn run(flags: &HealthFlags) -> ExitCode {
    match ask(flags) {
        Ok(answer) => {
            // Whoever closed our output looks at the exit code.
            let _ = std::io::stdout().write_all(answer.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("aquifer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn ask(flags: &HealthFlags) -> anyhow::Result<String> {
    let listener = config::http_address(flags)?;
    let address = SocketAddr::new(reachable(listener.ip()), listener.port());
    let path = if flags.live { "/healthz" } else { "/readyz" };
    let answer = get(address, path, flags.timeout).with_context(|| {
        format!("nothing healthy at http://{address}{path} (--http says where to look)")
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| {
        format!("what listens on {address} does not speak HTTP (--http says where to look)")
    })?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "http://{address}{path} answers {status}: {}", body.trim_end());
    Ok(body.to_owned())
}

/// Where a listener on every address is reached from its own host.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// One GET. HTTP/1.0, whose answer is never chunked and ends with the connection.
fn get(address: SocketAddr, path: &str, patience: Duration) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let asked = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let sent = stream.write_all(asked.as_bytes());
    let read = sent.and_then(|()| stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer));
    match read {
        // Whoever does not speak HTTP hangs up, maybe before all of it was sent.
        Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => Ok(answer),
        other => other.map(|_| answer).context("no answer"),
    }
}
