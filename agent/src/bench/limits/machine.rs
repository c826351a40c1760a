//! The machine, and how busy others kept it meanwhile: what makes a wall-clock figure doubtful.

use std::{fs, thread, time::Instant};

use serde::Serialize;

use super::meter;

/// What a reader must know before comparing two reports.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Machine {
    /// Cores this process may use.
    pub cores: usize,
    /// Whether this is an optimized build; figures of any other mean nothing.
    pub optimized: bool,
    /// Share of all cores' time that went to others while measuring; absent where unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others_share: Option<f64>,
}

/// Jiffies of all cores since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jiffies {
    /// Not idle and not waiting for a disk; time taken by the hypervisor counts.
    pub busy: u64,
    /// All.
    pub total: u64,
}

/// The first line of Linux' `/proc/stat`; `None` for anything else.
pub fn jiffies(stat: &str) -> Option<Jiffies> {
    let mut fields = stat.lines().next()?.split_ascii_whitespace();
    if fields.next()? != "cpu" {
        return None;
    }
    // user nice system idle iowait irq softirq steal; guest time is part of user.
    let fields: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = fields.get(3)?.checked_add(*fields.get(4)?)?;
    let total = fields.iter().try_fold(0_u64, |sum, field| sum.checked_add(*field))?;
    Some(Jiffies { busy: total - idle, total })
}

/// The share of `total` that neither idled nor was ours, to two decimals.
pub fn others_share(from: Jiffies, to: Jiffies, own_share: f64) -> Option<f64> {
    let total = to.total.checked_sub(from.total).filter(|total| 0 < *total)?;
    let busy = to.busy.checked_sub(from.busy)?;
    let others = (busy as f64 / total as f64 - own_share).clamp(0.0, 1.0);
    Some((others * 100.0).round() / 100.0)
}

/// Watches the machine from its start to its end.
pub struct MachineWatch {
    started: Instant,
    own_cpu: std::time::Duration,
    jiffies: Option<Jiffies>,
}

fn read_jiffies() -> Option<Jiffies> {
    jiffies(&fs::read_to_string("/proc/stat").ok()?)
}

impl MachineWatch {
    /// Begins now.
    pub fn start() -> Self {
        Self { started: Instant::now(), own_cpu: meter::process_cpu(), jiffies: read_jiffies() }
    }

    /// What was seen.
    pub fn end(self) -> Machine {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let own = meter::process_cpu().saturating_sub(self.own_cpu).as_secs_f64();
        let own_share = own / (self.started.elapsed().as_secs_f64() * cores as f64);
        let others = self.jiffies.zip(read_jiffies());
        Machine {
            cores,
            optimized: !cfg!(debug_assertions),
            others_share: others.and_then(|(from, to)| others_share(from, to, own_share)),
        }
    }
}
