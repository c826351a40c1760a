//! Kafka's node ids, interned per advertised address for ever (DESIGN 6): a restarted agent keeps
//! its id, and agents behind one load balancer are one node.

use aquifer_storage::model::NodeId;
use rpds::RedBlackTreeMapSync;

use super::command::HostPort;

/// The node id of every address ever advertised.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Nodes {
    by_address: RedBlackTreeMapSync<HostPort, NodeId>,
}

impl Nodes {
    /// The address's id, given to it now if it is new. Ids count from 1.
    pub fn intern(&mut self, address: &HostPort) -> NodeId {
        if let Some(id) = self.by_address.get(address) {
            return *id;
        }
        let count = i32::try_from(self.by_address.size()).expect("2^31 addresses outlast us");
        let id = NodeId::new(count).next();
        self.by_address.insert_mut(address.clone(), id);
        id
    }

    /// Every address with its id.
    pub fn iter(&self) -> impl Iterator<Item = (&HostPort, NodeId)> {
        self.by_address.iter().map(|(address, id)| (address, *id))
    }

    /// Puts an address in place, from a snapshot.
    pub fn restore(&mut self, address: HostPort, id: NodeId) {
        self.by_address.insert_mut(address, id);
    }
}
