//! What an append to a log costs until it is on the disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

/// A file that is removed when it is dropped.
struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    fn create(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("aquifer-bench-limits-{}.tmp", std::process::id()));
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        Ok(Self { file, path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a scratch file stays behind");
        }
    }
}

/// Appends `append_bytes` and waits for fdatasync, again and again for `run`, into a histogram of
/// microseconds. The file grows, as a log does: its length is part of what is synced.
///
/// # Errors
/// The folder cannot be written to.
pub fn appends(
    folder: &Path,
    append_bytes: usize,
    run: Duration,
    histogram: &mut Histogram<u64>,
) -> io::Result<()> {
    let mut scratch = Scratch::create(folder)?;
    let entry = vec![0x5a; append_bytes];
    let started = Instant::now();
    let mut began = started;
    while began.duration_since(started) < run {
        scratch.file.write_all(&entry)?;
        scratch.file.sync_data()?;
        let ended = Instant::now();
        let micros = ended.duration_since(began).as_micros();
        histogram.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
        began = ended;
    }
    Ok(())
}
