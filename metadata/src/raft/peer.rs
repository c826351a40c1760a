//! Who may speak to whom: every message between nodes names both ends, and one that is not meant
//! for this node, or comes from nobody it should listen to, is refused with what to do. [pure]
//!
//! A node is its id *and* its data folder. The folder draws an incarnation when it is made, which
//! the membership records: so a node that lost its log, and with it what it voted for, is a
//! stranger under its old id, to the others and to itself.

use aquifer_storage::model::Lineage;

use super::Member;
use crate::proto::{self, Refusal, refusal::Kind};

/// The version of the messages between nodes. A node refuses what is newer.
pub const PEER_VERSION: u32 = 1;

/// This node, as it names itself to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Myself {
    /// Its cluster.
    pub cluster_id: String,
    /// The life of it.
    pub lineage: Lineage,
    /// Its id.
    pub id: u64,
    /// Of its data folder.
    pub incarnation: u64,
}

impl Myself {
    /// Names this node in a message to `to`.
    pub fn speaking_to(&self, to: u64, member: &Member) -> proto::Peer {
        let Lineage { number, nonce } = self.lineage;
        proto::Peer {
            version: PEER_VERSION,
            cluster_id: self.cluster_id.clone(),
            lineage: Some(proto::Lineage { number, nonce }),
            from: self.id,
            from_incarnation: self.incarnation,
            to,
            to_incarnation: member.incarnation,
        }
    }

    /// Whether a message may be read. `member` is who the membership says that an id is.
    ///
    /// # Errors
    /// The refusal, which says what to do.
    pub fn admit(
        &self,
        peer: Option<&proto::Peer>,
        member: impl Fn(u64) -> Option<Member>,
    ) -> Result<u64, Refusal> {
        let Some(peer) = peer else {
            return Err(refuse(Kind::Malformed, "the message does not name its sender".into()));
        };
        let Myself { cluster_id, id, .. } = self;
        let (version, from, to) = (peer.version, peer.from, peer.to);
        if PEER_VERSION < version {
            let reason = format!(
                "node {from} speaks version {version} and node {id} up to {PEER_VERSION}: upgrade \
                 node {id} first"
            );
            return Err(refuse(Kind::LevelTooHigh, reason));
        }
        if peer.cluster_id != *cluster_id {
            let reason = format!(
                "node {from} is of cluster {}, and node {id} here of cluster {cluster_id}: check \
                 the addresses in --voters or --join",
                peer.cluster_id
            );
            return Err(refuse(Kind::ForeignCluster, reason));
        }
        self.same_life(peer)?;
        if to != *id {
            let reason = format!("this is node {id}, not node {to}: check the addresses");
            return Err(refuse(Kind::Rejected, reason));
        }
        let mine = [peer.to_incarnation, member(*id).map_or(0, |me| me.incarnation)];
        if mine.iter().any(|known| *known != 0 && *known != self.incarnation) {
            return Err(lost_log(*id));
        }
        let known = member(from).map_or(0, |member| member.incarnation);
        if known != 0 && known != peer.from_incarnation {
            return Err(lost_log(from));
        }
        Ok(from)
    }

    fn same_life(&self, peer: &proto::Peer) -> Result<(), Refusal> {
        let (from, id) = (peer.from, self.id);
        let theirs = peer.lineage.unwrap_or_default();
        let theirs = Lineage { number: theirs.number, nonce: theirs.nonce };
        if theirs == self.lineage {
            return Ok(());
        }
        let (old, new) = if theirs.number < self.lineage.number { (from, id) } else { (id, from) };
        let reason = format!(
            "node {from} is of lineage {theirs} and node {id} of {}: the cluster was restored; \
             node {old} is of the life before that of node {new}: start it anew, with an empty \
             --data and --join",
            self.lineage
        );
        Err(refuse(Kind::ForeignCluster, reason))
    }
}

fn lost_log(id: u64) -> Refusal {
    let reason = format!(
        "node {id} of this cluster was started on another --data folder, and what it voted for is \
         there: start it on that folder, or remove node {id} and start this one with an empty \
         --data and --join"
    );
    refuse(Kind::Fenced, reason)
}

fn refuse(kind: Kind, reason: String) -> Refusal {
    Refusal { kind: kind.into(), reason, leader: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(number: u32) -> Lineage {
        Lineage { number, nonce: 7 }
    }

    fn node(id: u64) -> Myself {
        Myself { cluster_id: "ours".into(), lineage: lineage(2), id, incarnation: 100 + id }
    }

    fn member(id: u64) -> Option<Member> {
        (id <= 3).then(|| Member { address: format!("host-{id}:1"), incarnation: 100 + id })
    }

    fn said(change: impl FnOnce(&mut proto::Peer)) -> Result<u64, Refusal> {
        let mut peer = node(2).speaking_to(1, &member(1).unwrap());
        change(&mut peer);
        node(1).admit(Some(&peer), member)
    }

    #[test]
    fn a_member_is_heard_and_so_is_one_that_the_membership_does_not_have_yet() {
        assert_eq!(said(|_| {}), Ok(2));
        assert_eq!(said(|peer| peer.from = 9), Ok(9));
        assert_eq!(said(|peer| peer.to_incarnation = 0), Ok(2), "it does not know the folder yet");
    }

    #[test]
    fn whoever_should_not_be_heard_is_told_what_to_do() {
        let refused = |change: fn(&mut proto::Peer), kind, advice: &str| {
            let refusal = said(change).unwrap_err();
            assert_eq!(refusal.kind(), kind, "{}", refusal.reason);
            assert!(refusal.reason.contains(advice), "{}", refusal.reason);
        };
        refused(|peer| peer.version += 1, Kind::LevelTooHigh, "upgrade node 1");
        refused(|peer| peer.cluster_id = "theirs".into(), Kind::ForeignCluster, "--voters");
        let older = |peer: &mut proto::Peer| {
            peer.lineage = Some(proto::Lineage { number: 1, nonce: 7 });
        };
        refused(older, Kind::ForeignCluster, "node 2 is of the life before");
        let newer = |peer: &mut proto::Peer| {
            peer.lineage = Some(proto::Lineage { number: 3, nonce: 7 });
        };
        refused(newer, Kind::ForeignCluster, "node 1 is of the life before");
        refused(|peer| peer.lineage = None, Kind::ForeignCluster, "restored");
        refused(|peer| peer.to = 3, Kind::Rejected, "check the addresses");
        refused(|peer| peer.from_incarnation = 5, Kind::Fenced, "node 2 of this cluster");
        refused(|peer| peer.to_incarnation = 5, Kind::Fenced, "node 1 of this cluster");
        assert_eq!(node(1).admit(None, member).unwrap_err().kind(), Kind::Malformed);
    }

    #[test]
    fn a_node_on_a_new_folder_is_a_stranger_to_itself_too() {
        let wiped = Myself { incarnation: 5, ..node(1) };
        let mut peer = node(2).speaking_to(1, &member(1).unwrap());
        peer.to_incarnation = 0;
        assert_eq!(wiped.admit(Some(&peer), member).unwrap_err().kind(), Kind::Fenced);
    }
}
