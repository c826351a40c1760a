//! Which client can do what, seen by pairing each with others, and the table of it.
//!
//! What a client cannot do is in [`Client`]; everything else must work, and what does not is told
//! at the end together, so that one run shows all of it.

pub mod groups;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, ensure};

use crate::{
    client::{ALL, Client},
    record::{Record, assorted},
};

/// Client programs at a time: they wait most of their time, in joins.
const PROGRAMS: usize = 4;
/// The record whose time is looked for, and the first that is kept when those before are deleted.
const LOOKED_FOR: usize = 100;
const KEPT_FROM: usize = 50;

/// What came of each feature of each client over one way to deploy.
pub struct Table {
    topology: String,
    cells: Mutex<BTreeMap<(Client, String), Result<(), String>>>,
}

impl Table {
    /// An empty one for `topology`, such as "three agents".
    pub fn new(topology: &str) -> Self {
        Self { topology: topology.to_owned(), cells: Mutex::default() }
    }

    /// Keeps what came of `feature`; of several outcomes the failure.
    fn note<T>(&self, client: Client, feature: &str, outcome: anyhow::Result<T>) -> Option<T> {
        let (cell, result) = match outcome {
            Ok(result) => (Ok(()), Some(result)),
            Err(error) => (Err(brief(&format!("{error:#}"))), None),
        };
        let mut cells = self.cells.lock().expect("no thread panics with it");
        let kept = cells.entry((client, feature.to_owned())).or_insert_with(|| cell.clone());
        if kept.is_ok() {
            *kept = cell;
        }
        result
    }

    /// A row per client: the codecs it wrote and read, its idempotent producer, its admin steps.
    pub fn markdown(&self) -> String {
        let cells = self.cells.lock().expect("no thread panics with it");
        let mut text = format!(
            "## {}\n\n| client | writes | reads | idempotent | admin steps |\n\
             |---|---|---|---|---|\n",
            self.topology
        );
        for client in ALL {
            let of = |group: &str| {
                let prefix = format!("{group} ");
                let names = cells.iter().filter(|((one, _), _)| *one == client);
                let parts = names.filter_map(|((_, feature), cell)| {
                    let name = feature.strip_prefix(&prefix)?;
                    Some(if cell.is_ok() { name.to_owned() } else { format!("**{name} FAILED**") })
                });
                parts.collect::<Vec<_>>()
            };
            let or_dash = |parts: Vec<String>| match parts.len() {
                0 => "–".to_owned(),
                _ => parts.join(" "),
            };
            let admin = of("admin");
            let failed: Vec<&str> =
                admin.iter().map(String::as_str).filter(|name| name.starts_with('*')).collect();
            let admin_text = match admin.len() {
                0 => "–".to_owned(),
                all => format!("{} of {all} {}", all - failed.len(), failed.join(" ")),
            };
            let (writes, reads) = (or_dash(of("write")), or_dash(of("read")));
            let idempotent = or_dash(of("idempotent"));
            let _infallible =
                writeln!(text, "| {client:?} | {writes} | {reads} | {idempotent} | {admin_text} |");
        }
        text
    }

    /// Writes the table where [`tables`] says, and fails with every failure.
    pub fn finish(self) -> anyhow::Result<()> {
        let file = tables()?.join(format!("clients-{}.md", self.topology.replace(' ', "-")));
        let text = self.markdown();
        std::fs::write(&file, &text).with_context(|| format!("write {}", file.display()))?;
        println!("{text}");
        let cells = self.cells.into_inner().expect("no thread panics with it");
        let failures: Vec<String> = cells
            .into_iter()
            .filter_map(|((client, feature), cell)| {
                Some(format!("{client:?}, {feature}: {}", cell.err()?))
            })
            .collect();
        ensure!(failures.is_empty(), "{}:\n{}", self.topology, failures.join("\n"));
        Ok(())
    }
}

/// The folder of the tables that tests write.
pub fn tables() -> anyhow::Result<PathBuf> {
    let folder = match std::env::var_os("TEST_TABLES") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tables"),
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// Runs `work` on each of `jobs`, a few at a time.
pub fn side_by_side<J: Sync>(jobs: &[J], work: impl Fn(&J) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..PROGRAMS {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(job);
                }
            });
        }
    });
}

/// Each client once as producer and once as consumer, with another each: the next but `shift`, so
/// that other ways to deploy see other pairs. The consumer then takes its admin steps.
pub fn each_client_once(bootstrap: SocketAddr, prefix: &str, shift: usize, table: &Table) {
    let records = assorted();
    let places: Vec<usize> = (0..ALL.len()).collect();
    side_by_side(&places, |&place| {
        let (producer, consumer) = (ALL[place], ALL[(place + 1 + shift) % ALL.len()]);
        let codecs = producer.codecs().iter().copied();
        let common: Vec<&str> = codecs.filter(|codec| consumer.reads(producer, codec)).collect();
        let codec = common[(place + shift) % common.len()];
        let topic = format!("{prefix}-{producer:?}");
        let sent = producer.sendable(&records);
        let offsets = producer.produce(bootstrap, &topic, codec, &sent);
        let offsets = offsets.and_then(|offsets| in_order(&offsets, 0, sent.len()));
        if table.note(producer, &format!("write {codec}"), offsets).is_none() {
            return;
        }
        let group = format!("{topic}-{consumer:?}");
        let pair = Pair { bootstrap, topic: &topic, producer, consumer, group: &group };
        table.note(consumer, &format!("read {codec}"), pair.read(&sent));
        let mut end = sent.len();
        if producer.is_idempotent() {
            let offsets = producer.produce_idempotently(bootstrap, &topic, codec, &sent);
            let offsets = offsets.and_then(|offsets| in_order(&offsets, end, sent.len()));
            if table.note(producer, "idempotent yes", offsets).is_some() {
                end += sent.len();
            }
        }
        administrate(pair, &sent, end, table);
    });
}

/// Every producer with every codec it has, read by every consumer that has the codec.
pub fn every_pair(bootstrap: SocketAddr, prefix: &str, table: &Table) {
    let records = assorted();
    let jobs: Vec<(Client, &str)> = ALL
        .into_iter()
        .flat_map(|producer| producer.codecs().iter().map(move |codec| (producer, *codec)))
        .collect();
    side_by_side(&jobs, |&(producer, codec)| {
        let topic = format!("{prefix}-all-{producer:?}-{codec}");
        let sent = producer.sendable(&records);
        let offsets = producer.produce(bootstrap, &topic, codec, &sent);
        let offsets = offsets.and_then(|offsets| in_order(&offsets, 0, sent.len()));
        if table.note(producer, &format!("write {codec}"), offsets).is_none() {
            return;
        }
        for consumer in ALL.into_iter().filter(|consumer| consumer.reads(producer, codec)) {
            let group = format!("{topic}-{consumer:?}");
            let pair = Pair { bootstrap, topic: &topic, producer, consumer, group: &group };
            table.note(consumer, &format!("read {codec}"), pair.read(&sent));
        }
    });
}

/// Fails unless `offsets` are those from `first` on of `count` records.
fn in_order(offsets: &[i64], first: usize, count: usize) -> anyhow::Result<()> {
    let expected = first as i64..(first + count) as i64;
    ensure!(offsets.iter().copied().eq(expected.clone()), "{expected:?} expected: {offsets:?}");
    Ok(())
}

struct Pair<'a> {
    bootstrap: SocketAddr,
    topic: &'a str,
    producer: Client,
    consumer: Client,
    group: &'a str,
}

impl Pair<'_> {
    /// Reads what was sent and compares each record.
    fn read(&self, sent: &[Record]) -> anyhow::Result<()> {
        let Self { bootstrap, topic, producer, consumer, group } = self;
        let consumed = consumer.consume(*bootstrap, topic, group, sent.len())?;
        ensure!(consumed.len() >= sent.len(), "{} of {} records", consumed.len(), sent.len());
        for (index, (sent, got)) in sent.iter().zip(&consumed).enumerate() {
            ensure!(
                self.tolerable(sent) == self.tolerable(&got.record) && got.offset == index as i64,
                "{producer:?} to {consumer:?}, record {index}: sent {}, got {}",
                brief(&format!("{sent:?}")),
                brief(&format!("{got:?}"))
            );
        }
        Ok(())
    }

    /// A record without what one of the two cannot tell apart.
    fn tolerable(&self, record: &Record) -> Record {
        let mut record = record.clone();
        if self.producer.confuses_null() || self.consumer.confuses_null() {
            record.key.get_or_insert_default();
            record.value.get_or_insert_default();
            for (_, value) in &mut record.headers {
                value.get_or_insert_default();
            }
        }
        if self.producer.sorts_headers() || self.consumer.sorts_headers() {
            record.headers.sort();
        }
        record
    }
}

/// The admin steps of the consumer, on what the producer wrote.
fn administrate(pair: Pair<'_>, sent: &[Record], end: usize, table: &Table) {
    let Pair { bootstrap, topic, consumer, group, .. } = pair;
    let new = format!("{topic}-admin-{consumer:?}");
    let time = sent[LOOKED_FOR].timestamp - 3; // Records are 7 ms apart.
    let taken = match consumer.administrate(bootstrap, &new, (topic, group, time)) {
        Ok(taken) => taken,
        Err(error) => {
            table.note::<()>(consumer, "admin steps", Err(error));
            return;
        }
    };
    for step in consumer.admin_steps() {
        let expected = match step {
            "create-topic" => "ok".to_owned(),
            "create-again" => "36".to_owned(), // TOPIC_ALREADY_EXISTS
            "list-topics" | "list-groups" => "true".to_owned(),
            "describe-topic" => "3".to_owned(),
            "create-partitions" => "5".to_owned(),
            "describe-configs" => "315360000000".to_owned(),
            "alter-configs" => "946080000000".to_owned(),
            "list-offsets" => format!("0 {end} {LOOKED_FOR}"),
            "delete-records" => KEPT_FROM.to_string(),
            "describe-group" => "Empty".to_owned(),
            "committed-offsets" => sent.len().to_string(),
            _ => "false".to_owned(), // What was deleted is listed no more.
        };
        let told = taken.get(step).map_or("nothing", String::as_str);
        let outcome = if told == expected {
            Ok(())
        } else {
            Err(anyhow::anyhow!("{expected} expected, {told} told"))
        };
        table.note(consumer, &format!("admin {step}"), outcome);
    }
    let known: BTreeSet<&str> = consumer.admin_steps().into_iter().collect();
    for step in taken.keys().filter(|step| !known.contains(step.as_str())) {
        let unknown = Err::<(), _>(anyhow::anyhow!("a step that the client is said not to have"));
        table.note(consumer, &format!("admin {step}"), unknown);
    }
}

fn brief(text: &str) -> String {
    text.chars().take(600).collect()
}
