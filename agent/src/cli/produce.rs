//! `aquifer produce`: records from arguments, a file or standard input, each acknowledged.

mod delivery;
mod input;
mod parse;

use std::{io::IsTerminal as _, path::PathBuf, time::Duration};

use anyhow::anyhow;
use aquifer_storage::format::record_batch::Codec;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    Usage, World,
    client::{Client, ClientError, ConnectArgs},
    output::{Format, Output, Table},
    topic,
    value::{parse_duration, parse_escaped, parse_pair, parse_timestamp},
};
use delivery::{Delivered, Delivery, Producer};
use input::{Chunk, Cut};
use parse::Parser;

/// Records of one delivery are gathered up to so many bytes of input.
const GATHERED_BYTES_MAX: u64 = 8 << 20;

/// `aquifer produce`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct ProduceArgs {
    /// Where to.
    topic: String,
    /// Records; without any they are read from --file or standard input.
    #[arg(value_name = "VALUE", conflicts_with = "file")]
    values: Vec<String>,
    /// Read records from this file; - is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How the input is made of records.
    #[arg(short, long, value_name = "FORMAT", default_value = "lines")]
    input: InputFormat,
    /// What ends a record of -i lines; \n \r \t \0 \xNN are understood.
    #[arg(short = 'D', long, value_name = "TEXT", default_value = "\\n")]
    #[arg(value_parser = BytesValue::parse)]
    delimiter: BytesValue,
    /// The key of every record.
    #[arg(short, long, value_name = "KEY", conflicts_with = "key_separator")]
    key: Option<String>,
    /// What stands between the key and the value of each record.
    #[arg(short = 'K', long, value_name = "TEXT", value_parser = BytesValue::parse)]
    key_separator: Option<BytesValue>,
    /// A header of every record. May be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = parse_pair)]
    headers: Vec<(String, String)>,
    /// Partition of all records [by the key as Kafka's Java client chooses, else any].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// The time of every record: RFC 3339 in UTC, or milliseconds since 1970 [now].
    #[arg(long, value_name = "TIME", value_parser = parse_timestamp)]
    timestamp: Option<i64>,
    /// An empty value is a tombstone: null, not empty.
    #[arg(short = 'Z', long)]
    null_empty: bool,
    /// One tombstone for --key, and nothing else.
    #[arg(long, requires = "key", conflicts_with_all = ["values", "file", "input"])]
    tombstone: bool,
    /// Create the topic, with the broker's defaults, if it is not there.
    #[arg(long)]
    create: bool,
    /// How batches are compressed.
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none")]
    compression: Compression,
    /// Print where records went: a JSON line for each, or a table in the end.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    /// How long a record may take, all attempts together, such as 30s or 5m.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    delivery_timeout: Duration,
    #[command(flatten)]
    connect: ConnectArgs,
}

const HELP: &str = "\
Every record is acknowledged by all replicas (acks=all) and written once, however often it had to
be sent (idempotent producer). What is not known to be written is told as unknown.

Examples:
  aquifer produce orders 'first' 'second'                      records from arguments
  aquifer produce orders -k 42 -H source=web '{\"paid\":true}'   with a key and a header
  seq 1000 | aquifer produce numbers --create                  lines of standard input
  aquifer produce orders -K : -f orders.txt                    lines such as 42:paid
  aquifer produce orders -k 42 --tombstone                     deletes the key when compacted
  aquifer produce images -i raw -f cat.png                     a whole file as one record
  aquifer produce orders hello -o json                         prints partition and offset
  aquifer consume a -o json | aquifer produce b -i json        copies keys, headers and times

-i json reads one record a line, as `aquifer consume -o json` prints them: key, value, headers,
timestamp; key_base64 and value_base64 for bytes that are no text.

Exit codes: 0 all records are written, 1 some are not, or it is not known; 2 the command makes no
sense.";

/// How the input is made of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum InputFormat {
    /// One record up to each delimiter.
    Lines,
    /// One JSON object a line.
    Json,
    /// All of it is one record.
    Raw,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compression {
    /// Not.
    None,
    /// gzip, as Kafka's default level has it.
    Gzip,
    /// snappy, in the Java library's blocks.
    Snappy,
    /// lz4.
    Lz4,
    /// zstd, level 3.
    Zstd,
}

impl Compression {
    const fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip => Codec::Gzip,
            Self::Snappy => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd => Codec::Zstd,
        }
    }
}

/// Bytes on the command line; a `Vec` would be taken for an option that repeats.
#[derive(Clone, Debug)]
pub struct BytesValue(pub Vec<u8>);

impl BytesValue {
    /// Reads text with escapes, of a byte at least.
    ///
    /// # Errors
    /// An escape there is none of, or no text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bytes = parse_escaped(text)?;
        if bytes.is_empty() { Err("must not be empty".to_owned()) } else { Ok(Self(bytes)) }
    }
}

/// Runs it.
///
/// # Errors
/// Records that are not written, or of which it is not known.
pub async fn run(args: ProduceArgs, world: &World, output: Output) -> anyhow::Result<()> {
    if args.input == InputFormat::Json && (args.key_separator.is_some() || args.key.is_some()) {
        return Err(Usage::new("-i json brings its own keys: leave out --key and -K").into());
    }
    let (input, length) = input(&args, world)?;
    let mut client = Client::connect(&args.connect, world.seams.clone()).await?;
    if args.create {
        topic::create_if_absent(&mut client, &args.topic).await?;
    }
    let hint = "--create makes it, with the broker's defaults";
    let topic = match client.topic(&args.topic).await {
        Err(absent @ ClientError::Missing(_)) => return Err(anyhow!("{absent}; {hint}")),
        topic => topic?,
    };
    if let Some(partition) = args.partition
        && !topic.partitions.contains_key(&partition)
    {
        return Err(super::client::no_leader(&topic, partition).into());
    }
    let producer = Producer::start(client, topic, args.delivery_timeout).await?;
    let producer = producer.compressed(args.compression.codec());
    let progress = progress(length, world);
    let mut run = Run { args, producer, output, progress, written: 0, rows: Vec::new() };
    let ended = run.deliver_all(input, world).await;
    run.progress.finish_and_clear();
    run.report(ended, world)
}

type Input = mpsc::Receiver<std::io::Result<Chunk>>;

/// The records to come, and how many bytes they are, where that is known.
fn input(args: &ProduceArgs, world: &World) -> anyhow::Result<(Input, Option<u64>)> {
    if args.tombstone {
        return Ok((input::given(vec![Vec::new()]), None));
    }
    if !args.values.is_empty() {
        let values = args.values.iter().map(|value| value.clone().into_bytes()).collect();
        return Ok((input::given(values), None));
    }
    let cut = match args.input {
        InputFormat::Lines => Cut::At(args.delimiter.0.clone()),
        InputFormat::Json => Cut::At(b"\n".to_vec()),
        InputFormat::Raw => Cut::Nowhere,
    };
    match args.file.as_ref().filter(|path| path.as_os_str() != "-") {
        Some(path) => Ok(input::of_file(path, cut)?),
        None => {
            if std::io::stdin().is_terminal() && world.terminal.shows_progress {
                eprintln!("reading records, one a line; Ctrl-D ends");
            }
            Ok((input::of_stdin(cut), None))
        }
    }
}

/// Shown on a terminal only, and only of a file: nobody waits for what somebody types.
fn progress(length: Option<u64>, world: &World) -> ProgressBar {
    match length.filter(|_| world.terminal.shows_progress) {
        None => ProgressBar::hidden(),
        Some(length) => {
            let style = "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}, {eta} left  {msg}";
            let style = ProgressStyle::with_template(style);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(length).with_style(style)
        }
    }
}

struct Run {
    args: ProduceArgs,
    producer: Producer,
    output: Output,
    progress: ProgressBar,
    written: u64,
    /// Partition, first and last offset, records: for the table.
    rows: Vec<(i32, Option<i64>, Option<i64>, u64)>,
}

#[derive(Serialize)]
struct WrittenLine<'a> {
    topic: &'a str,
    partition: i32,
    /// `None` when an earlier attempt wrote it and the broker forgot where.
    offset: Option<i64>,
    timestamp: i64,
}

impl Run {
    async fn deliver_all(&mut self, mut input: Input, world: &World) -> anyhow::Result<()> {
        let mut parser = Parser::new(&self.args, self.producer.partitions(), &world.seams);
        loop {
            let first = tokio::select! {
                chunk = input.recv() => chunk,
                () = world.shutdown.cancelled() => None,
            };
            let Some(first) = first else { return Ok(()) };
            let first = first?;
            let mut bytes = first.bytes;
            let mut chunks = vec![first];
            while bytes < GATHERED_BYTES_MAX
                && let Ok(chunk) = input.try_recv()
            {
                let chunk = chunk?;
                bytes += chunk.bytes;
                chunks.push(chunk);
            }
            let mut queued = Vec::new();
            let mut malformed = None;
            for record in chunks.into_iter().flat_map(|chunk| chunk.records) {
                match parser.parse(&self.args, record) {
                    Ok(record) => queued.push(record),
                    Err(error) => {
                        malformed = Some(error);
                        break;
                    }
                }
            }
            // What stands before a malformed record is written, as its place says.
            let delivery = self.producer.deliver(queued).await;
            self.progress.inc(bytes);
            self.told(delivery)?;
            malformed.map_or(Ok(()), Err)?;
        }
    }

    fn told(&mut self, delivery: Delivery) -> anyhow::Result<()> {
        self.written += delivery.written.len() as u64;
        for Delivered { partition, offset, timestamp } in &delivery.written {
            match self.args.output {
                None => {}
                Some(Format::Json) => self.output.line(&WrittenLine {
                    topic: &self.args.topic,
                    partition: *partition,
                    offset: *offset,
                    timestamp: *timestamp,
                })?,
                Some(Format::Table) => match self.rows.iter_mut().find(|row| row.0 == *partition) {
                    Some((_, _, last, count)) => {
                        *last = offset.or(*last);
                        *count += 1;
                    }
                    None => self.rows.push((*partition, *offset, *offset, 1)),
                },
            }
        }
        self.output.flush()?;
        delivery.failed.map_or(Ok(()), Err)
    }

    fn report(mut self, ended: anyhow::Result<()>, world: &World) -> anyhow::Result<()> {
        if self.args.output == Some(Format::Table) {
            let mut table = Table::new(&["partition", "records", "first offset", "last offset"]);
            self.rows.sort_unstable();
            let text = |offset: Option<i64>| offset.map_or("?".to_owned(), |n| n.to_string());
            for (partition, first, last, count) in self.rows {
                table.row([partition.to_string(), count.to_string(), text(first), text(last)]);
            }
            self.output.table(&table)?;
        }
        let records = if self.written == 1 { "record" } else { "records" };
        match ended {
            Ok(()) => {
                if self.args.output.is_none() && world.terminal.shows_progress {
                    eprintln!("{} {records} written to {}", self.written, self.args.topic);
                }
                Ok(())
            }
            Err(error) if error.is::<super::output::OutputError>() => Err(error),
            Err(error) => Err(error.context(format!("{} {records} written, then", self.written))),
        }
    }
}
