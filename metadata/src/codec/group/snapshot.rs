//! Every group as one message and back. What can be derived (support, instances, deadlines) is
//! not written; what is read is judged by the group's invariants before it is used.

use bytes::Bytes;
use rpds::{RedBlackTreeMapSync as Map, RedBlackTreeSetSync as Set};

use super::{
    CodecError, assignment_from_proto, assignment_to_proto, committed_from_proto,
    committed_to_proto, consumer_snapshot, partition_from_proto, partition_to_proto,
    protocols_from_proto, protocols_to_proto, request_from_proto, request_to_proto, text,
};
use crate::{
    machine::{
        group::{
            GroupSettings, Groups,
            state::{
                Group, InitialDelay, Member, PendingMember, Phase, Preparing, StoredOffset, Syncing,
            },
            types::{GenerationId, MemberId},
        },
        time::{Elapsed, WallTime},
    },
    proto,
};

use proto::group_snapshot::Phase as PhaseKind;

/// All groups as a message.
pub fn groups_to_proto(groups: &Groups) -> proto::GroupsSnapshot {
    let settings = groups.settings();
    proto::GroupsSnapshot {
        version: groups.counter(),
        initial_rebalance_delay_ms: settings.initial_rebalance_delay_ms,
        max_size: settings.max_size,
        catalog: groups.catalog(),
        groups: groups.iter().map(|(name, group)| group_to_proto(name, group)).collect(),
    }
}

/// All groups from a message.
pub fn groups_from_proto(snapshot: proto::GroupsSnapshot) -> Result<Groups, CodecError> {
    let settings = GroupSettings {
        initial_rebalance_delay_ms: snapshot.initial_rebalance_delay_ms,
        max_size: snapshot.max_size,
        ..GroupSettings::default()
    };
    let groups = snapshot.groups.into_iter().map(group_from_proto);
    let groups: Vec<(String, Group)> = groups.collect::<Result<_, _>>()?;
    let counters = (snapshot.version, snapshot.catalog);
    Groups::restore(settings, counters, groups).map_err(CodecError::Invalid)
}

fn group_to_proto(name: &str, group: &Group) -> proto::GroupSnapshot {
    proto::GroupSnapshot {
        group: name.to_owned(),
        version: group.version,
        generation: group.generation.value(),
        protocol_type: group.protocol_type.clone(),
        protocol: group.protocol.clone(),
        leader: group.leader.as_ref().map(text),
        phase: Some(phase_to_proto(&group.phase)),
        members: group.members.iter().map(|(id, member)| member_to_proto(id, member)).collect(),
        consumer: group.consumer.as_ref().map(consumer_snapshot::to_proto),
        pending: group.pending.iter().map(|(id, pending)| pending_to_proto(id, pending)).collect(),
        offsets: group
            .offsets
            .iter()
            .map(|(partition, stored)| proto::GroupOffsetSnapshot {
                partition: Some(partition_to_proto(partition)),
                committed: Some(committed_to_proto(&stored.committed)),
                committed_wall_ms: stored.at.millis(),
            })
            .collect(),
    }
}

fn group_from_proto(snapshot: proto::GroupSnapshot) -> Result<(String, Group), CodecError> {
    let phase = snapshot.phase.ok_or(CodecError::Missing("group phase"))?;
    let mut group = Group::default();
    for member in snapshot.members {
        let id = MemberId::new(member.member.clone());
        if group.members.contains_key(&id) {
            return Err(CodecError::Invalid("repeated group member"));
        }
        group.insert_member(id, member_from_proto(member)?, "");
    }
    for pending in snapshot.pending {
        let deadline = Elapsed::from_millis(pending.deadline_ms);
        let request = request_from_proto(pending.request)?;
        let id = MemberId::new(pending.member);
        group.pending.insert_mut(id, PendingMember { deadline, request });
    }
    for stored in snapshot.offsets {
        let partition = partition_from_proto(stored.partition)?;
        let committed = committed_from_proto(stored.committed)?;
        let at = WallTime::from_millis(stored.committed_wall_ms);
        group.offsets.insert_mut(partition, StoredOffset { committed, at });
    }
    group.version = snapshot.version;
    group.generation = GenerationId::new(snapshot.generation);
    group.protocol_type = snapshot.protocol_type;
    group.protocol = snapshot.protocol;
    group.leader = snapshot.leader.map(MemberId::new);
    group.phase = phase_from_proto(phase);
    group.consumer = snapshot.consumer.map(consumer_snapshot::from_proto).transpose()?;
    Ok((snapshot.group, group))
}

fn phase_to_proto(phase: &Phase) -> PhaseKind {
    match phase {
        Phase::Empty { since } => {
            PhaseKind::Empty(proto::GroupEmptyPhase { since_wall_ms: since.map(WallTime::millis) })
        }
        Phase::PreparingRebalance(preparing) => PhaseKind::Preparing(proto::GroupPreparingPhase {
            joined: preparing.joined.iter().map(text).collect(),
            deadline_ms: preparing.deadline.millis(),
            initial: preparing.initial.map(|initial| proto::GroupInitialDelay {
                remaining_ms: initial.remaining_ms,
                newcomer: initial.newcomer,
                delay_ms: initial.delay_ms,
            }),
        }),
        Phase::CompletingRebalance(syncing) => PhaseKind::Completing(syncing_to_proto(syncing)),
        Phase::Stable { assignments, syncing } => {
            let assignments = assignments.iter();
            PhaseKind::Stable(proto::GroupStablePhase {
                assignments: assignments
                    .map(|(id, given)| assignment_to_proto(id, given))
                    .collect(),
                syncing: syncing.as_ref().map(syncing_to_proto),
            })
        }
    }
}

fn phase_from_proto(phase: PhaseKind) -> Phase {
    match phase {
        PhaseKind::Empty(empty) => {
            Phase::Empty { since: empty.since_wall_ms.map(WallTime::from_millis) }
        }
        PhaseKind::Preparing(preparing) => Phase::PreparingRebalance(Preparing {
            joined: members(preparing.joined),
            deadline: Elapsed::from_millis(preparing.deadline_ms),
            initial: preparing.initial.map(|initial| InitialDelay {
                remaining_ms: initial.remaining_ms,
                newcomer: initial.newcomer,
                delay_ms: initial.delay_ms,
            }),
        }),
        PhaseKind::Completing(syncing) => Phase::CompletingRebalance(syncing_from_proto(syncing)),
        PhaseKind::Stable(stable) => {
            let assignments: Map<MemberId, Bytes> =
                stable.assignments.into_iter().map(assignment_from_proto).collect();
            Phase::Stable { assignments, syncing: stable.syncing.map(syncing_from_proto) }
        }
    }
}

fn syncing_to_proto(syncing: &Syncing) -> proto::GroupSyncingPhase {
    proto::GroupSyncingPhase {
        unsynced: syncing.unsynced.iter().map(text).collect(),
        deadline_ms: syncing.deadline.millis(),
    }
}

fn syncing_from_proto(syncing: proto::GroupSyncingPhase) -> Syncing {
    let deadline = Elapsed::from_millis(syncing.deadline_ms);
    Syncing { unsynced: members(syncing.unsynced), deadline }
}

fn members(ids: Vec<String>) -> Set<MemberId> {
    ids.into_iter().map(MemberId::new).collect()
}

fn member_to_proto(id: &MemberId, member: &Member) -> proto::GroupMemberSnapshot {
    proto::GroupMemberSnapshot {
        member: text(id),
        instance: member.instance.clone(),
        replaced: member.replaced.as_ref().map(text),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        session_timeout_ms: member.session_timeout_ms,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        protocols: protocols_to_proto(&member.protocols),
        request: Some(request_to_proto(member.request)),
        touched: member.touched,
        order: member.order,
        is_new: member.is_new,
        skip_assignment: member.skip_assignment,
    }
}

fn member_from_proto(member: proto::GroupMemberSnapshot) -> Result<Member, CodecError> {
    Ok(Member {
        instance: member.instance,
        replaced: member.replaced.map(MemberId::new),
        client_id: member.client_id,
        client_host: member.client_host,
        session_timeout_ms: member.session_timeout_ms,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        protocols: protocols_from_proto(member.protocols).into(),
        request: request_from_proto(member.request)?,
        touched: member.touched,
        order: member.order,
        is_new: member.is_new,
        skip_assignment: member.skip_assignment,
    })
}

fn pending_to_proto(id: &MemberId, pending: &PendingMember) -> proto::GroupPendingMemberSnapshot {
    proto::GroupPendingMemberSnapshot {
        member: text(id),
        deadline_ms: pending.deadline.millis(),
        request: Some(request_to_proto(pending.request)),
    }
}
