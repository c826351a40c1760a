//! `aquifer consume`: records of a topic, from anywhere, to the end or for ever.

mod aborted;
mod reader;
pub mod start;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use super::{
    World,
    client::{Client, ConnectArgs, Isolation, Topic, no_leader},
    json::RecordLine,
    output::{Output, OutputError},
    produce::BytesValue,
    records::PlacedRecord,
    template::{TOKENS, Template},
};
use reader::{Event, Reader};
use start::{Ends, Start};

/// `aquifer consume`.
#[derive(Debug, Args)]
#[command(after_help = help())]
pub struct ConsumeArgs {
    /// Where from.
    topic: String,
    /// Only these partitions, such as 0 or 0,2.
    #[arg(short, long = "partition", value_name = "N,...", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// Where to begin: beginning, end, an offset, -N (the last N of each partition), a time
    /// (2026-01-31T12:00:00Z, @MILLISECONDS) or how long ago (-90s, -2h).
    #[arg(long, visible_alias = "offset", value_name = "WHERE", default_value = "beginning")]
    #[arg(allow_hyphen_values = true)]
    from: Start,
    /// The same as --from beginning, which is the default.
    #[arg(long, conflicts_with_all = ["from", "tail"])]
    from_beginning: bool,
    /// The last N records of each partition: the same as --from -N.
    #[arg(long, value_name = "N", conflicts_with = "from")]
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    tail: Option<i64>,
    /// End after so many records.
    #[arg(short = 'n', short_alias = 'c', long, visible_alias = "max-messages", value_name = "N")]
    count: Option<u64>,
    /// Go on with records as they come, until Ctrl-C. `--from end` does so too.
    #[arg(short = 'F', long)]
    follow: bool,
    /// How to print a record.
    #[arg(short, long, value_name = "FORMAT", default_value = "raw")]
    output: RecordFormat,
    /// A format of one's own instead; see below.
    #[arg(short, long, value_name = "TEMPLATE", conflicts_with_all = ["output", "key_separator"])]
    format: Option<Template>,
    /// Print the key, and this between it and the value.
    #[arg(short = 'K', long, value_name = "TEXT", value_parser = BytesValue::parse)]
    key_separator: Option<BytesValue>,
    /// What follows each value of -o raw; \n \r \t \0 \xNN are understood.
    #[arg(short = 'D', long, value_name = "TEXT", default_value = "\\n")]
    #[arg(value_parser = BytesValue::parse)]
    delimiter: BytesValue,
    /// Which records of transactions to show.
    #[arg(long, visible_alias = "isolation-level", value_name = "LEVEL")]
    #[arg(default_value = "read_uncommitted")]
    isolation: Isolation,
    #[command(flatten)]
    connect: ConnectArgs,
}

fn help() -> String {
    format!(
        "\
Ends when it printed what was there when it began; with --follow it goes on. Records of one
partition come in their order, those of several as they arrive. No group is joined and nothing is
committed.

Examples:
  aquifer consume orders                                 all values, one a line
  aquifer consume orders --tail 5                        the last five of each partition
  aquifer consume orders -F                              all, and then as they come
  aquifer consume orders --from end -K ': '              only new ones, with their keys
  aquifer consume orders --from -1h -o json | jq .value  of the last hour
  aquifer consume orders -p 3 --from 1000 -n 1           one record by partition and offset
  aquifer consume orders -f '%p:%o %k=%s\\n'

{TOKENS}

-o json prints one object a line: topic, partition, offset, timestamp, time, timestamp_type, key,
value, headers. Bytes that are no UTF-8 stand as base64 under key_base64 and value_base64.

Exit codes: 0 done (Ctrl-C too), 1 something failed, 2 the command makes no sense."
    )
}

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RecordFormat {
    /// The value as it is, and the delimiter.
    Raw,
    /// One JSON object a line.
    Json,
}

/// Runs it.
///
/// # Errors
/// What failed.
pub async fn run(args: ConsumeArgs, world: &World, output: Output) -> anyhow::Result<()> {
    let mut client = Client::connect(&args.connect, world.seams.clone()).await?;
    let topic = client.topic(&args.topic).await?;
    let partitions = chosen(&topic, &args.partitions)?;
    let start = args.tail.map_or(args.from, Start::Last);
    let ends = Ends::look(&mut client, &topic, &partitions, start, args.isolation).await?;
    // From the end on there is nothing yet: who asks for that wants to wait.
    let follow = args.follow || (start == Start::End && args.count != Some(0));
    if let Start::Offset(offset) = start
        && !follow
        && ends.0.values().all(|range| range.end <= offset)
    {
        eprintln!("aquifer: {} ends before offset {offset}", args.topic);
    }
    let progress = progress(ends.records(), follow, world);
    let mut reader = Reader::new(client, topic, &ends, args.isolation, follow);
    let mut printer = Printer { args, output, progress, left: None, buffer: Vec::new() };
    printer.left = printer.args.count;
    while printer.left != Some(0) {
        let event = tokio::select! {
            biased; // Ctrl-C first, or a fast topic would keep it waiting.
            () = world.shutdown.cancelled() => break,
            event = reader.next() => event,
        };
        match event {
            Ok(Some(Event::Records(partition, records))) => printer.print(partition, &records)?,
            Ok(Some(Event::Note(text))) => printer.note(&text)?,
            Ok(None) => break,
            Err(error) => {
                printer.output.flush()?; // What came before it is printed all the same.
                return Err(error.into());
            }
        }
    }
    printer.progress.finish_and_clear();
    Ok(printer.output.flush()?)
}

/// The partitions to read: those named, or all.
fn chosen(topic: &Topic, named: &[i32]) -> anyhow::Result<Vec<i32>> {
    if named.is_empty() {
        return Ok(topic.partitions.keys().copied().collect());
    }
    if let Some(absent) = named.iter().find(|index| !topic.partitions.contains_key(index)) {
        return Err(no_leader(topic, *absent).into());
    }
    let mut named = named.to_vec();
    named.sort_unstable();
    named.dedup();
    Ok(named)
}

/// Shown when the records go elsewhere than to the terminal, and have an end.
fn progress(records: u64, follow: bool, world: &World) -> ProgressBar {
    let is_seen = world.terminal.shows_progress && world.terminal.columns.is_none();
    if is_seen && !follow { ProgressBar::new(records) } else { ProgressBar::hidden() }
}

struct Printer {
    args: ConsumeArgs,
    output: Output,
    progress: ProgressBar,
    left: Option<u64>,
    buffer: Vec<u8>,
}

impl Printer {
    fn print(&mut self, partition: i32, records: &[PlacedRecord]) -> Result<(), OutputError> {
        let wanted =
            self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let records = &records[..records.len().min(wanted)];
        for record in records {
            self.record(partition, record)?;
        }
        let printed = records.len() as u64;
        self.left = self.left.map(|left| left - printed);
        self.progress.inc(printed);
        // Whoever follows wants to see them now, and a batch is worth a system call.
        self.output.flush()
    }

    fn record(&mut self, partition: i32, placed: &PlacedRecord) -> Result<(), OutputError> {
        let topic = &self.args.topic;
        if let Some(template) = &self.args.format {
            self.buffer.clear();
            template.write(topic, partition, placed, &mut self.buffer);
            return self.output.write(&self.buffer);
        }
        if self.args.output == RecordFormat::Json {
            return self.output.line(&RecordLine::of(topic, partition, placed));
        }
        if let Some(separator) = &self.args.key_separator {
            self.output.write(placed.record.key.as_deref().unwrap_or_default())?;
            self.output.write(&separator.0)?;
        }
        self.output.write(placed.record.value.as_deref().unwrap_or_default())?;
        self.output.write(&self.args.delimiter.0)
    }

    fn note(&mut self, text: &str) -> Result<(), OutputError> {
        self.output.flush()?;
        self.progress.suspend(|| eprintln!("aquifer: {text}"));
        Ok(())
    }
}
