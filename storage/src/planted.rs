//! Mistakes put in on purpose, to see the simulator catch them: `cargo sim --plant`.
//!
//! Only a build with `--cfg planted` has them, which the simulator's aliases give, and in it only
//! the thread that asked for one: a simulated world runs on one. In every other build [`is`] is
//! `false` at compile time, and nothing of a mistake is left.

#[cfg(planted)]
use std::cell::Cell;

/// Lists every mistake once: its variant, the name it is asked for by, and what is wrong.
macro_rules! bugs {
    ($($variant:ident = $name:literal: $what:literal,)+) => {
        /// A mistake that somebody could make.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $(#[doc = $what] $variant,)+
        }

        impl Bug {
            /// Every mistake.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// What it is asked for by.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What is wrong.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$variant => $what,)+
                }
            }
        }
    };
}

bugs! {
    AckBeforeApply = "ack-before-apply":
        "a leader answers what an entry will do, as soon as Raft was given it",
    AckOnAppend = "ack-on-append":
        "a leader answers once an entry is durable on its own disk, before a majority has it",
    DedupeNotInSnapshot = "dedupe-not-in-snapshot":
        "a snapshot leaves out what producers sent last",
    DedupeWindowOne = "dedupe-window-1":
        "one batch per producer is remembered, not five",
    ForeignHighWatermark = "hwm-of-another-partition":
        "partitions of one part are told the high watermark of the first of them",
    CommitRetryApplied = "commit-retry-applied":
        "a part that was applied before is applied again",
    FenceFromMemory = "fence-from-memory":
        "apply leaves it to the leader's memory to turn away a fenced session",
    OffsetZeroOnError = "offset-0-on-error":
        "a refused batch is answered with offset 0",
    UnknownAsFailed = "unknown-as-failed":
        "an unknown outcome is answered as a definite failure",
    RefusedPutLanded = "refused-put-landed":
        "a PUT that the store refused counts as landed",
    SkipOn404 = "skip-on-404":
        "rows of an object that is not there are left out of an answer",
    CacheUnchecked = "cache-unchecked":
        "what enters the cache is not checked",
    VoteNotSynced = "vote-not-fsynced":
        "a vote counts before it is durable",
    LogNotSynced = "log-not-fsynced":
        "the log is written and never fsynced",
    LeaseFromAnswer = "lease-from-answer":
        "an agent counts its silence from a heartbeat's answer, not from its question",
    MonoFromWall = "clock-from-wall-time":
        "the replicated state measures durations with the wall clock",
    HeldPartitionGiven = "held-partition-given":
        "a member of a consumer group gets a partition that another has not given up",
    StaleEpochCommitted = "stale-epoch-committed":
        "a commit of an older member epoch is taken, whatever the member still has",
    GenerationIgnored = "generation-ignored":
        "a commit of an older generation of a classic group is taken",
    ExpiryIgnoresMembers = "expiry-ignores-members":
        "committed offsets expire by their age alone, whoever reads their topic",
    FencedKeepsPartitions = "fenced-keeps-partitions":
        "what a member held that is put out of a consumer group is not free",
    SilenceIgnored = "silence-ignored":
        "members of consumer groups are never put out for being silent",
}

#[cfg(planted)]
thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    static REACHED: Cell<u64> = const { Cell::new(0) };
}

/// Whether this thread shall make the mistake now.
#[cfg(planted)]
pub fn is(bug: Bug) -> bool {
    let planted = PLANTED.get() == Some(bug);
    if planted {
        REACHED.set(REACHED.get() + 1);
    }
    planted
}

/// Never: this build makes no mistakes on purpose.
#[cfg(not(planted))]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}

/// Makes the mistake on this thread from now on; `None` makes none.
#[cfg(planted)]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
    REACHED.set(0);
}

/// How often the place of the mistake was reached since it was planted: else it cannot be
/// caught.
#[cfg(planted)]
pub fn reached() -> u64 {
    REACHED.get()
}
