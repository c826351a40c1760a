//! A group through everything that may happen to it: members join, leave and are killed, others
//! come, the broker is killed, everybody leaves and someone takes over.

use std::time::Duration;

use anyhow::ensure;
use aquifer_tests::{
    client::{Client, Protocol},
    process::Place,
};

use super::{PARTITIONS, full, world::World};

/// Who takes which part.
pub struct Cast {
    protocol: Protocol,
    stays: Client,
    leaves: Client,
    killed: Client,
    newcomer: Client,
    /// Takes over when everyone has left.
    last: Client,
    /// Whether members keep their membership when their coordinator goes and comes back.
    keeps_membership: bool,
    /// Whether records come while members find the broker again.
    reads_at_once: bool,
}

impl Cast {
    /// One client in all parts but the last.
    pub fn alone(client: Client, protocol: Protocol, last: Client) -> Self {
        Self::mixed([client; 4], protocol, last)
    }

    /// Who stays, leaves, is killed and comes.
    pub fn mixed(clients: [Client; 4], protocol: Protocol, last: Client) -> Self {
        let [stays, leaves, killed, newcomer] = clients;
        let (keeps_membership, reads_at_once) = (true, true);
        Self { protocol, stays, leaves, killed, newcomer, last, keeps_membership, reads_at_once }
    }

    /// The same of clients that join anew when they lost their connection for a while.
    pub fn that_rejoins(self) -> Self {
        Self { keeps_membership: false, ..self }
    }

    /// The same of clients that do not tell a commit that was lost from one whose answer was: which
    /// of them read a record is then nobody's to say.
    pub fn whose_commits_are_lost(self) -> Self {
        Self { reads_at_once: false, ..self }
    }

    /// The protocol, and who the members were.
    pub fn parts(&self) -> (Protocol, [Client; 4]) {
        (self.protocol, [self.stays, self.leaves, self.killed, self.newcomer])
    }

    /// As the client programs or the coordinator set it.
    fn session_timeout(&self) -> Duration {
        Duration::from_secs(if self.protocol == Protocol::Consumer { 45 } else { 6 })
    }

    fn tell(&self, what: &str, took: Duration) {
        let (protocol, clients) = self.parts();
        eprintln!("{protocol:?} {clients:?}: {what} {took:?}");
    }

    /// Goes through all of it.
    ///
    /// # Errors
    /// A record is not consumed once, or somebody waits for too long.
    pub fn play(&self) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut place = Place::new(folder.path().join("data"))?;
        place.arguments = ["--num-partitions", &PARTITIONS.to_string()].map(str::to_owned).to_vec();
        let mut broker = place.up()?;
        let mut world = World::new(place.kafka, folder, PARTITIONS);
        world.protocol = self.protocol;
        let (stays, newcomer) = self.come_and_go(&mut world)?;

        let before = world.rebalances(&[stays, newcomer]);
        broker.kill()?;
        let _broker = place.up()?;
        if self.reads_at_once {
            world.produce("restarted")?;
            world.consumed_once()?;
        }
        if self.keeps_membership {
            // Longer than a session: members the broker lost would have been told by now.
            if self.protocol != Protocol::Consumer {
                std::thread::sleep(self.session_timeout() + Duration::from_secs(1));
            }
            let after = world.rebalances(&[stays, newcomer]);
            ensure!(before == after, "the broker's restart rebalanced: {before:?}, then {after:?}");
        }

        world.members[stays].leave()?;
        world.members[newcomer].leave()?;
        let last = world.start(self.last)?;
        self.tell("the last one joined within", world.settled(&[last])?);
        world.produce("last")?;
        world.consumed_once()?;
        world.members[last].leave()?;
        world.is(self.protocol, "Empty", 0)
    }

    /// Members join, one leaves, one is killed, another comes; two are left.
    fn come_and_go(&self, world: &mut World) -> anyhow::Result<(usize, usize)> {
        world.produce("joined")?;
        let stays = world.start(self.stays)?;
        let leaves = world.start(self.leaves)?;
        let killed = world.start(self.killed)?;
        self.tell("three joined within", world.settled(&[stays, leaves, killed])?);
        world.is(self.protocol, "Stable", 3)?;
        world.consumed_once()?;

        world.members[leaves].leave()?;
        let took = world.settled(&[stays, killed])?;
        self.tell("one left, the others went on after", took);
        let most = self.session_timeout();
        ensure!(took < most, "a member that leaves is not waited for, but {took:?}");
        world.produce("left")?;
        world.consumed_once()?;

        self.kill(world, stays, killed)?;
        world.produce("killed")?;
        world.consumed_once()?;

        let newcomer = world.start(self.newcomer)?;
        self.tell("another joined within", world.settled(&[stays, newcomer])?);
        world.is(self.protocol, "Stable", 2)?;
        world.produce("another")?;
        world.consumed_once()?;
        Ok((stays, newcomer))
    }

    fn kill(&self, world: &mut World, stays: usize, killed: usize) -> anyhow::Result<()> {
        if self.protocol == Protocol::Consumer && !full() {
            // Its session is 45 s at least; consumer_groups.rs waits for one.
            return world.members[killed].leave();
        }
        world.members[killed].kill()?;
        let took = world.settled(&[stays])?;
        self.tell("one was killed, the other went on after", took);
        // Its last heartbeat was at most an interval before: half a second, or 5.
        let least = self.session_timeout()
            - Duration::from_secs(if self.protocol == Protocol::Consumer { 7 } else { 2 });
        ensure!(least < took, "expired already after {took:?}");
        ensure!(took < 3 * self.session_timeout(), "expired only after {took:?}");
        Ok(())
    }
}
