//! When requests are meant to leave. [pure]

/// Requests at uniform intervals over several connections, in turn.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Requests a second of all connections together.
    pub per_second: f64,
    /// How many connections there are.
    pub connections: usize,
    /// Which of them this is, from 0.
    pub connection: usize,
}

impl Schedule {
    /// When the `n`-th request of this connection is meant to leave, from 0, in microseconds after
    /// the start of all.
    pub fn after_micros(&self, n: u64) -> u64 {
        let turn = n as f64 * self.connections as f64 + self.connection as f64;
        // A float holds microseconds exactly for 285 years.
        (turn * 1e6 / self.per_second) as u64
    }

    /// How many requests of this connection are meant to leave before `end_micros`.
    pub fn due_before(&self, end_micros: u64) -> u64 {
        let turns = end_micros as f64 * self.per_second / 1e6;
        let guess = (turns - self.connection as f64) / self.connections as f64;
        let mut due = guess.max(0.0) as u64;
        while self.after_micros(due) < end_micros {
            due += 1;
        }
        while due != 0 && end_micros <= self.after_micros(due - 1) {
            due -= 1;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(per_second: f64, connections: usize, requests: u64) -> Vec<u64> {
        let of = |connection| {
            let schedule = Schedule { per_second, connections, connection };
            (0..requests).map(move |n| schedule.after_micros(n))
        };
        let mut times: Vec<u64> = (0..connections).flat_map(of).collect();
        times.sort_unstable();
        times
    }

    #[test]
    fn all_connections_together_send_at_uniform_intervals() {
        let times = all(200.0, 4, 50);
        assert_eq!(times[0], 0);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 5_000), "{times:?}");
    }

    #[test]
    fn an_odd_rate_does_not_drift() {
        let schedule = Schedule { per_second: 3.0, connections: 1, connection: 0 };
        assert_eq!(schedule.after_micros(3_000_000), 1_000_000_000_000);
    }

    #[test]
    fn what_is_due_before_an_end_is_what_leaves_before_it() {
        for (per_second, connections) in [(200.0, 4), (7.0, 3), (0.3, 5), (150_000.0, 7)] {
            for connection in 0..connections {
                let schedule = Schedule { per_second, connections, connection };
                for end in [0, 1, 4_999, 5_000, 5_001, 2_000_000] {
                    let due = schedule.due_before(end);
                    assert!(end <= schedule.after_micros(due), "{schedule:?} {end}");
                    let before = due.checked_sub(1).map(|last| schedule.after_micros(last));
                    assert!(before.is_none_or(|last| last < end), "{schedule:?} {end}");
                }
            }
        }
    }
}
