//! Which requests show that a group member lives: all it makes itself, as long as the group does
//! not refuse them. An agent asks for a parked member, so the question is its sign of life. [pure]

use crate::machine::{
    command::{Command, GroupReply, Reply},
    group::{
        command::{GroupAction, Progress},
        consumer::MemberEpoch,
        query::{GroupAnswer, GroupAsk},
        types::{GroupRejected, MemberId},
    },
    query::{Answer, Query},
};

/// A member and its group.
pub type Heard = (String, MemberId);

/// The member that made `query`, if `answer` says that it is one.
pub fn of_query(query: &Query, answer: &Answer) -> Option<Heard> {
    let (Query::Group(query), Answer::Group(answer)) = (query, answer) else { return None };
    let member = match (&query.ask, answer) {
        // Told to rejoin, a member may first finish what it was given: the rebalance's own timeout
        // bounds that, as in Kafka.
        (
            GroupAsk::Heartbeat { member, .. },
            GroupAnswer::Heartbeat(Ok(()) | Err(GroupRejected::RebalanceInProgress)),
        )
        | (GroupAsk::Join { member, .. }, GroupAnswer::Join(Ok(_)))
        | (GroupAsk::Sync { member, .. }, GroupAnswer::Sync(Ok(_))) => member,
        (GroupAsk::ConsumerHeartbeat(heartbeat), GroupAnswer::ConsumerHeartbeat(Some(Ok(_)))) => {
            &heartbeat.member
        }
        _ => return None,
    };
    Some((query.group.clone(), member.clone()))
}

/// What a command may turn out to be a sign of, once it was answered.
pub struct Sign {
    group: String,
    /// `None` for a join, whose reply names the member.
    member: Option<MemberId>,
}

impl Sign {
    /// Of the member that made `command`, if one did.
    pub fn of_command(command: &Command) -> Option<Self> {
        let Command::Group(command) = command else { return None };
        let member = match &command.action {
            GroupAction::Join(_) => None,
            GroupAction::Sync(sync) => Some(sync.member.clone()),
            // A simple consumer is nobody's member.
            GroupAction::CommitOffsets(commit) if commit.generation.is_some() => {
                Some(commit.member.clone())
            }
            // Who leaves is silent from then on.
            GroupAction::ConsumerHeartbeat(heartbeat) if MemberEpoch::JOINS <= heartbeat.epoch => {
                Some(heartbeat.member.clone())
            }
            _ => return None,
        };
        Some(Self { group: command.group.clone(), member })
    }

    /// The member, if `reply` says that it is one.
    pub fn heard(self, reply: &Reply) -> Option<Heard> {
        let Reply::Group(reply) = reply else { return None };
        let member = match reply {
            GroupReply::Join(Ok(Progress::Ready(joined))) => Some(joined.member.clone()),
            GroupReply::Join(Ok(Progress::Pending { member, .. })) => Some(member.clone()),
            GroupReply::Sync(Ok(_))
            | GroupReply::CommitOffsets(Ok(_))
            | GroupReply::ConsumerHeartbeat(Ok(_)) => self.member,
            _ => None,
        };
        Some((self.group, member?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::group::{
        command::{CommitOffsets, GroupCommand, RequestId},
        consumer::command::{ConsumerHeartbeat, ConsumerHeartbeatResult, ConsumerRejected},
        query::GroupQuery,
        types::GenerationId,
    };
    use aquifer_storage::model::SessionId;

    fn member() -> MemberId {
        MemberId::new("m")
    }

    fn parked() -> Query {
        let request = RequestId { session: SessionId::new(1), number: 1 };
        let ask = GroupAsk::Join { member: member(), request };
        Query::Group(GroupQuery { group: "g".into(), ask })
    }

    #[test]
    fn a_question_for_a_parked_member_is_a_sign_of_life_unless_it_is_refused() {
        let pending = Progress::Pending { member: member(), version: 3 };
        let answer = Answer::Group(GroupAnswer::Join(Ok(pending)));
        assert_eq!(of_query(&parked(), &answer), Some(("g".into(), member())));
        let refused = Answer::Group(GroupAnswer::Join(Err(GroupRejected::UnknownMember)));
        assert_eq!(of_query(&parked(), &refused), None);
    }

    #[test]
    fn a_heartbeat_is_a_sign_of_life_also_of_a_member_that_is_told_to_rejoin() {
        let generation = GenerationId::new(1);
        let ask = GroupAsk::Heartbeat { member: member(), instance: None, generation };
        let beat = Query::Group(GroupQuery { group: "g".into(), ask });
        let heard = |answer| of_query(&beat, &Answer::Group(GroupAnswer::Heartbeat(answer)));
        assert!(heard(Ok(())).is_some());
        assert!(heard(Err(GroupRejected::RebalanceInProgress)).is_some());
        assert!(heard(Err(GroupRejected::IllegalGeneration)).is_none());
    }

    #[test]
    fn a_consumers_heartbeat_is_a_sign_of_life_until_it_leaves() {
        let heartbeat = |epoch| ConsumerHeartbeat {
            member: member(),
            epoch: MemberEpoch::new(epoch),
            instance: None,
            rack: None,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: None,
            subscribed: None,
            regex: None,
            assignor: None,
            owned: None,
        };
        let taken = ConsumerHeartbeatResult {
            member: member(),
            epoch: MemberEpoch::new(1),
            heartbeat_interval_ms: 5_000,
            assignment: None,
        };
        let rejected =
            ConsumerRejected { kind: GroupRejected::FencedMemberEpoch, message: String::new() };
        let ask = GroupAsk::ConsumerHeartbeat(Box::new(heartbeat(1)));
        let beat = Query::Group(GroupQuery { group: "g".into(), ask });
        let asked =
            |answer| of_query(&beat, &Answer::Group(GroupAnswer::ConsumerHeartbeat(answer)));
        assert_eq!(asked(Some(Ok(taken.clone()))), Some(("g".into(), member())));
        assert_eq!(asked(Some(Err(rejected.clone()))), None);
        assert_eq!(asked(None), None, "the proposal will show it");
        let sign = |epoch| {
            let action = GroupAction::ConsumerHeartbeat(Box::new(heartbeat(epoch)));
            Sign::of_command(&Command::Group(GroupCommand { group: "g".into(), action }))
        };
        let heard = |answer| {
            let reply = Reply::Group(GroupReply::ConsumerHeartbeat(answer));
            sign(0).and_then(|sign| sign.heard(&reply))
        };
        assert_eq!(heard(Ok(taken)), Some(("g".into(), member())));
        assert_eq!(heard(Err(rejected)), None);
        assert!(sign(-1).is_none() && sign(-2).is_none());
    }

    #[test]
    fn an_offset_commit_is_a_sign_of_life_of_a_member_and_not_of_a_simple_consumer() {
        let sign = |generation| {
            let commit = CommitOffsets {
                member: member(),
                instance: None,
                generation,
                knows_epochs: true,
                offsets: vec![],
            };
            let action = GroupAction::CommitOffsets(commit);
            Sign::of_command(&Command::Group(GroupCommand { group: "g".into(), action }))
        };
        let reply = Reply::Group(GroupReply::CommitOffsets(Ok(vec![])));
        let heard = sign(Some(GenerationId::new(1))).and_then(|sign| sign.heard(&reply));
        assert_eq!(heard, Some(("g".into(), member())));
        assert!(sign(None).is_none());
    }
}
