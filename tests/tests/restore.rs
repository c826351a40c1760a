//! The loss of the only metadata node of a cluster on a real S3 server, with its folder, and what
//! clients see of the life that is begun from the backup.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::ensure;
use aquifer_tests::{
    client::{Client, FAMILIES, succeeded},
    process::{Place, Process, free_address, metadata_node, minio, s3_environment, tool},
    raw::{Bytes, Connection, Fields, Request, produce, produced},
    record::Record,
};
use base64::{Engine, engine::general_purpose::STANDARD};

const FENCED_LEADER_EPOCH: i16 = 74;
/// `--offset-jump`, as it is without the flag.
const JUMP: i64 = 1_000_000_000;
const TOPIC: &str = "kept";

struct Cluster {
    place: Place,
    metadata_address: SocketAddr,
    metadata: Process,
    agent: Process,
    _minio: Process,
}

impl Cluster {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let (minio, s3) = minio(&folder.join("minio"))?;
        let mut place = Place::new(folder.join("data"))?;
        place.store = Some("s3://aquifer/restored".to_owned());
        place.environment = s3_environment(s3);
        let metadata_address = free_address()?;
        let metadata = metadata_node(&place, metadata_address)?;
        let agent = place.agent(metadata_address)?;
        Ok(Self { place, metadata_address, metadata, agent, _minio: minio })
    }

    /// An operator's command, and what it printed.
    fn operate(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(tool("TEST_BIN")?);
        command.arg("cluster").args(arguments).envs(self.place.environment.clone());
        succeeded(&format!("cluster {arguments:?}"), command.output()?)
    }

    /// A node and an agent of the next life, where the old ones were.
    fn restore(&mut self, folder: &Path) -> anyhow::Result<String> {
        self.place.data = folder.join("restored");
        let (data, listen) = (self.place.data.display().to_string(), self.metadata_address);
        let store = self.place.store.clone().unwrap_or_default();
        let listen = listen.to_string();
        let told =
            self.operate(&["restore", "--store", &store, "--data", &data, "--listen", &listen])?;
        self.metadata = metadata_node(&self.place, self.metadata_address)?;
        Ok(told)
    }
}

/// Records whose keys are their numbers.
fn records(numbers: std::ops::Range<usize>) -> Vec<Record> {
    let one = |number: usize| Record {
        key: Some(STANDARD.encode(number.to_string())),
        value: Some(STANDARD.encode("value")),
        headers: Vec::new(),
        timestamp: 1_700_000_000_000,
    };
    numbers.map(one).collect()
}

/// OffsetForLeaderEpoch v3: error code, epoch, end offset.
fn end_of_epoch(agent: SocketAddr, current: i32, epoch: i32) -> anyhow::Result<(i16, i32, i64)> {
    let body = Bytes::new().i32(-1).i32(1).string(TOPIC).i32(1).i32(0).i32(current).i32(epoch);
    let answer = Connection::open(agent)?.call(&Request::new(23, 3, body))?;
    let mut fields = Fields::new(&answer);
    let _head = (fields.i32()?, fields.count()?, fields.string()?, fields.count()?);
    let code = fields.i16()?;
    let _partition = fields.i32()?;
    Ok((code, fields.i32()?, fields.i64()?))
}

#[test]
fn clients_go_on_in_the_next_life_and_nobody_of_the_last_one_writes() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path())?;
    let kafka = cluster.place.kafka;
    let offsets = Client::Librdkafka.produce(kafka, TOPIC, "none", &records(0..20))?;
    ensure!(offsets == (0..20).collect::<Vec<i64>>(), "{offsets:?}");
    ensure!(end_of_epoch(kafka, 0, 0)? == (0, 0, 20), "{:?}", end_of_epoch(kafka, 0, 0)?);
    let metadata = cluster.metadata_address.to_string();
    cluster.operate(&["--metadata", &metadata, "snapshot"])?;

    // The node is lost with its folder. Its agent lives on and knows of nothing.
    cluster.metadata.kill()?;
    std::fs::remove_dir_all(&cluster.place.data)?;
    let told = cluster.restore(folder.path())?;
    ensure!(told.contains("lineage 1"), "{told}");

    // The old agent may not write in the new life, nor says that it did.
    let batch = aquifer_storage::format::test_batch::TestBatch::default().bytes();
    let mut old = Connection::open(kafka)?;
    old.patience(Duration::from_secs(30))?;
    let answer = produced(&old.call(&produce(-1, 3_000, &[(TOPIC, 0, Some(&batch))]))?)?;
    ensure!(answer[0].code != 0 && answer[0].base_offset == -1, "{answer:?}");
    cluster.agent.kill()?;
    cluster.agent = cluster.place.agent(cluster.metadata_address)?;

    let offsets = Client::Java.produce(kafka, TOPIC, "lz4", &records(20..30))?;
    let first = offsets[0];
    ensure!(JUMP + 20 <= first, "{offsets:?}");
    for client in FAMILIES {
        let consumed = client.consume(kafka, TOPIC, &format!("{client:?}"), 30)?;
        let read: Vec<_> = consumed.iter().map(|one| one.record.clone()).collect();
        ensure!(read == records(0..30), "{client:?}: {consumed:?}");
        let at: Vec<i64> = consumed.iter().map(|one| one.offset).collect();
        ensure!(at == (0..20).chain(first..first + 10).collect::<Vec<i64>>(), "{client:?}: {at:?}");
    }

    // A reader of the last life learns where it ended, once it knows of this one.
    ensure!(end_of_epoch(kafka, 0, 0)?.0 == FENCED_LEADER_EPOCH, "an old client asks for metadata");
    ensure!(end_of_epoch(kafka, 1, 0)? == (0, 0, 20), "{:?}", end_of_epoch(kafka, 1, 0)?);
    ensure!(end_of_epoch(kafka, 1, 1)? == (0, 1, first + 10), "{:?}", end_of_epoch(kafka, 1, 1)?);
    ensure!(end_of_epoch(kafka, 1, 2)? == (0, -1, -1), "{:?}", end_of_epoch(kafka, 1, 2)?);
    Ok(())
}
