//! Hosts with addresses of their own, and links between them that can be cut in one direction.
//!
//! Each host is a network namespace behind one bridge, reachable from this machine only. A cut is
//! made in the sender's namespace, so it needs no firewall and leaves no rule behind: everything
//! goes with the namespaces. Where namespaces cannot be made (no root), all hosts are addresses of
//! the loopback interface, and links cannot be cut: the operating system gives every outgoing
//! loopback connection the same source address, so no rule could tell the senders apart.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

/// Deployments that may run at once on one machine.
const SLOTS: u8 = 100;
/// The first host's number in its network; the bridge has number 1.
const FIRST_HOST: u8 = 11;
/// The second byte of the namespaces' addresses, 10.x.slot.host.
const NETWORK: u8 = 213;
/// Where the tools keep names of namespaces.
const NAMESPACES: &str = "/run/netns";
/// An address on the bridge's network that nobody has: what is sent to it is lost.
const NOBODY: &str = "02:00:00:00:de:ad";

/// What a cut does to what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It disappears, also on open connections.
    Drop,
    /// The sender is told at once that there is no way; open connections carry nothing.
    Reject,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its address.
    pub ip: Ipv4Addr,
    namespace: Option<String>,
}

/// All hosts of a deployment. Dropping it removes them; their processes must be gone by then.
#[derive(Debug)]
pub struct Network {
    slot: Option<u8>,
    hosts: u8,
    cuts: Vec<(Host, Host, Cut)>,
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output().context("ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

fn bridge(slot: u8) -> String {
    format!("aq{slot}")
}

impl Network {
    /// An empty network, with links that can be cut where the system allows it.
    pub fn new() -> anyhow::Result<Self> {
        remove_leftovers();
        let mut network = Self { slot: None, hosts: 0, cuts: Vec::new() };
        let mut refused = None;
        for slot in 0..SLOTS {
            let name = bridge(slot);
            let made = ip(&["link", "add", &name, "type", "bridge", "forward_delay", "0"]);
            match made {
                Ok(()) => {
                    network.slot = Some(slot);
                    let owner = format!("pid:{}", std::process::id());
                    ip(&["link", "set", &name, "alias", &owner])?;
                    let address = format!("10.{NETWORK}.{slot}.1/24");
                    ip(&["address", "add", &address, "dev", &name])?;
                    ip(&["link", "set", &name, "up"])?;
                    return Ok(network);
                }
                Err(error) if error.to_string().contains("File exists") => {}
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let why = refused.map_or_else(|| "all are taken".to_owned(), |error| error.to_string());
        println!("no network namespaces ({why}): everything runs on loopback, no link can be cut");
        Ok(network)
    }

    /// Whether links can be cut.
    pub fn has_links(&self) -> bool {
        self.slot.is_some()
    }

    /// Adds a host.
    pub fn host(&mut self) -> anyhow::Result<Host> {
        let number = FIRST_HOST + self.hosts;
        self.hosts += 1;
        let Some(slot) = self.slot else {
            return Ok(Host { ip: Ipv4Addr::new(127, 0, 0, number), namespace: None });
        };
        let (bridge, address) = (bridge(slot), Ipv4Addr::new(10, NETWORK, slot, number));
        let (name, port) = (format!("{bridge}-{number}"), format!("{bridge}p{number}"));
        ip(&["netns", "add", &name])?;
        let peer = ["peer", "name", "eth0", "netns", &name];
        ip(&[&["link", "add", &port, "type", "veth"], &peer[..]].concat())?;
        ip(&["link", "set", &port, "master", &bridge, "up"])?;
        ip(&["-n", &name, "address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        Ok(Host { ip: address, namespace: Some(name) })
    }

    /// Cuts what `from` sends to `to`; the other direction goes on.
    pub fn cut(&mut self, from: &Host, to: &Host, how: Cut) -> anyhow::Result<()> {
        let namespace = from.namespace.as_deref().context("loopback has no links to cut")?;
        let to_ip = to.ip.to_string();
        // Noted first: what was done in part is healed, too.
        self.cuts.push((from.clone(), to.clone(), how));
        match how {
            Cut::Drop => {
                let lost = ["lladdr", NOBODY, "dev", "eth0", "nud", "permanent"];
                ip(&[&["-n", namespace, "neighbour", "replace", &to_ip], &lost[..]].concat())
            }
            Cut::Reject => ip(&["-n", namespace, "route", "replace", "unreachable", &to_ip]),
        }
    }

    /// Cuts both directions.
    pub fn part(&mut self, one: &Host, other: &Host, how: Cut) -> anyhow::Result<()> {
        self.cut(one, other, how)?;
        self.cut(other, one, how)
    }

    /// Makes all links whole.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        for (from, to, how) in std::mem::take(&mut self.cuts) {
            let namespace = from.namespace.as_deref().context("loopback has no links")?;
            let to = to.ip.to_string();
            let healed = match how {
                Cut::Drop => ip(&["-n", namespace, "neighbour", "del", &to, "dev", "eth0"]),
                Cut::Reject => ip(&["-n", namespace, "route", "del", "unreachable", &to]),
            };
            match healed {
                // It was cut twice, or not at all.
                Err(error) if error.to_string().contains("No such") => {}
                healed => healed?,
            }
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            remove(slot);
        }
    }
}

impl Host {
    /// `program`, to be run on this host. It ends when the thread that starts it ends.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match &self.namespace {
            None => Command::new("setpriv"),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={NAMESPACES}/{namespace}")).arg("setpriv");
                command
            }
        };
        command.args(["--pdeathsig", "KILL", program]);
        command
    }

    /// Where a server of this host listens: on `port`, or on a free one where addresses are shared
    /// with everything else on this machine.
    pub fn address(&self, port: u16) -> anyhow::Result<SocketAddr> {
        let ip = IpAddr::V4(self.ip);
        match &self.namespace {
            Some(_) => Ok(SocketAddr::new(ip, port)),
            None => Ok(TcpListener::bind((ip, 0))?.local_addr()?),
        }
    }
}

/// Removes one network: also what is only there in part.
fn remove(slot: u8) {
    let bridge = bridge(slot);
    // A namespace ends some time after its name; the ports must be gone before the slot is reused.
    let ports = format!("{bridge}p");
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&ports) {
            ip(&["link", "delete", &name]).unwrap_or_else(|error| println!("{error}"));
        }
    }
    let prefix = format!("{bridge}-");
    for entry in fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            ip(&["netns", "delete", &name]).unwrap_or_else(|error| println!("{error}"));
        }
    }
    ip(&["link", "delete", &bridge]).unwrap_or_else(|error| println!("{error}"));
}

/// Removes the networks of test processes that were killed.
fn remove_leftovers() {
    for slot in 0..SLOTS {
        let alias = format!("/sys/class/net/{}/ifalias", bridge(slot));
        let Ok(owner) = fs::read_to_string(alias) else { continue };
        if let Some(pid) = owner.trim().strip_prefix("pid:")
            && !Path::new("/proc").join(pid).exists()
        {
            remove(slot);
        }
    }
}
