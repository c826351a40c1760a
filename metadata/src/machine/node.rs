//! Kafka's node ids, interned per advertised address until it is unregistered (DESIGN 6): a
//! restarted agent keeps its id, and agents behind one load balancer are one node.
//!
//! # Invariants
//! - An id is never given twice, also after its address was forgotten.

use aquifer_storage::model::NodeId;
use rpds::RedBlackTreeMapSync;

use super::command::HostPort;

/// The node id of every address ever advertised and not forgotten.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Nodes {
    by_address: RedBlackTreeMapSync<HostPort, NodeId>,
    /// The last id given.
    last: i32,
}

impl Nodes {
    /// The address's id, given to it now if it is new. Ids count from 1.
    pub fn intern(&mut self, address: &HostPort) -> NodeId {
        if let Some(id) = self.by_address.get(address) {
            return *id;
        }
        let id = NodeId::new(self.last).next();
        self.restore(address.clone(), id);
        id
    }

    /// Forgets a node. Whether there was one.
    pub fn forget(&mut self, node: NodeId) -> bool {
        let found = self.iter().find(|(_, id)| *id == node).map(|(address, _)| address.clone());
        found.is_some_and(|address| self.by_address.remove_mut(&address))
    }

    /// The last id given; 0 before the first.
    pub fn last(&self) -> NodeId {
        NodeId::new(self.last)
    }

    /// Sets the last id given, from a snapshot.
    pub fn restore_last(&mut self, last: NodeId) {
        self.last = self.last.max(last.value());
    }

    /// Every address with its id.
    pub fn iter(&self) -> impl Iterator<Item = (&HostPort, NodeId)> {
        self.by_address.iter().map(|(address, id)| (address, *id))
    }

    /// Puts an address in place, from a snapshot.
    pub fn restore(&mut self, address: HostPort, id: NodeId) {
        self.restore_last(id);
        self.by_address.insert_mut(address, id);
    }
}
