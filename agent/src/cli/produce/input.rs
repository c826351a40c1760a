//! Records from arguments, a file or standard input.
//!
//! A thread of its own reads, since reading a terminal or a pipe blocks for as long as it likes.
//! What it read waits in a bounded queue; what stands ready is handed over before it blocks, so
//! that a line that was typed is sent at once.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    thread,
};

use anyhow::Context as _;
use tokio::sync::mpsc;

/// Chunks that wait; with their size about 4 MiB.
const CHUNKS_MAX: usize = 16;
/// A chunk is handed over at so many bytes.
const CHUNK_BYTES: u64 = 256 << 10;
/// No broker takes a larger request: `socket.request.max.bytes`.
const RECORD_BYTES_MAX: u64 = 100 << 20;

/// Where the input is cut into records.
#[derive(Clone, Debug)]
pub enum Cut {
    /// At each of these, which belong to no record.
    At(Vec<u8>),
    /// It is one record.
    Nowhere,
}

/// Some records, and how many bytes of the input they were.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// The records.
    pub records: Vec<Vec<u8>>,
    /// With their delimiters.
    pub bytes: u64,
}

/// Records that are all there.
pub fn given(records: Vec<Vec<u8>>) -> mpsc::Receiver<io::Result<Chunk>> {
    let (sender, receiver) = mpsc::channel(1);
    let bytes = records.iter().map(|record| record.len() as u64).sum();
    // The queue is empty and its reader is here.
    let _ = sender.try_send(Ok(Chunk { records, bytes }));
    receiver
}

/// The records of a file, and its length where it has one.
///
/// # Errors
/// It cannot be opened.
pub fn of_file(
    path: &Path,
    cut: Cut,
) -> anyhow::Result<(mpsc::Receiver<io::Result<Chunk>>, Option<u64>)> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
    Ok((of_reader(file, cut), length))
}

/// The records of standard input.
pub fn of_stdin(cut: Cut) -> mpsc::Receiver<io::Result<Chunk>> {
    of_reader(io::stdin(), cut)
}

fn of_reader(reader: impl Read + Send + 'static, cut: Cut) -> mpsc::Receiver<io::Result<Chunk>> {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let read = move || {
        let mut reader = BufReader::with_capacity(64 * 1024, reader);
        loop {
            let chunk = next_chunk(&mut reader, &cut);
            let is_last = !matches!(&chunk, Ok(Some(_)));
            // Nobody waits for more once the command has failed.
            let sent = chunk.transpose().is_none_or(|chunk| sender.blocking_send(chunk).is_ok());
            if is_last || !sent {
                return;
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("input".to_owned()).spawn(read) {
        let (failed, receiver) = mpsc::channel(1);
        let _ = failed.try_send(Err(error));
        return receiver;
    }
    receiver
}

/// The records that stand ready, one at least; `None` at the end.
fn next_chunk(reader: &mut BufReader<impl Read>, cut: &Cut) -> io::Result<Option<Chunk>> {
    let mut chunk = Chunk::default();
    while let Some((record, bytes)) = next_record(reader, cut)? {
        chunk.bytes += bytes;
        chunk.records.push(record);
        let is_ready = match cut {
            Cut::At(delimiter) => {
                reader.buffer().windows(delimiter.len()).any(|window| window == delimiter)
            }
            Cut::Nowhere => false,
        };
        if CHUNK_BYTES <= chunk.bytes || !is_ready {
            break;
        }
    }
    Ok((!chunk.records.is_empty()).then_some(chunk))
}

/// The next record, and the bytes it took with its delimiter; `None` at the end.
fn next_record(reader: &mut impl BufRead, cut: &Cut) -> io::Result<Option<(Vec<u8>, u64)>> {
    let mut record = Vec::new();
    let (delimiter, last) = match cut {
        Cut::At(delimiter) => (delimiter.as_slice(), delimiter.last().copied()),
        Cut::Nowhere => (&[][..], None),
    };
    loop {
        let room = (RECORD_BYTES_MAX + 1).saturating_sub(record.len() as u64);
        let mut limited = reader.by_ref().take(room);
        let read = match last {
            Some(last) => limited.read_until(last, &mut record)?,
            None => limited.read_to_end(&mut record)?,
        };
        if RECORD_BYTES_MAX < record.len() as u64 {
            let large = format!("a record of the input is longer than {RECORD_BYTES_MAX} bytes");
            return Err(io::Error::other(large));
        }
        let bytes = record.len() as u64;
        if last.is_some() && record.ends_with(delimiter) {
            record.truncate(record.len() - delimiter.len());
            return Ok(Some((record, bytes)));
        }
        if read == 0 || last.is_none() {
            return Ok((!record.is_empty()).then_some((record, bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(input: &'static [u8], cut: Cut) -> Vec<Vec<u8>> {
        let mut reader = BufReader::with_capacity(4, input);
        let mut found = Vec::new();
        let mut bytes = 0;
        while let Some(chunk) = next_chunk(&mut reader, &cut).unwrap() {
            found.extend(chunk.records);
            bytes += chunk.bytes;
        }
        assert_eq!(bytes, input.len() as u64);
        found
    }

    #[test]
    fn delimiters_end_records_and_the_last_one_may_be_left_out() {
        let lines = |input| records(input, Cut::At(b"\n".to_vec()));
        assert_eq!(lines(b"a\n\nbc\n"), [&b"a"[..], b"", b"bc"]);
        assert_eq!(lines(b"a\nb"), [b"a", b"b"]);
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn a_delimiter_may_be_long_and_its_last_byte_part_of_a_record() {
        let cut = Cut::At(b"--\n".to_vec());
        assert_eq!(records(b"a\nb--\nc-\n--\n", cut), [&b"a\nb"[..], b"c-\n"]);
    }

    #[test]
    fn without_a_cut_all_of_it_is_one_record() {
        assert_eq!(records(b"a\n\0b", Cut::Nowhere), [b"a\n\0b"]);
        assert!(records(b"", Cut::Nowhere).is_empty());
    }
}
