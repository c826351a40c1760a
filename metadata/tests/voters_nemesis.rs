//! Two sessions commit while nodes die, links are cut and leadership is handed over, in an order
//! that a seed decides: nothing acknowledged is lost, doubled or reordered, and after the last
//! fault all replicas are equal.
#![cfg(feature = "server")]
#![allow(clippy::disallowed_methods, reason = "a test may unwrap and spawn")]
#![allow(dead_code, reason = "not every test uses all of what they share")]

#[path = "voters/cluster.rs"]
mod cluster;
#[path = "voters/committer.rs"]
mod committer;
#[path = "voters/small_disk.rs"]
mod small_disk;
#[path = "voters/world.rs"]
mod world;

use std::time::Duration;

use aquifer_metadata::node::Tuning;
use aquifer_storage::seam::{Seams, system};
use tokio::sync::watch;

use self::{
    cluster::Cluster,
    committer::{Committer, create_topic},
};

/// The next of a seed's numbers.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

async fn fault(cluster: &mut Cluster, seed: &mut u64, seams: &Seams) {
    let node = next(seed) % 3 + 1;
    let other = (node + next(seed) % 2) % 3 + 1;
    match next(seed) % 5 {
        0 | 1 => {
            if cluster.running.contains_key(&node) {
                cluster.kill(node).await;
                seams.sleep(Duration::from_millis(next(seed) % 900)).await;
                cluster.start(node).await.unwrap();
            }
        }
        2 => cluster.world.cut(node, other),
        3 => cluster.world.heal(),
        _ => {
            // Refused by whoever does not lead.
            let _ = cluster.node(node).transfer_leader(None).await;
        }
    }
}

/// `NEMESIS_SECONDS=60 NEMESIS_SEED=7` to run longer, or again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_stays_whatever_happens_to_a_minority() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("NEMESIS_SECONDS").unwrap_or(8);
    let mut seed = number("NEMESIS_SEED").unwrap_or(1);
    println!("NEMESIS_SECONDS={seconds} NEMESIS_SEED={seed}");
    let seams = system::seams();
    let tuning = Tuning { snapshot_entries: 100, entries_kept: 20, ..Cluster::calm() };
    let mut cluster = Cluster::of_three(tuning).await;
    create_topic(&cluster.client()).await;
    let (stop, stopped) = watch::channel(false);
    let mut committing = Vec::new();
    for partition in 0..2 {
        let committer = Committer::new(cluster.client(), 1 + partition, seams.clone()).await;
        let committer = committer.on(i32::from(partition));
        committing.push(tokio::spawn(committer.run(stopped.clone())));
    }
    let began = seams.clock.mono();
    while seams.clock.mono().since(began) < Duration::from_secs(seconds) {
        seams.sleep(Duration::from_millis(next(&mut seed) % 1_200)).await;
        fault(&mut cluster, &mut seed, &seams).await;
    }
    cluster.world.heal();
    cluster.leader().await;
    seams.sleep(Duration::from_secs(1)).await;
    stop.send(true).unwrap();
    for committer in committing {
        let committer = committer.await.unwrap();
        println!("{} parts on {} streams", committer.acked.len(), committer.streams);
        committer.check();
    }
    cluster.agree().await;
}
