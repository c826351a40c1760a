//! Where the bucket is, as the operator writes it: `file:PATH`, `s3://bucket/prefix`,
//! `gs://bucket/prefix`, `az://container/prefix`, `memory:`.

use std::{fmt, path::PathBuf, str::FromStr};

/// A parsed store address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A folder of this machine.
    File {
        /// The folder.
        path: PathBuf,
    },
    /// A bucket of an S3-compatible store.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix without slashes around it; empty for the whole bucket.
        prefix: String,
    },
    /// A bucket of Google Cloud Storage.
    Gcs {
        /// The bucket.
        bucket: String,
        /// As of [`StoreUrl::S3`].
        prefix: String,
    },
    /// A container of Azure Blob Storage.
    Azure {
        /// The container.
        container: String,
        /// As of [`StoreUrl::S3`].
        prefix: String,
    },
    /// The process's memory: nothing survives.
    Memory,
}

/// A store address that names no store.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlRefused {
    /// No scheme that we know.
    #[error(
        "store {url:?} is none of file:PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, \
         az://CONTAINER/PREFIX and memory:"
    )]
    Scheme {
        /// As given.
        url: String,
    },
    /// `file:` without a path.
    #[error("store {url:?} names no folder: write file:PATH")]
    NoPath {
        /// As given.
        url: String,
    },
    /// `file://host/path`.
    #[error("store {url:?} names another host: write file:PATH with a path of this machine")]
    Host {
        /// As given.
        url: String,
    },
    /// A name that the store does not allow.
    #[error("{bucket:?} is no {kind} name: {rule}, first and last a letter or digit")]
    Bucket {
        /// As given.
        bucket: String,
        /// What it would name.
        kind: &'static str,
        /// What it may be made of.
        rule: &'static str,
    },
    /// A prefix outside the alphabet of keys.
    #[error(
        "{prefix:?} is no prefix: segments of letters, digits, '-', '_', '.' and '=', none empty, \
         none starting with '.'"
    )]
    Prefix {
        /// As given.
        prefix: String,
    },
    /// `memory:` with something behind it.
    #[error("store memory: takes nothing behind the colon")]
    MemoryTail,
}

impl StoreUrl {
    /// Parses a store address.
    pub fn parse(url: &str) -> Result<Self, StoreUrlRefused> {
        let (scheme, rest) =
            url.split_once(':').ok_or_else(|| StoreUrlRefused::Scheme { url: url.to_owned() })?;
        match scheme {
            "file" => parse_file(url, rest),
            "s3" | "gs" | "az" => match rest.strip_prefix("//") {
                Some(rest) => parse_bucket(scheme, rest),
                None => Err(StoreUrlRefused::Scheme { url: url.to_owned() }),
            },
            "memory" if rest.is_empty() => Ok(Self::Memory),
            "memory" => Err(StoreUrlRefused::MemoryTail),
            _ => Err(StoreUrlRefused::Scheme { url: url.to_owned() }),
        }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlRefused;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        Self::parse(url)
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path } => write!(f, "file:{}", path.display()),
            Self::S3 { bucket, prefix } => write_bucket(f, "s3", bucket, prefix),
            Self::Gcs { bucket, prefix } => write_bucket(f, "gs", bucket, prefix),
            Self::Azure { container, prefix } => write_bucket(f, "az", container, prefix),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

fn write_bucket(
    f: &mut fmt::Formatter<'_>,
    scheme: &str,
    bucket: &str,
    prefix: &str,
) -> fmt::Result {
    let slash = if prefix.is_empty() { "" } else { "/" };
    write!(f, "{scheme}://{bucket}{slash}{prefix}")
}

/// What the bytes of a name may be, besides lower-case letters, digits and `-`.
struct Names {
    kind: &'static str,
    rule: &'static str,
    others: &'static [u8],
}

fn names(scheme: &str) -> Names {
    let (kind, rule, others): (_, _, &[u8]) = match scheme {
        "gs" => ("bucket", "3 to 63 of a-z, 0-9, '-', '_' and '.'", b"_."),
        "az" => ("container", "3 to 63 of a-z, 0-9 and '-'", b""),
        _ => ("bucket", "3 to 63 of a-z, 0-9, '-' and '.'", b"."),
    };
    Names { kind, rule, others }
}

fn parse_file(url: &str, rest: &str) -> Result<StoreUrl, StoreUrlRefused> {
    let path = match rest.strip_prefix("//") {
        Some(local) if local.starts_with('/') => local, // file:///path
        Some("") => return Err(StoreUrlRefused::NoPath { url: url.to_owned() }),
        Some(_) => return Err(StoreUrlRefused::Host { url: url.to_owned() }),
        None => rest,
    };
    if path.is_empty() {
        return Err(StoreUrlRefused::NoPath { url: url.to_owned() });
    }
    Ok(StoreUrl::File { path: PathBuf::from(path) })
}

fn parse_bucket(scheme: &str, rest: &str) -> Result<StoreUrl, StoreUrlRefused> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let Names { kind, rule, others } = names(scheme);
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let allowed = |byte: u8| is_alphanumeric(byte) || byte == b'-' || others.contains(&byte);
    let ends = [bucket.bytes().next(), bucket.bytes().next_back()];
    let sound_ends = ends.into_iter().all(|end| end.is_some_and(is_alphanumeric));
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(allowed) || !sound_ends {
        return Err(StoreUrlRefused::Bucket { bucket: bucket.to_owned(), kind, rule });
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if !prefix.is_empty() && !super::key::is_key(prefix) {
        return Err(StoreUrlRefused::Prefix { prefix: prefix.to_owned() });
    }
    let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
    Ok(match scheme {
        "gs" => StoreUrl::Gcs { bucket, prefix },
        "az" => StoreUrl::Azure { container: bucket, prefix },
        _ => StoreUrl::S3 { bucket, prefix },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_parse_and_print_alike() {
        for url in [
            "file:./aquifer-data/bucket",
            "file:/a b",
            "s3://water",
            "s3://water/a/b",
            "gs://deep_water/a",
            "az://water",
            "memory:",
        ] {
            assert_eq!(StoreUrl::parse(url).unwrap().to_string(), url);
        }
        assert_eq!(StoreUrl::parse("file:///var/x").unwrap().to_string(), "file:/var/x");
        assert_eq!(StoreUrl::parse("s3://water/a/").unwrap().to_string(), "s3://water/a");
    }

    #[test]
    fn a_wrong_address_says_what_to_write() {
        for (url, hint) in [
            ("", "s3://BUCKET/PREFIX"),
            ("/var/x", "file:PATH"),
            ("ftp://water", "gs://BUCKET/PREFIX"),
            ("gs:water", "s3://BUCKET/PREFIX"),
            ("s3://deep_water", "no bucket name"),
            ("gs://_water", "no bucket name"),
            ("az://deep.water", "no container name"),
            ("s3:water", "s3://BUCKET/PREFIX"),
            ("file:", "names no folder"),
            ("file://", "names no folder"),
            ("file://host/x", "another host"),
            ("s3://", "no bucket name"),
            ("s3://Water", "no bucket name"),
            ("s3://water//a", "no prefix"),
            ("s3://water/../a", "no prefix"),
            ("memory:x", "nothing behind"),
        ] {
            let error = StoreUrl::parse(url).unwrap_err().to_string();
            assert!(error.contains(hint), "{url}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_to_what_parses_alike(
            url in "(file|s3|gs|az|memory):[/a-z._-]{0,20}",
        ) {
            if let Ok(parsed) = StoreUrl::parse(&url) {
                prop_assert_eq!(StoreUrl::parse(&parsed.to_string()), Ok(parsed));
            }
        }
    }
}
