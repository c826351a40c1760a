//! How many connections fit into the files that the process may have open. The rest is kept for
//! the object store and the metadata log: an agent that ran out could not store what it is sent.

/// Kept for everything but clients, unless that is more than a quarter of all.
const RESERVED_FILES: usize = 256;

/// Assumed where the operating system does not say: the usual limit of a login shell.
const OPEN_FILES_UNKNOWN: usize = 1024;

/// The most clients that may be connected to this process.
pub fn connections_max() -> usize {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = open_files(&text).unwrap_or(OPEN_FILES_UNKNOWN);
    files - RESERVED_FILES.min(files / 4)
}

/// The soft limit of open files in the text of `/proc/self/limits`.
fn open_files(limits: &str) -> Option<usize> {
    let row = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match row.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max processes             95997                95997                processes\n\
                    Max open files            1024                 524288               files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(open_files("Max open files  unlimited unlimited files"), Some(usize::MAX));
        assert_eq!(open_files(""), None);
        assert_eq!(open_files("Max open files"), None);
        assert!(0 < connections_max());
    }
}
