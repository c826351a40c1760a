//! The configs a consumer group goes by. Values were judged by the agent that proposed them; what
//! is no number is not there.

use std::ops::RangeInclusive;

use super::assignor::Assignor;
use crate::machine::group::surroundings::Surroundings;

/// `group.consumer.session.timeout.ms` where it is not set.
const SESSION_TIMEOUT_MS: u32 = 45_000;

/// Milliseconds between the heartbeats of a member, where nothing sets them. A member learns of a
/// new assignment at its next heartbeat, so this is what a rebalance takes: Kafka's 5 s is for
/// clusters whose members would otherwise be too many.
const HEARTBEAT_INTERVAL_MS: RangeInclusive<u32> = 500..=5_000;

/// `group.consumer.assignors` where it is not set.
const ASSIGNORS: &str = "uniform,range";

/// The configs of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerSettings {
    /// Milliseconds without a heartbeat until a member is expired.
    pub session_timeout_ms: u32,
    /// Milliseconds between the heartbeats of a member; `None`: by how many members there are.
    pub heartbeat_interval_ms: Option<u32>,
    /// Least milliseconds between two assignments; `None`: by the size of the group.
    pub assignment_interval_ms: Option<u32>,
    /// `group.consumer.max.size`.
    pub max_size: usize,
    /// The assignors that members may name, the default first.
    pub assignors: Vec<(String, Assignor)>,
    /// Whether members of the classic protocol may join.
    pub allows_classic: bool,
    /// Whether a classic group with members becomes a consumer group.
    pub allows_upgrade: bool,
    /// Whether a consumer group of classic members becomes a classic group.
    pub allows_downgrade: bool,
}

impl ConsumerSettings {
    /// Of a group.
    pub fn of(group: &str, surroundings: &dyn Surroundings) -> Self {
        let number = |name: &str| surroundings.group_config(group, name)?.parse::<u32>().ok();
        let named = |names: &str| -> Vec<(String, Assignor)> {
            let names = names.split(',').map(str::trim);
            names.filter_map(|name| Some((name.to_owned(), Assignor::named(name)?))).collect()
        };
        let mut assignors = surroundings
            .group_config(group, "consumer.assignors")
            .map(|names| named(&names))
            .unwrap_or_default();
        if assignors.is_empty() {
            assignors = named(ASSIGNORS);
        }
        let policy = surroundings.group_config(group, "consumer.migration.policy");
        let policy = policy.map_or("bidirectional".to_owned(), |policy| policy.to_lowercase());
        let max_size = number("consumer.max.size").unwrap_or(i32::MAX.unsigned_abs());
        Self {
            session_timeout_ms: session_timeout_ms(group, surroundings),
            heartbeat_interval_ms: number("consumer.heartbeat.interval.ms"),
            assignment_interval_ms: number("consumer.assignment.interval.ms"),
            max_size: usize::try_from(max_size).unwrap_or(usize::MAX),
            assignors,
            allows_classic: policy != "disabled",
            allows_upgrade: matches!(policy.as_str(), "upgrade" | "bidirectional"),
            allows_downgrade: matches!(policy.as_str(), "downgrade" | "bidirectional"),
        }
    }

    /// Milliseconds between the heartbeats of a member, of so many in all groups: from 500 to 5000
    /// they send one heartbeat per millisecond together, but each three in a session. Where configs
    /// say, two: they come from several places, and nobody may be out between two heartbeats.
    pub fn heartbeat_interval_ms(&self, members: usize) -> u32 {
        let (least, most) = HEARTBEAT_INTERVAL_MS.into_inner();
        let chosen = u32::try_from(members).unwrap_or(most).clamp(least, most);
        let (interval_ms, in_a_session) = match self.heartbeat_interval_ms {
            Some(set) => (set, 2),
            None => (chosen, 3),
        };
        interval_ms.min((self.session_timeout_ms / in_a_session).max(1))
    }

    /// Milliseconds between two assignments of a group of this size. One of `elements` members and
    /// partitions costs about a microsecond each, so that a group takes a fiftieth of apply at most
    /// while its members join one by one; small groups never wait.
    pub fn assignment_interval_ms(&self, elements: u64) -> u64 {
        match self.assignment_interval_ms {
            Some(millis) => millis.into(),
            None if elements < 1_000 => 0,
            None => (elements / 20).min(1_000),
        }
    }
}

/// Milliseconds without a heartbeat until a member of the group is expired.
pub(crate) fn session_timeout_ms(group: &str, surroundings: &dyn Surroundings) -> u32 {
    let set = surroundings.group_config(group, "consumer.session.timeout.ms");
    set.and_then(|millis| millis.parse().ok()).unwrap_or(SESSION_TIMEOUT_MS)
}
