//! What was seen of this machine and of the metadata group, as findings. Pure.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use aquifer_storage::{
    format::cluster_file::ClusterFile,
    model::Lineage,
    probe::{
        Finding,
        Verdict::{Failed, Unknown, Warning},
    },
};

/// Every commit waits for one sync.
const SYNC_MAX: Duration = Duration::from_millis(20);
/// A metadata log, its snapshots and a file store need room to grow.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// Each client is an open file, and so is each request to the store.
const OPEN_FILES_MIN: u64 = 10_000;

/// A folder, or the nearest one above it that exists.
#[derive(Clone, Debug)]
pub struct FolderSeen {
    /// As it was given.
    pub path: String,
    /// Whether that exists.
    pub exists: bool,
    /// How long a small write and its sync took, in the middle; or what failed.
    pub sync: Result<Duration, (ErrorKind, String)>,
    /// Bytes that are left on its disk.
    pub free_bytes: Option<u64>,
}

/// Judges a folder that must take synced writes.
pub fn folder(check: &'static str, seen: &FolderSeen) -> Vec<Finding> {
    let FolderSeen { path, exists, sync, free_bytes } = seen;
    let new = if *exists { "" } else { " (will be made)" };
    let mut findings = vec![match sync {
        Ok(took) if *took <= SYNC_MAX => {
            Finding::ok(check, format!("{path}{new}: write and fsync in {}", micros(*took)))
        }
        Ok(took) => Finding::bad(
            check,
            Warning,
            format!("{path}{new}: write and fsync take {}", micros(*took)),
            "each commit waits for it: use a local SSD for --data",
        ),
        Err((kind, error)) => {
            let advice = match kind {
                ErrorKind::PermissionDenied => "give it to the user that runs aquifer (chown)",
                ErrorKind::ReadOnlyFilesystem => "it is mounted read-only",
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room",
                _ => "choose another folder",
            };
            Finding::bad(check, Failed, format!("{path}: cannot write and sync: {error}"), advice)
        }
    }];
    if let Some(free) = free_bytes {
        let what = format!("{:.1} GiB free at {path}", *free as f64 / (1u64 << 30) as f64);
        findings.push(match *free < FREE_BYTES_MIN {
            false => Finding::ok("disk", what),
            true => Finding::bad("disk", Warning, what, "writes are refused when it is full"),
        });
    }
    findings
}

fn micros(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}

/// Judges whether `flag`'s address can be listened on; `bound` is what binding it said.
pub fn port(flag: &str, address: SocketAddr, bound: Result<(), ErrorKind>) -> Finding {
    const CHECK: &str = "port";
    let bad = |verdict, what: String, advice: &str| Finding::bad(CHECK, verdict, what, advice);
    match bound {
        Ok(()) => Finding::ok(CHECK, format!("{flag} {address} is free")),
        Err(ErrorKind::AddrInUse) => bad(
            Warning,
            format!("{flag} {address} is in use"),
            "fine if that is Aquifer already running; else stop it or choose another port",
        ),
        Err(ErrorKind::AddrNotAvailable) => bad(
            Failed,
            format!("{flag} {address}: this machine has no such address"),
            "listen on one of its own, or on 0.0.0.0 with --advertise HOST:PORT",
        ),
        Err(ErrorKind::PermissionDenied) => bad(
            Failed,
            format!("{flag} {address}: not allowed"),
            "ports below 1024 are root's: choose another one",
        ),
        Err(kind) => bad(Failed, format!("{flag} {address}: {kind}"), ""),
    }
}

/// Judges the address that clients are told, which `resolved` to these.
pub fn advertised(host: &str, listener: IpAddr, resolved: &Result<Vec<IpAddr>, String>) -> Finding {
    const CHECK: &str = "advertised";
    let addresses = match resolved {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Ok(_) => return unresolved(host, "it has no address"),
        Err(error) => return unresolved(host, error),
    };
    let listed: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let what = format!("clients are told {host}, which is {}", listed.join(", "));
    if addresses.iter().any(IpAddr::is_unspecified) {
        let advice = "it is the address of nobody: --advertise HOST:PORT";
        return Finding::bad(CHECK, Failed, what, advice);
    }
    if addresses.iter().all(IpAddr::is_loopback) && !listener.is_loopback() {
        let advice = "only clients on this machine reach that: --advertise HOST:PORT";
        return Finding::bad(CHECK, Warning, what, advice);
    }
    Finding::ok(CHECK, what)
}

fn unresolved(host: &str, error: &str) -> Finding {
    let what = format!("{host} does not resolve: {error}");
    let advice = "clients are told this name: make it known to DNS, or --advertise another one";
    Finding::bad("advertised", Failed, what, advice)
}

/// Judges how many files a process may open at most; servers take all they may.
pub fn open_files(limit: Option<u64>) -> Finding {
    const CHECK: &str = "open files";
    match limit {
        None => Finding::ok(CHECK, "unlimited"),
        Some(limit) if OPEN_FILES_MIN <= limit => Finding::ok(CHECK, format!("{limit} at most")),
        Some(limit) => Finding::bad(
            CHECK,
            Warning,
            format!("{limit} at most, and each client is one"),
            "raise the hard limit: LimitNOFILE=1048576 of the unit, or ulimit -Hn",
        ),
    }
}

/// What a metadata node says, or a data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// The cluster.
    pub cluster_id: String,
    /// The life of it.
    pub lineage: Lineage,
    /// Whether a leader is known.
    pub has_leader: bool,
}

/// Whose the store's prefix is; `None` when nobody's, an error when that cannot be read.
pub type Claimed = Result<Option<ClusterFile>, String>;

/// Judges whose the prefix is.
pub fn prefix(claimed: &Claimed) -> Finding {
    const CHECK: &str = "prefix";
    match claimed {
        Ok(None) => Finding::ok(CHECK, "belongs to nobody yet"),
        Ok(Some(ClusterFile { cluster_id, lineage })) => {
            Finding::ok(CHECK, format!("belongs to cluster {cluster_id}, lineage {lineage}"))
        }
        Err(error) => {
            let what = format!("whose it is cannot be read: {error}");
            Finding::bad(CHECK, Unknown, what, "")
        }
    }
}

/// Judges what a data folder or a metadata node says of itself against whose the prefix is.
pub fn life(check: &'static str, name: &str, seen: &Life, claimed: &Claimed) -> Finding {
    let Life { cluster_id, lineage, has_leader } = seen;
    let what = format!("{name} is of cluster {cluster_id}, lineage {lineage}");
    let bad = |verdict, what, advice: &str| Finding::bad(check, verdict, what, advice);
    match claimed {
        Ok(Some(claim)) if claim.cluster_id != *cluster_id => {
            bad(Failed, what + ", and the prefix of another", "one of them is the wrong one")
        }
        Ok(Some(claim)) if lineage.number < claim.lineage.number => {
            let advice = "the cluster was restored since: stop it, and never start that data again";
            bad(Failed, what + ", which is over", advice)
        }
        Ok(Some(claim)) if claim.lineage != *lineage => {
            let advice = "a restore stopped half way: repeat it on an empty --data";
            bad(Failed, what + ", and the prefix of another life", advice)
        }
        Ok(None) => {
            let advice = "is --store the one that the cluster uses?";
            bad(Failed, what + ", and the prefix is nobody's", advice)
        }
        _ if !has_leader => {
            let advice = "a majority of the voters must run and reach each other: `aquifer cluster \
                          status`";
            bad(Warning, what + ", and knows no leader", advice)
        }
        _ => Finding::ok(check, what),
    }
}

/// Judges the metadata nodes, of which one is enough to begin with.
pub fn nodes(seen: &[(String, Result<Life, String>)], claimed: &Claimed) -> Vec<Finding> {
    const CHECK: &str = "metadata";
    let is_any_reached = seen.iter().any(|(_, answer)| answer.is_ok());
    let judge = |(address, answer): &(String, Result<Life, String>)| match answer {
        Ok(seen) => life(CHECK, address, seen, claimed),
        Err(error) => {
            let verdict = if is_any_reached { Warning } else { Failed };
            let what = format!("{address} does not answer: {error}");
            let advice = "does it run, is it reached from here, and do --tls-cert, --tls-key and \
                          --tls-ca fit?";
            Finding::bad(CHECK, verdict, what, advice)
        }
    };
    seen.iter().map(judge).collect()
}

#[cfg(test)]
mod tests;
