//! What happened, in order: its hash tells whether two runs were the same, its text where not.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// The record of one run. Clones share it.
#[derive(Clone)]
pub struct Trace(Arc<Inner>);

struct Inner {
    zero: Instant,
    state: Mutex<State>,
}

struct State {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// An empty trace that begins now; with `keep`, its lines can be read.
    pub fn new(keep: bool) -> Self {
        let lines = keep.then(Vec::new);
        let state = Mutex::new(State { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines });
        Self(Arc::new(Inner { zero: Instant::now(), state }))
    }

    /// Simulated nanoseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.0.zero.elapsed().as_nanos()).expect("a run is shorter than centuries")
    }

    /// Adds an event.
    pub fn note(&self, event: impl FnOnce() -> String) {
        let line = format!("{:>10.3} {}", self.now() as f64 / 1e6, event());
        let mut state = self.0.state.lock().expect("no holder of this lock panics");
        for byte in line.bytes() {
            state.hash = (state.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        state.events += 1;
        if let Some(lines) = &mut state.lines {
            lines.push(line);
        }
    }

    /// The hash of all events so far, and how many there are.
    pub fn fingerprint(&self) -> (u64, u64) {
        let state = self.0.state.lock().expect("no holder of this lock panics");
        (state.hash, state.events)
    }

    /// Takes the lines, where they were kept.
    pub fn take_lines(&self) -> Vec<String> {
        let mut state = self.0.state.lock().expect("no holder of this lock panics");
        state.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
