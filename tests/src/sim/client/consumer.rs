//! A consumer with partitions of its own choice, that moves between agents and goes back.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::sleep;

use super::{
    Client,
    connection::{Connection, Refused},
    reader::{self, PollLimits},
};
use crate::history::{Answer, Key};

const OUT_OF_RANGE: i16 = 1;
/// How often a usual consumer goes back: once in so many polls.
pub const GOES_BACK_ONE_IN: u64 = 30;

/// Polls all partitions, or some of them, until told to stop; goes back once in so many polls.
pub async fn run(client: Client, all: bool, goes_back_one_in: u64) {
    let mut positions = BTreeMap::<Key, i64>::new();
    for partition in &client.shared.partitions {
        if all || client.rng.one_in(2) || positions.is_empty() {
            positions.insert(partition.key, 0);
        }
    }
    while !client.shared.is_stopping() {
        if let Err(Refused(reason)) = connected(&client, &mut positions, goes_back_one_in).await {
            let number = client.number;
            client.shared.universe.trace.note(|| format!("client {number}: {reason}"));
        }
        sleep(client.rng.between(Duration::from_millis(20), Duration::from_millis(300))).await;
    }
}

async fn connected(
    client: &Client,
    positions: &mut BTreeMap<Key, i64>,
    goes_back_one_in: u64,
) -> Result<(), Refused> {
    let mut connection: Connection = client.connect().await?;
    while !client.shared.is_stopping() {
        let limits = PollLimits {
            wait: Duration::from_millis(100 + client.rng.below(900)),
            bytes: 256 << client.rng.below(8),
        };
        let asked: Vec<_> = positions.iter().map(|(key, offset)| (*key, *offset)).collect();
        let answers = reader::poll(client, &mut connection, &asked, limits).await?;
        let mut refused = false;
        for (key, answer) in answers {
            match answer {
                Answer::Done(polled) => {
                    if let Some(last) = polled.records.last() {
                        positions.insert(key, last.offset + 1);
                    }
                }
                Answer::Failed(OUT_OF_RANGE) => {
                    positions.insert(key, 0);
                }
                Answer::Failed(_) | Answer::Unknown => refused = true,
            }
        }
        if refused || client.rng.one_in(40) {
            return Ok(()); // To another agent.
        }
        if client.rng.one_in(goes_back_one_in) {
            let keys: Vec<_> = positions.keys().copied().collect();
            let key = *client.rng.pick(&keys);
            let back = client.rng.below(50);
            let offset = positions.get_mut(&key).expect("one of its own");
            *offset = (*offset - i64::try_from(back).expect("small")).max(0);
        }
        sleep(client.rng.between(Duration::ZERO, Duration::from_millis(200))).await;
    }
    Ok(())
}
