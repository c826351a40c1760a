//! Who is alive, by the leader's own monotonic clock. Heartbeats are noted and not replicated;
//! what follows from silence is proposed, and apply checks that the state judged is unchanged.
//!
//! # Invariants
//! - Everyone gets a full session when this node takes over or starts, and as much more as it was
//!   itself stalled or cut off from the majority: its own silence is never held against others, and
//!   theirs is not forgotten for it.
//! - Absent is a view (left out of node lists, undone by a heartbeat); fenced is a fact.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use aquifer_storage::{
    model::SessionId,
    seam::{MonoTime, Seams},
};

use super::{leadership::Leadership, presence::Presence, proposer::Proposer};
use crate::{
    client::FENCED_AFTER,
    machine::{
        MetadataState,
        command::{Command, GroupCommand},
        group::{command::GroupAction, types::MemberId},
    },
    raft::state_machine::MachineCell,
};

/// Silent this long, a session is left out of node lists.
pub const ABSENT_AFTER: Duration = Duration::from_millis(750);
/// A pass that comes this late was stalled, and so were the heartbeats it should have seen.
const STALLED_AFTER: Duration = Duration::from_secs(1);
const PASS_INTERVAL: Duration = Duration::from_millis(100);
/// Members are gone through a millisecond later for so many of them, and after this at the latest.
const MEMBERS_PER_MILLI: usize = 10;
const MEMBERS_JUDGED_WITHIN: Duration = Duration::from_secs(1);
/// A verdict is proposed again if the state does not show it after this long.
const PROPOSE_AGAIN_AFTER: Duration = Duration::from_secs(2);

struct SessionNote {
    heard: MonoTime,
    /// Its stream broke and it was not heard since.
    reset: bool,
    /// The last pass found it absent.
    absent: bool,
}

struct MemberNote {
    heard: MonoTime,
    /// `None` when it was heard before a pass saw it in the state.
    touched: Option<u64>,
    /// The longest its session was since it was heard: it goes by what it was told then. `None`
    /// when no pass saw it since.
    timeout: Option<Duration>,
}

#[derive(Default)]
struct Notes {
    sessions: BTreeMap<SessionId, SessionNote>,
    members: BTreeMap<(String, MemberId), MemberNote>,
    proposed: BTreeMap<Suspect, MonoTime>,
    /// The last pass that led.
    last_pass: Option<MonoTime>,
    /// A pass since then did not lead.
    has_lapsed: bool,
    /// When it last went on after more than [`STALLED_AFTER`]: agents may still look for it.
    resumed: Option<MonoTime>,
    members_judged: Option<MonoTime>,
    /// The term it was all noted in.
    led: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Suspect {
    Session(SessionId),
    Member(String, MemberId, u64),
}

impl From<Suspect> for Command {
    fn from(suspect: Suspect) -> Self {
        match suspect {
            Suspect::Session(session) => Self::FenceSession { session },
            Suspect::Member(group, member, judged) => Self::Group(GroupCommand {
                group,
                action: GroupAction::ExpireMember { member, judged },
            }),
        }
    }
}

/// What a pass over the notes concluded.
struct Verdict {
    absent: BTreeSet<SessionId>,
    propose: Vec<Suspect>,
}

/// The leader's notes. Cheap to clone.
#[derive(Clone, Default)]
pub struct Liveness(Arc<Mutex<Notes>>);

impl Liveness {
    /// A session was heard at `now`. Tells whether it counted as absent by a broken stream.
    pub fn heard_session(&self, session: SessionId, now: MonoTime) -> bool {
        let note = SessionNote { heard: now, reset: false, absent: false };
        self.notes().sessions.insert(session, note).is_some_and(|before| before.reset)
    }

    /// A session's stream broke: it is absent until it is heard again.
    pub fn stream_reset(&self, session: SessionId) {
        if let Some(note) = self.notes().sessions.get_mut(&session) {
            note.reset = true;
        }
    }

    /// A group member was heard at `now`. It must be a member by the state; the next pass forgets
    /// it if it is not.
    pub fn heard_member(&self, group: String, member: MemberId, now: MonoTime) {
        let mut notes = self.notes();
        let note = notes.members.entry((group, member)).or_insert(MemberNote {
            heard: now,
            touched: None,
            timeout: None,
        });
        (note.heard, note.timeout) = (now, None);
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.0.lock().expect("no panic while the notes are held")
    }

    fn pass(&self, now: MonoTime, leads: Option<u64>, state: &MetadataState) -> Verdict {
        let mut notes = self.notes();
        let mut verdict = Verdict { absent: BTreeSet::new(), propose: Vec::new() };
        let Some(term) = leads else {
            notes.has_lapsed = true;
            return verdict;
        };
        notes.lead_on(now, term);
        notes.judge_sessions(now, state.live_sessions(), &mut verdict);
        if notes.members_are_due(now) {
            notes.judge_members(now, state, &mut verdict);
            notes.members_judged = Some(now);
        }
        notes.hold_back_repeats(now, &mut verdict.propose);
        verdict
    }
}

impl Notes {
    /// Begins anew in another term; in the same one, leaves out the time in which nobody could be
    /// heard.
    fn lead_on(&mut self, now: MonoTime, term: u64) {
        if self.led != Some(term) {
            *self = Self { led: Some(term), ..Self::default() };
        }
        let gap = self.last_pass.map_or(Duration::ZERO, |last| now.since(last));
        if self.has_lapsed || STALLED_AFTER < gap {
            // Whoever was heard since the last pass counts as heard now.
            let later = |heard: MonoTime| (heard + gap).min(now);
            for note in self.sessions.values_mut() {
                note.heard = later(note.heard);
                note.reset &= note.absent;
            }
            self.members.values_mut().for_each(|note| note.heard = later(note.heard));
        }
        if STALLED_AFTER < gap {
            self.resumed = Some(now);
        }
        self.has_lapsed = false;
        self.last_pass = Some(now);
    }

    fn judge_sessions(&mut self, now: MonoTime, live: Vec<SessionId>, verdict: &mut Verdict) {
        let mut before = std::mem::take(&mut self.sessions);
        for session in live {
            let new = SessionNote { heard: now, reset: false, absent: false };
            let mut note = before.remove(&session).unwrap_or(new);
            let silent = now.since(note.heard);
            let since_resumed = self.resumed.filter(|_| !note.absent).map(|at| now.since(at));
            let lately = since_resumed.map_or(silent, |since| silent.min(since));
            note.absent = note.reset || ABSENT_AFTER < lately;
            if note.absent {
                verdict.absent.insert(session);
            }
            if FENCED_AFTER < silent {
                verdict.propose.push(Suspect::Session(session));
            }
            self.sessions.insert(session, note);
        }
    }

    /// A pass costs by how many members there are, and their sessions are six seconds and more.
    fn members_are_due(&self, now: MonoTime) -> bool {
        let millis = (self.members.len() / MEMBERS_PER_MILLI) as u64;
        let pause = Duration::from_millis(millis).min(MEMBERS_JUDGED_WITHIN);
        self.members_judged.is_none_or(|judged| pause <= now.since(judged))
    }

    fn judge_members(&mut self, now: MonoTime, state: &MetadataState, verdict: &mut Verdict) {
        let mut before = std::mem::take(&mut self.members);
        for one in state.group_members_for_liveness() {
            let key = (one.group.clone(), one.member.clone());
            let timeout = Duration::from_millis(u64::from(one.session_timeout_ms));
            let (heard, timeout) = match before.remove(&key) {
                Some(note) if note.touched.is_none_or(|touched| touched == one.touched) => {
                    (note.heard, note.timeout.map_or(timeout, |before| before.max(timeout)))
                }
                // New, or its joins and syncs show that it lives.
                _ => (now, timeout),
            };
            let note = MemberNote { heard, touched: Some(one.touched), timeout: Some(timeout) };
            if timeout < now.since(note.heard) {
                verdict.propose.push(Suspect::Member(key.0.clone(), key.1.clone(), one.touched));
            }
            self.members.insert(key, note);
        }
    }

    fn hold_back_repeats(&mut self, now: MonoTime, propose: &mut Vec<Suspect>) {
        self.proposed.retain(|_, at| now.since(*at) < PROPOSE_AGAIN_AFTER);
        propose.retain(|suspect| !self.proposed.contains_key(suspect));
        self.proposed.extend(propose.iter().map(|suspect| (suspect.clone(), now)));
    }
}

/// What the liveness task works with.
pub struct Watchman {
    /// The notes.
    pub liveness: Liveness,
    /// Tells whether this node leads.
    pub leadership: Leadership,
    /// Who is registered.
    pub machine: MachineCell,
    /// Where verdicts go.
    pub proposer: Proposer,
    /// Where absence is told.
    pub presence: Presence,
}

impl Watchman {
    /// Judges for ever.
    pub async fn run(self, seams: Seams) {
        loop {
            seams.sleep(PASS_INTERVAL).await;
            let leads = self.leadership.term().ok();
            let state = self.machine.lock().state.clone();
            let verdict = self.liveness.pass(seams.clock.mono(), leads, &state);
            drop(state);
            if let Some(term) = leads {
                self.presence.tell(term, verdict.absent);
            }
            for suspect in verdict.propose {
                // Not waited for: apply decides, and a lost verdict is made again.
                let _ = self.proposer.submit(suspect.into()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aquifer_storage::model::{Lineage, LogIndex};
    use bytes::Bytes;

    use super::*;
    use crate::machine::{
        Genesis,
        command::{Entry, Stamp},
        group::command::{Join, RequestId},
    };

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_zero(Duration::from_millis(millis))
    }

    fn verdict(notes: &mut Notes, now: MonoTime) -> Verdict {
        let mut verdict = Verdict { absent: BTreeSet::new(), propose: Vec::new() };
        notes.judge_sessions(now, vec![SessionId::new(1)], &mut verdict);
        notes.hold_back_repeats(now, &mut verdict.propose);
        verdict
    }

    #[test]
    fn a_silent_session_is_absent_then_fenced_and_a_heartbeat_undoes_absence() {
        let liveness = Liveness::default();
        assert!(verdict(&mut liveness.notes(), at(0)).absent.is_empty());
        assert_eq!(verdict(&mut liveness.notes(), at(751)).absent.len(), 1);
        liveness.heard_session(SessionId::new(1), at(800));
        assert!(verdict(&mut liveness.notes(), at(900)).absent.is_empty());
        assert!(verdict(&mut liveness.notes(), at(15_800)).propose.is_empty());
        assert_eq!(verdict(&mut liveness.notes(), at(15_801)).propose.len(), 1);
        assert!(verdict(&mut liveness.notes(), at(15_901)).propose.is_empty());
        assert_eq!(verdict(&mut liveness.notes(), at(17_900)).propose.len(), 1);
    }

    #[test]
    fn a_broken_stream_makes_a_session_absent_until_it_is_heard() {
        let liveness = Liveness::default();
        verdict(&mut liveness.notes(), at(0));
        liveness.stream_reset(SessionId::new(1));
        assert_eq!(verdict(&mut liveness.notes(), at(1)).absent.len(), 1);
        assert!(liveness.heard_session(SessionId::new(1), at(2)));
        assert!(verdict(&mut liveness.notes(), at(3)).absent.is_empty());
    }

    #[test]
    fn many_members_are_gone_through_less_often() {
        let mut notes = Notes::default();
        assert!(notes.members_are_due(at(5)), "the first pass of a leader");
        notes.members_judged = Some(at(5));
        assert!(notes.members_are_due(at(5)), "few");
        for (count, pause) in [(1_000, 100), (5_000, 500), (20_000, 1_000)] {
            for member in notes.members.len()..count {
                let key = ("g".to_owned(), MemberId::new(format!("m{member}")));
                notes
                    .members
                    .insert(key, MemberNote { heard: at(5), touched: None, timeout: None });
            }
            assert!(!notes.members_are_due(at(5 + pause - 1)), "{count}");
            assert!(notes.members_are_due(at(5 + pause)), "{count}");
        }
    }

    /// A state whose group `g` waits for nobody but its member `m`.
    fn of_one_member() -> MetadataState {
        let (group, member) = ("g".to_owned(), MemberId::new("m"));
        let mut state = MetadataState::new(Genesis {
            cluster_id: "c".into(),
            lineage: Lineage { number: 0, nonce: 1 },
        });
        let join = Join {
            request: RequestId { session: SessionId::new(1), number: 1 },
            member: MemberId::default(),
            proposed_member: member.clone(),
            require_known_member: false,
            instance: None,
            client_id: "c".into(),
            client_host: "h".into(),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: 6_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::new())],
            limits: None,
        };
        let action = GroupAction::Join(join);
        let join = Command::Group(GroupCommand { group: group.clone(), action });
        for (index, mono_ms) in [(1, 0), (2, 60_000)] {
            let stamp = Stamp { boot: 1, mono_ms, wall_ms: 0 };
            let commands = if index == 1 { vec![join.clone()] } else { vec![Command::Tick] };
            let entry = Entry { stamp, min_level: 0, commands };
            state.apply(LogIndex::new(index), 1, &entry);
        }
        state
    }

    fn session_timeout_ms(state: &MetadataState) -> u64 {
        let watched = state.group_members_for_liveness().into_iter().next();
        u64::from(watched.expect("it waits for nobody").session_timeout_ms)
    }

    #[test]
    fn a_leader_that_was_stalled_gives_a_silent_member_that_time_and_no_session() {
        for (stall, leads_meanwhile) in [(2_000, true), (600, false)] {
            let (state, liveness) = (of_one_member(), Liveness::default());
            let timeout = session_timeout_ms(&state);
            let judged = |now, leads| liveness.pass(at(now), leads, &state).propose.len();
            assert_eq!(judged(0, Some(1)), 0);
            assert_eq!(judged(500, Some(1)), 0);
            if !leads_meanwhile {
                assert_eq!(judged(600, None), 0);
            }
            let mut now = 500 + stall;
            while judged(now, Some(1)) == 0 && now < 2 * timeout {
                now += 100;
            }
            assert_eq!(now, timeout + stall + 100);
        }
    }

    #[test]
    fn another_term_gives_a_whole_session() {
        let (state, liveness) = (of_one_member(), Liveness::default());
        let timeout = session_timeout_ms(&state);
        let judged = |now, term| liveness.pass(at(now), Some(term), &state).propose.len();
        let mut now = 0;
        while now < timeout {
            assert_eq!(judged(now, 1), 0);
            now += 100;
        }
        let taken_over = now;
        while judged(now, 2) == 0 && now < 3 * timeout {
            now += 100;
        }
        assert_eq!(now, taken_over + timeout + 100);
    }

    #[test]
    fn agents_have_time_to_find_a_leader_that_was_stalled() {
        let mut notes = Notes::default();
        notes.lead_on(at(0), 1);
        verdict(&mut notes, at(0));
        notes.lead_on(at(600), 1);
        assert!(verdict(&mut notes, at(600)).absent.is_empty());
        // Its stream broke because of the stall.
        notes.sessions.values_mut().for_each(|note| note.reset = true);
        notes.lead_on(at(3_000), 1);
        assert!(verdict(&mut notes, at(3_000)).absent.is_empty());
        assert!(verdict(&mut notes, at(3_750)).absent.is_empty());
        assert_eq!(verdict(&mut notes, at(3_751)).absent.len(), 1);
        assert!(verdict(&mut notes, at(17_400)).propose.is_empty());
        assert_eq!(verdict(&mut notes, at(17_401)).propose.len(), 1, "2.4 s were not its own");
    }

    #[test]
    fn who_was_absent_before_a_lapse_stays_so_until_it_is_heard() {
        let (mut notes, mut now) = (Notes::default(), 0);
        notes.lead_on(at(now), 1);
        verdict(&mut notes, at(now));
        // A leader that lapses at every other pass.
        while now < 5_000 {
            now += 400;
            notes.has_lapsed = now % 800 == 0;
            notes.lead_on(at(now), 1);
            let is_absent = !verdict(&mut notes, at(now)).absent.is_empty();
            assert_eq!(is_absent, 800 < now, "{now}");
        }
        notes.sessions.clear();
        verdict(&mut notes, at(now));
        assert!(verdict(&mut notes, at(now + 100)).absent.is_empty(), "heard");
    }

    #[test]
    fn a_session_that_becomes_shorter_counts_from_the_next_heartbeat() {
        let (state, liveness) = (of_one_member(), Liveness::default());
        let timeout = session_timeout_ms(&state);
        let judge = |now| {
            let mut verdict = Verdict { absent: BTreeSet::new(), propose: Vec::new() };
            liveness.notes().judge_members(at(now), &state, &mut verdict);
            verdict.propose.len()
        };
        let hear = |now| liveness.heard_member("g".into(), MemberId::new("m"), at(now));
        hear(0);
        assert_eq!(judge(1), 0);
        // It was twice as long, and becomes what it is.
        let twice = Some(Duration::from_millis(2 * timeout));
        liveness.notes().members.values_mut().for_each(|note| note.timeout = twice);
        assert_eq!(judge(timeout + 1), 0, "it was told another");
        assert_eq!(judge(2 * timeout + 1), 1);
        hear(2 * timeout + 1);
        assert_eq!(judge(3 * timeout + 1), 0);
        assert_eq!(judge(3 * timeout + 2), 1);
    }

    #[test]
    fn a_heartbeat_before_the_first_pass_counts_from_when_it_came() {
        let state = of_one_member();
        let timeout = session_timeout_ms(&state);
        let liveness = Liveness::default();
        liveness.heard_member("g".into(), MemberId::new("m"), at(0));
        let judge = |now| {
            let mut verdict = Verdict { absent: BTreeSet::new(), propose: Vec::new() };
            liveness.notes().judge_members(at(now), &state, &mut verdict);
            verdict.propose.len()
        };
        assert_eq!(judge(timeout), 0);
        assert_eq!(judge(timeout + 1), 1, "counted from the heartbeat, not from the first pass");
        liveness.heard_member("g".into(), MemberId::new("m"), at(timeout + 2));
        assert_eq!(judge(timeout + 3), 0);
    }
}
