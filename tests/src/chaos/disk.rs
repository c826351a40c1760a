//! Damage to a metadata log while its node is down.
//!
//! Knows just enough of the segment's layout (`aquifer-metadata`, `wal::frame`) to find records.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

/// The format whose layout is known here.
const FORMAT: u16 = 1;
const SEGMENT_HEADER_BYTES: usize = 512;
const FRAME_HEADER_BYTES: usize = 24;
const ALIGN_BYTES: usize = 8;

/// The newest segment of the node whose data folder is `data`.
fn newest_segment(data: &Path) -> anyhow::Result<PathBuf> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(data.join("raft"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("wal-") && name.ends_with(".log") {
            segments.push(path);
        }
    }
    segments.sort();
    segments.pop().context("a node that ran has a log")
}

/// Where each record of a segment begins, and how long it is.
fn frames(bytes: &[u8]) -> anyhow::Result<Vec<(usize, usize)>> {
    let format = u16::from_le_bytes([bytes[8], bytes[9]]);
    ensure!(format == FORMAT, "the log has format {format}: this test knows {FORMAT}");
    let mut frames = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES;
    while let Some(head) = bytes.get(at..at + FRAME_HEADER_BYTES)
        && head[..4] != [0; 4]
    {
        let body = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let whole = (FRAME_HEADER_BYTES + body).next_multiple_of(ALIGN_BYTES);
        frames.push((at, whole));
        at += whole;
    }
    ensure!(!frames.is_empty(), "a segment holds a record");
    Ok(frames)
}

/// Appends half a record behind the last one, as a write that power loss cut short would leave it.
pub fn append_half_a_record(data: &Path) -> anyhow::Result<()> {
    let path = newest_segment(data)?;
    let mut bytes = fs::read(&path)?;
    let (at, whole) = *frames(&bytes)?.last().context("it has records")?;
    let (half, end) = (FRAME_HEADER_BYTES + (whole - FRAME_HEADER_BYTES) / 2, at + whole);
    ensure!(end + whole <= bytes.len(), "the segment has no room behind its last record");
    bytes.copy_within(at..at + half, end);
    Ok(fs::write(&path, bytes)?)
}

/// Flips a bit of a record that was durable long ago.
pub fn flip_a_bit_of_the_log(data: &Path) -> anyhow::Result<()> {
    let path = newest_segment(data)?;
    let mut bytes = fs::read(&path)?;
    let frames = frames(&bytes)?;
    let (at, whole) = frames[frames.len() / 3];
    bytes[at + FRAME_HEADER_BYTES + (whole - FRAME_HEADER_BYTES) / 2] ^= 0x10;
    Ok(fs::write(&path, bytes)?)
}

/// The newest snapshot, if there is one.
pub fn snapshot(data: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(data.join("raft")).ok()?.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = folders
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("snap-") && !name.ends_with(".tmp")
        })
        .map(|folder| folder.join("state"))
        .collect();
    files.sort();
    files.pop()
}

/// Flips a bit in the middle of the newest snapshot.
pub fn flip_a_bit_of_the_snapshot(data: &Path) -> anyhow::Result<()> {
    let path = snapshot(data).context("the node has a snapshot")?;
    let mut bytes = fs::read(&path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    Ok(fs::write(&path, bytes)?)
}
