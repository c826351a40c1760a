//! Loopback TCP: relaying, sending, and a round trip.
//!
//! Blocking sockets on threads with one role each: no runtime, so that what is left is the kernel.

use std::{
    hint::black_box,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{figures::Sample, meter::Meter};

/// What the relay gathers before it sends: about one object.
const RELAY_BUFFER_BYTES: usize = 4 << 20;
/// Buffers take turns, as in a pool: the next is never the one that is still in cache.
const RELAY_BUFFERS: usize = 4;
/// What the far end takes at once.
const SINK_BYTES: usize = 1 << 20;
/// A round trip's message.
const PING_BYTES: usize = 64;

/// Two ends of one loopback connection, without Nagle's algorithm.
fn connection() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    loop {
        let (far, peer) = listener.accept()?;
        // Another program may have found the port first.
        if peer == near.local_addr()? {
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            return Ok((near, far));
        }
    }
}

/// Reads to the end of the stream.
fn sink(mut from: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; SINK_BYTES];
    while 0 < from.read(&mut buffer)? {}
    Ok(())
}

/// Sends in writes of `write_bytes` until the measurement of `run` is over.
fn send_for(mut to: TcpStream, write_bytes: usize, run: Duration) -> io::Result<Sample> {
    let source = vec![0x5a; RELAY_BUFFER_BYTES];
    let mut meter = Meter::warming(run);
    for message in source.chunks_exact(write_bytes).cycle() {
        to.write_all(message)?;
        meter.add(write_bytes);
        if meter.is_over(run) {
            break;
        }
    }
    let sample = meter.sample();
    to.shutdown(Shutdown::Write)?;
    Ok(sample)
}

/// Fills `buffer` in reads of at most `read_bytes`, summing each while it is hot. Returns the
/// bytes read, fewer than the buffer holds only at the end of the stream.
fn fill(from: &mut TcpStream, buffer: &mut [u8], read_bytes: usize) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        let end = buffer.len().min(filled + read_bytes);
        let read = from.read(&mut buffer[filled..end])?;
        if read == 0 {
            break;
        }
        black_box(crc_fast::crc32_iscsi(&buffer[filled..filled + read]));
        filled += read;
    }
    Ok(filled)
}

/// Relays to the end of the stream.
fn relay_all(
    mut from: TcpStream,
    mut to: TcpStream,
    read_bytes: usize,
    run: Duration,
) -> io::Result<Sample> {
    let mut pool = vec![vec![1; RELAY_BUFFER_BYTES]; RELAY_BUFFERS];
    let mut meter = Meter::warming(run);
    for turn in 0.. {
        let buffer = &mut pool[turn % RELAY_BUFFERS];
        let filled = fill(&mut from, buffer, read_bytes)?;
        to.write_all(&buffer[..filled])?;
        if filled < RELAY_BUFFER_BYTES {
            break; // Not counted: the last buffer waited for an end, not for bytes.
        }
        meter.add(filled);
    }
    Ok(meter.sample())
}

/// Receive, CRC-32C, gather 4 MiB, send: for `run`, against a sender in writes of `write_bytes`.
/// The sample is the relay's own.
///
/// # Errors
/// A connection broke.
pub fn relay(write_bytes: usize, run: Duration) -> io::Result<Sample> {
    let (source, relay_in) = connection()?;
    let (relay_out, drain) = connection()?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || send_for(source, write_bytes, run));
        let drain = scope.spawn(move || sink(drain));
        let relay = scope.spawn(move || relay_all(relay_in, relay_out, write_bytes, run));
        let sample = joined(relay.join())?;
        joined(sender.join())?;
        joined(drain.join())?;
        Ok(sample)
    })
}

/// Writes of `write_bytes` for `run`; the sample is the sender's own.
///
/// # Errors
/// The connection broke.
pub fn send(write_bytes: usize, run: Duration) -> io::Result<Sample> {
    let (source, drain) = connection()?;
    thread::scope(|scope| {
        let drain = scope.spawn(move || sink(drain));
        let sender = scope.spawn(move || send_for(source, write_bytes, run));
        let sample = joined(sender.join())?;
        joined(drain.join())?;
        Ok(sample)
    })
}

/// Round trips of 64 bytes for `run`, into a histogram of nanoseconds.
///
/// # Errors
/// The connection broke.
pub fn round_trips(run: Duration, histogram: &mut Histogram<u64>) -> io::Result<()> {
    let (mut near, mut far) = connection()?;
    thread::scope(|scope| {
        let echo = scope.spawn(move || -> io::Result<()> {
            let mut message = [0; PING_BYTES];
            loop {
                match far.read_exact(&mut message) {
                    Ok(()) => far.write_all(&message)?,
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        });
        let mut message = [0x5a; PING_BYTES];
        let started = Instant::now();
        let mut sent = started;
        while sent.duration_since(started) < run {
            near.write_all(&message)?;
            near.read_exact(&mut message)?;
            let answered = Instant::now();
            let nanos = answered.duration_since(sent).as_nanos();
            histogram.saturating_record(u64::try_from(nanos).unwrap_or(u64::MAX));
            sent = answered;
        }
        drop(near);
        joined(echo.join())
    })
}

fn joined<T>(ended: thread::Result<io::Result<T>>) -> io::Result<T> {
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
