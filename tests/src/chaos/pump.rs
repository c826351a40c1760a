//! Fills the metadata log: committed offsets of a group that has no members, with long remarks.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::{
    lab::{Lab, Server},
    load,
};
use crate::raw::{Bytes, Connection, Fields, Request, key};

const TOPIC: &str = "pump";
/// Partitions of a large commit: some 800 KiB, near the largest entry.
const PARTITIONS: i32 = 200;
/// As long as a broker takes by default.
const REMARK_BYTES: usize = 4000;
/// A refusal that lasts is one.
const RETRY_MAX: Duration = Duration::from_secs(3);
/// Connections at once.
const LANES: usize = 8;

/// Something that writes to the metadata log.
pub struct Pump {
    address: SocketAddr,
}

impl Pump {
    /// Makes the topic whose offsets are committed.
    pub fn new(lab: &mut Lab) -> anyhow::Result<Self> {
        load::create(lab, TOPIC, PARTITIONS)?;
        Ok(Self { address: lab.address(Server::Agent(0)) })
    }

    /// Writes entries of some 800 KiB until so many bytes were taken, or fails with the first
    /// refusal.
    pub fn bytes(&self, mib: usize) -> anyhow::Result<()> {
        let remark = "x".repeat(REMARK_BYTES);
        let mut connection = Connection::open(self.address)?;
        let each = PARTITIONS as usize * REMARK_BYTES;
        for _ in 0..(mib << 20).div_ceil(each) {
            commit(&mut connection, "pump", PARTITIONS, &remark)?;
        }
        Ok(())
    }

    /// Makes `count` small commits, each of a lane's own group.
    pub fn entries(&self, count: usize) -> anyhow::Result<()> {
        let (left, failed) = (AtomicUsize::new(count), AtomicBool::new(false));
        let lane = |number: usize| -> anyhow::Result<()> {
            let mut connection = Connection::open(self.address)?;
            let take = |left: usize| left.checked_sub(1);
            while !failed.load(Ordering::Relaxed)
                && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
            {
                let committed = commit(&mut connection, &format!("pump{number}"), 1, "");
                committed.inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let lanes: Vec<_> =
                (0..LANES).map(|number| scope.spawn(move || lane(number))).collect();
            lanes.into_iter().try_for_each(|lane| lane.join().expect("a lane does not panic"))
        })
    }
}

/// Commits, however long a leader is looked for; not while there is none for seconds.
fn commit(
    connection: &mut Connection,
    group: &str,
    partitions: i32,
    remark: &str,
) -> anyhow::Result<()> {
    let first = Instant::now();
    loop {
        match commit_once(connection, group, partitions, remark) {
            Err(_) if first.elapsed() < RETRY_MAX => sleep(Duration::from_millis(50)),
            committed => return committed,
        }
    }
}

/// OffsetCommit v5 for the first `partitions`, from outside of any generation.
fn commit_once(
    connection: &mut Connection,
    group: &str,
    partitions: i32,
    remark: &str,
) -> anyhow::Result<()> {
    let body = Bytes::new().string(group).i32(-1).string("");
    let mut body = body.i32(1).string(TOPIC).i32(partitions);
    for index in 0..partitions {
        body = body.i32(index).i64(1).string(remark);
    }
    let answer = connection.call(&Request::new(key::OFFSET_COMMIT, 5, body))?;
    let mut fields = Fields::new(&answer);
    let _throttle = fields.i32()?;
    for _ in 0..fields.count()? {
        let topic = fields.string()?;
        for _ in 0..fields.count()? {
            let (index, code) = (fields.i32()?, fields.i16()?);
            ensure!(code == 0, "offset of {topic}-{index}: {code}");
        }
    }
    Ok(())
}
