//! Members of groups, of both protocols, and what they do besides: commit, look at what is
//! committed, stand still, leave, crash, come back, and commit what is not theirs any more.

pub mod classic;
pub mod consumer;
pub mod ledger;
mod requests;

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    Client,
    connection::{Connection, Refused},
};
use crate::{
    history::{Key, Nanos, groups::MemberNumber},
    sim::groups::Group,
};

/// Clients give a connection up when nothing comes for so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause is of so many session timeouts.
const PAUSE_SESSIONS_MAX: u32 = 3;

/// Codes that tell nothing of the group: another agent, or the same one later, may know.
const COORDINATOR_AWAY: &[i16] = &[7, 14, 15, 16];
const FENCED_INSTANCE: i16 = 82;
const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const NO_SUCH_GROUP: i16 = 69;
const FENCED_EPOCH: i16 = 110;
const UNRELEASED_INSTANCE: i16 = 111;
const STALE_EPOCH: i16 = 113;

/// A place in a group that a client takes, again and again.
#[derive(Clone)]
pub struct Seat {
    /// The group.
    pub group: Arc<Group>,
    /// The number in its `group.instance.id`, of a static member.
    pub instance: Option<u32>,
    /// It misbehaves once in so many rounds.
    pub misbehaves_one_in: u64,
}

impl Seat {
    fn instance_id(&self) -> Option<String> {
        self.instance.map(|number| format!("seat{number}"))
    }
}

/// Who a commit is from.
#[derive(Clone)]
struct Committer {
    member: MemberNumber,
    id: String,
    instance: Option<String>,
    epoch: i32,
    /// What it holds, or held, each with the time it was last told so.
    held: Vec<(Key, Nanos)>,
}

/// What a member does that a good one does not.
enum Mischief {
    /// It does nothing for a while, and commits before it hears what happened meanwhile.
    Pause(Duration),
    /// It leaves, and comes back after a while.
    Leave(Duration),
    /// It is gone without a word, and somebody else takes its place after a while.
    Crash(Duration),
}

/// What it does next, if that is not what it should.
fn mischief(client: &Client, seat: &Seat) -> Option<Mischief> {
    if client.shared.is_calm() || !client.rng.one_in(seat.misbehaves_one_in) {
        return None;
    }
    let session = seat.group.session;
    let short = client.rng.between(Duration::ZERO, session / 2);
    Some(match client.rng.below(5) {
        0 => Mischief::Pause(session / 2),
        1 => Mischief::Pause(session + short),
        2 => Mischief::Pause(session * PAUSE_SESSIONS_MAX),
        3 => Mischief::Leave(short),
        _ => Mischief::Crash(short * 2),
    })
}

/// Rests; wakes when everybody shall behave.
async fn rest(client: &Client, lasts: Duration) {
    let ends = Instant::now() + lasts;
    while Instant::now() < ends && !client.shared.is_calm() {
        sleep(Duration::from_millis(100).min(ends - Instant::now())).await;
    }
}

/// A member of either protocol, as far as mischief goes.
trait Unruly {
    fn client(&self) -> &Client;

    fn seat(&self) -> &Seat;

    /// Who its commits are from now.
    fn committer(&self) -> Committer;

    /// It is nobody any more; whoever takes its place is another.
    fn forget(&mut self);

    /// Leaves, whether it hears an answer or not.
    async fn leave(&mut self, connection: &mut Connection) -> Result<(), Refused>;

    async fn misbehave(
        &mut self,
        mischief: Mischief,
        connection: &mut Connection,
    ) -> Result<(), Refused> {
        let before = self.committer();
        match mischief {
            Mischief::Pause(lasts) => {
                self.client().note(&format!("{} stands still for {lasts:?}", before.id));
                rest(self.client(), lasts).await;
                let held = &before.held;
                requests::commit(self.client(), connection, self.seat(), &before, held).await
            }
            Mischief::Leave(lasts) => {
                self.leave(connection).await?;
                rest(self.client(), lasts).await;
                Ok(())
            }
            Mischief::Crash(lasts) => {
                self.client().note(&format!("{} crashes", before.id));
                self.forget();
                rest(self.client(), lasts).await;
                Err(Refused("crashed".to_owned()))
            }
        }
    }
}

/// What every member does between two signs of life: commits some of what it holds, or what it
/// does not hold any more, and looks at what is committed.
async fn work(
    client: &Client,
    connection: &mut Connection,
    seat: &Seat,
    committer: &Committer,
    gone: &mut Option<Committer>,
) -> Result<(), Refused> {
    let some = |held: &[(Key, Nanos)]| -> Vec<(Key, Nanos)> {
        held.iter().filter(|_| !client.rng.one_in(3)).copied().collect()
    };
    if let Some(zombie) = gone.as_ref().filter(|_| client.rng.one_in(3)) {
        let held = some(&zombie.held);
        requests::commit(client, connection, seat, zombie, &held).await?;
        if client.rng.one_in(2) {
            *gone = None;
        }
    }
    if client.rng.one_in(2) {
        let held = some(&committer.held);
        requests::commit(client, connection, seat, committer, &held).await?;
    }
    if client.rng.one_in(4) {
        requests::fetch(client, connection, &seat.group, None).await?;
    }
    Ok(())
}

/// Somebody who is not in the group and asks any agent for what it committed, until told to stop.
pub async fn watch(client: Client, group: Arc<Group>) {
    while !client.shared.is_stopping() {
        if let Err(Refused(reason)) = watched(&client, &group).await {
            client.note(&reason);
        }
        sleep(client.rng.between(Duration::from_millis(20), Duration::from_millis(300))).await;
    }
}

async fn watched(client: &Client, group: &Arc<Group>) -> Result<(), Refused> {
    let mut connection = client.connect().await?;
    while !client.shared.is_stopping() {
        let code = requests::fetch(client, &mut connection, group, None).await?;
        if code != 0 || client.rng.one_in(10) {
            return Ok(()); // To another agent.
        }
        sleep(client.rng.between(Duration::from_millis(50), Duration::from_millis(800))).await;
    }
    Ok(())
}
