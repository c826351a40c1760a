//! The CPU time and the memory of processes, as Linux accounts for them.

use std::fs;

use anyhow::{Context as _, anyhow};
use serde::Serialize;

/// What `/proc/PID/stat` counts in: Linux tells user space 100 a second on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// The CPU time of several processes at one moment.
#[derive(Clone, Debug)]
pub struct CpuReading {
    /// Process id and CPU-seconds since its start.
    seconds: Vec<(u32, f64)>,
    own_seconds: f64,
}

impl CpuReading {
    /// Reads the clocks of `pids` and of this process.
    ///
    /// # Errors
    /// A process is not there.
    pub fn take(pids: &[u32]) -> anyhow::Result<Self> {
        let read = |pid: &u32| Ok((*pid, cpu_seconds(&pid.to_string())?));
        let seconds = pids.iter().map(read).collect::<anyhow::Result<_>>()?;
        Ok(Self { seconds, own_seconds: cpu_seconds("self")? })
    }

    /// CPU-seconds that this process used since.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn own_until(&self, later: &Self) -> f64 {
        later.own_seconds - self.own_seconds
    }

    /// What each of the processes used between two readings.
    pub fn until(&self, later: &Self) -> Vec<ProcessUse> {
        let pairs = self.seconds.iter().zip(&later.seconds);
        pairs.map(|((pid, from), (_, to))| ProcessUse::of(*pid, to - from)).collect()
    }
}

/// What one process used.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessUse {
    /// Its id.
    pub pid: u32,
    /// User and system CPU-seconds in the measured window.
    pub cpu_s: f64,
    /// Resident memory now.
    pub rss_mib: f64,
    /// The most it ever was.
    pub rss_peak_mib: f64,
}

impl ProcessUse {
    fn of(pid: u32, cpu_s: f64) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let mib = |field| status_kib(&status, field).unwrap_or(0) as f64 / 1024.0;
        Self { pid, cpu_s, rss_mib: mib("VmRSS:"), rss_peak_mib: mib("VmHWM:") }
    }
}

/// GiB per CPU-second of all `processes` together; `None` without any.
pub fn gib_per_cpu_second(bytes: u64, processes: &[ProcessUse]) -> Option<f64> {
    let seconds: f64 = processes.iter().map(|process| process.cpu_s).sum();
    (seconds > 0.0).then(|| gib(bytes) / seconds)
}

/// Bytes as GiB.
pub fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn cpu_seconds(pid: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("no process: {path}"))?;
    let ticks = stat_ticks(&stat).ok_or_else(|| anyhow!("{path} has no CPU times"))?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// User plus system time. The command before them may hold spaces and parentheses.
fn stat_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

fn status_kib(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_times_are_found_behind_a_command_with_parentheses() {
        let stat = "7 (a (b) 9 9) S 1 7 7 0 -1 4194560 105 0 0 0 250 31 0 0 20 0 1 0 99";
        assert_eq!(stat_ticks(stat), Some(281));
        assert_eq!(stat_ticks("7 (cut) S 1 7"), None);
    }

    #[test]
    fn memory_is_read_by_the_name_of_its_field() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(status_kib(status, "VmRSS:"), Some(1024));
        assert_eq!(status_kib(status, "VmHWM:"), Some(2048));
        assert_eq!(status_kib(status, "VmSwap:"), None);
    }

    #[test]
    fn the_own_process_has_used_some_time() {
        let from = CpuReading::take(&[std::process::id()]).unwrap();
        let used = from.until(&CpuReading::take(&[std::process::id()]).unwrap());
        assert!(0.0 <= used[0].cpu_s && 0.0 < used[0].rss_mib, "{used:?}");
    }
}
