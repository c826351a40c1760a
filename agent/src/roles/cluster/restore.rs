//! `aquifer cluster restore`: the next life of a cluster, from its bucket.

use std::fmt::Write;

use anyhow::Context;
use aquifer_agent::config::RestoreFlags;
use aquifer_metadata::node::restore::{Restore, Restored, restore};
use aquifer_storage::{model::Timestamp, seam::system, store::StoreUrl};

use crate::roles::bucket;

pub async fn run(flags: &RestoreFlags) -> anyhow::Result<String> {
    let seams = system::seams();
    let bucket = bucket::open_url(&flags.store, &seams)?;
    if matches!(bucket.url, StoreUrl::Memory) {
        anyhow::bail!("--store memory: keeps nothing, and so holds no backup");
    }
    if flags.listen.ip().is_unspecified() {
        anyhow::bail!(
            "--listen {} names no address: other nodes must reach this one",
            flags.listen
        );
    }
    let now = seams.clock.wall();
    let request = Restore {
        store: bucket.store,
        data: flags.data.clone(),
        node_id: flags.id,
        address: flags.listen.to_string(),
        offset_jump: flags.offset_jump,
        seams,
    };
    let restored = restore(request).await.context("cluster restore")?;
    Ok(told(&restored, flags, now))
}

/// What an operator must know.
fn told(restored: &Restored, flags: &RestoreFlags, now: Timestamp) -> String {
    let Restored { cluster_id, from, lineage, index, snapshot_key, chunks, .. } = restored;
    let ago = now.millis().saturating_sub(restored.wall.millis()).max(0) / 1000;
    let mut text = String::new();
    let mut line = |name: &str, told: std::fmt::Arguments<'_>| {
        writeln!(text, "{name:11}{told}").expect("a string takes it");
    };
    line("cluster", format_args!("{cluster_id}, lineage {} after {}", lineage.number, from.number));
    line("from", format_args!("{snapshot_key} and {chunks} chunks of the log behind it"));
    line("recovered", format_args!("up to entry {index}, of {ago} s ago; what was acknowledged"));
    line("", format_args!("after it is not in it: what waited to be shipped, usually 15 s"));
    if *index < restored.furthest {
        line("LOST", format_args!("entries up to {} were shipped, and cannot", restored.furthest));
        line("", format_args!("be read any more"));
    }
    for left_out in &restored.left_out {
        line("left out", format_args!("{left_out}"));
    }
    let (jump, partitions) = (restored.offset_jump, restored.partitions);
    line("offsets", format_args!("the next one of each of {partitions} partitions rose by {jump}"));
    line("groups", format_args!("kept their offsets, and have no members"));
    let data = flags.data.display();
    let (store, listen) = (&flags.store, flags.listen);
    line("next", format_args!("aquifer metadata --store {store} --data {data} --listen {listen}"));
    line("", format_args!("(or `aquifer up`), then more nodes with --join; start all agents anew"));
    text
}
