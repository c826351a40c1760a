//! Somebody who asks any agent for the ends of any log.

use std::time::Duration;

use tokio::time::sleep;

use super::{Client, connection::Refused, reader};
use crate::history::LogEnd;

/// Asks until told to stop.
pub async fn run(client: Client) {
    while !client.shared.is_stopping() {
        if let Err(Refused(reason)) = connected(&client).await {
            let number = client.number;
            client.shared.universe.trace.note(|| format!("client {number}: {reason}"));
        }
        sleep(client.rng.between(Duration::from_millis(20), Duration::from_millis(300))).await;
    }
}

async fn connected(client: &Client) -> Result<(), Refused> {
    let mut connection = client.connect().await?;
    while !client.shared.is_stopping() {
        let key = client.rng.pick(&client.shared.partitions).key;
        let end = if client.rng.one_in(8) { LogEnd::Earliest } else { LogEnd::Latest };
        let answer = reader::list_offsets(client, &mut connection, key, end).await?;
        if answer.done().is_none() || client.rng.one_in(10) {
            return Ok(()); // To another agent.
        }
        sleep(client.rng.between(Duration::ZERO, Duration::from_millis(400))).await;
    }
    Ok(())
}
