//! Agent, metadata node and store started in every order, as processes (RELIABILITY H4): whoever
//! comes first waits, says that it is not ready, and becomes ready when the others are there.
#![allow(clippy::disallowed_methods, reason = "a test of real processes takes real time")]

use std::{
    env,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

/// The time everything may take to become ready on a busy machine.
const READY_MAX: Duration = Duration::from_secs(90);

/// How long each is alone before the next one starts.
const ALONE: Duration = Duration::from_millis(1500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Store,
    Metadata,
    Agent,
}

/// A process, killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It may have ended already.
        let _ = self.0.wait();
    }
}

/// A port nobody listens on at this moment, below those that the system gives to whoever connects:
/// one of these could be taken before the process listens on it.
fn free_address() -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let ports = (0..2_000).map(|_| 30_000 + GIVEN.fetch_add(1, Ordering::Relaxed) % 2_000);
    let mut listeners = ports.map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    let listener = listeners.find_map(Result::ok).expect("a free port");
    listener.local_addr().expect("it is bound")
}

struct World {
    store: SocketAddr,
    metadata: SocketAddr,
    kafka: SocketAddr,
    http: SocketAddr,
    data: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let [store, metadata, kafka, http] = [(); 4].map(|()| free_address());
        Self { store, metadata, kafka, http, data }
    }

    fn start(&self, part: Part) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aquifer"));
        let data = |name: &str| Path::join(self.data.path(), name);
        match part {
            Part::Store => {
                command.args(["bench", "store", "--listen", &self.store.to_string()]);
            }
            Part::Metadata => {
                command.args(["metadata", "--id", "1", "--listen", &self.metadata.to_string()]);
                command.args(["--store", "s3://aquifer/order"]).arg("--data").arg(data("metadata"));
            }
            Part::Agent => {
                command.args(["agent", "--metadata", &self.metadata.to_string()]);
                command.args(["--store", "s3://aquifer/order"]);
                command.args(["--kafka", &self.kafka.to_string()]);
                command.args(["--http", &self.http.to_string()]);
            }
        }
        command.env("AWS_ENDPOINT_URL", format!("http://{}", self.store));
        command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "secrettest");
        command.env("AWS_REGION", "us-east-1").stdin(Stdio::null()).stdout(Stdio::null());
        Process(command.spawn().expect("the binary runs"))
    }

    /// The status of `/readyz`; `None` when nobody answers.
    fn readiness(&self) -> Option<u16> {
        let mut stream = TcpStream::connect_timeout(&self.http, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }
}

fn expect_alive(running: &mut [(Part, Process)], order: &[Part]) {
    for (part, process) in running {
        let ended = process.0.try_wait().expect("it is our child");
        assert!(ended.is_none(), "{order:?}: {part:?} ended with {ended:?}");
    }
}

fn starts(order: [Part; 3]) {
    let world = World::new();
    let mut running = Vec::new();
    for part in order {
        if running.len() == 2 {
            assert_ne!(world.readiness(), Some(200), "{order:?}: ready without {part:?}");
        }
        running.push((part, world.start(part)));
        sleep(ALONE);
        expect_alive(&mut running, &order);
    }
    let deadline = Instant::now() + READY_MAX;
    while world.readiness() != Some(200) {
        expect_alive(&mut running, &order);
        assert!(Instant::now() < deadline, "{order:?}: not ready after {READY_MAX:?}");
        sleep(Duration::from_millis(50));
    }
    TcpStream::connect_timeout(&world.kafka, Duration::from_secs(5)).expect("it serves Kafka");
}

#[test]
fn every_order_of_starting_ends_ready() {
    use Part::{Agent, Metadata, Store};
    // Side by side: most of the time is waiting.
    std::thread::scope(|scope| {
        for order in [
            [Agent, Metadata, Store],
            [Agent, Store, Metadata],
            [Metadata, Agent, Store],
            [Metadata, Store, Agent],
            [Store, Agent, Metadata],
            [Store, Metadata, Agent],
        ] {
            scope.spawn(move || starts(order));
        }
    });
}
