//! `cluster.json`: whose prefix this is. Written once per lineage, read at every start.

use serde::{Deserialize, Serialize};

use crate::{format::object_key::parse_lineage, model::Lineage};

/// The key of the file, relative to the store's prefix.
pub const CLUSTER_FILE_KEY: &str = "cluster.json";

/// The version that this code writes, and the newest that it reads.
pub const CLUSTER_FILE_FORMAT: u32 = 1;

/// Longer than any cluster id that Kafka's tools accept.
const CLUSTER_ID_BYTES_MAX: usize = 255;

/// The contents of `cluster.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFile {
    /// The cluster's id, as clients see it.
    pub cluster_id: String,
    /// The lineage that owns the prefix.
    pub lineage: Lineage,
}

/// A `cluster.json` that cannot be used. Never overwritten by us.
#[derive(Debug, thiserror::Error)]
pub enum ClusterFileRefused {
    /// Written by a newer version.
    #[error(
        "{CLUSTER_FILE_KEY} has format {format}, this version knows {CLUSTER_FILE_FORMAT}: run the \
         version that wrote it, or a newer one"
    )]
    NewerFormat {
        /// As written.
        format: u32,
    },
    /// Not the JSON that any version writes.
    #[error("{CLUSTER_FILE_KEY} does not parse: is this prefix really of an Aquifer cluster?")]
    NotJson {
        /// The parser's reason.
        #[from]
        source: serde_json::Error,
    },
    /// A field holds what no version writes.
    #[error("{CLUSTER_FILE_KEY} has an unusable {field}")]
    Field {
        /// Its name.
        field: &'static str,
    },
}

/// The one field that every version keeps.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct FormatOne {
    format: u32,
    cluster_id: String,
    lineage: String,
}

impl ClusterFile {
    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let file = FormatOne {
            format: CLUSTER_FILE_FORMAT,
            cluster_id: self.cluster_id.clone(),
            lineage: self.lineage.to_string(),
        };
        let mut bytes = serde_json::to_vec_pretty(&file).expect("strings and numbers serialize");
        bytes.push(b'\n'); // People read it.
        bytes
    }

    /// Decodes the file's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ClusterFileRefused> {
        let AnyFormat { format } = serde_json::from_slice(bytes)?;
        if CLUSTER_FILE_FORMAT < format {
            return Err(ClusterFileRefused::NewerFormat { format });
        }
        let file: FormatOne = serde_json::from_slice(bytes)?;
        if file.cluster_id.is_empty() || CLUSTER_ID_BYTES_MAX < file.cluster_id.len() {
            return Err(ClusterFileRefused::Field { field: "cluster_id" });
        }
        let lineage =
            parse_lineage(&file.lineage).ok_or(ClusterFileRefused::Field { field: "lineage" })?;
        Ok(Self { cluster_id: file.cluster_id, lineage })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_newer_format_is_refused_with_advice_whatever_else_it_holds() {
        let error = ClusterFile::decode(br#"{"format": 2, "well": [1]}"#).unwrap_err();
        assert!(matches!(error, ClusterFileRefused::NewerFormat { format: 2 }));
        assert!(error.to_string().contains("run the version that wrote it"));
    }

    #[test]
    fn foreign_json_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"format": -1}"#,
            r#"{"format": 1, "cluster_id": "", "lineage": "0-0000000000000001"}"#,
            r#"{"format": 1, "cluster_id": "a", "lineage": "0-1"}"#,
        ] {
            assert!(ClusterFile::decode(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_file_survives_a_round_trip(
            cluster_id in "[ -~]{1,64}", number: u32, nonce: u64,
        ) {
            let file = ClusterFile { cluster_id, lineage: Lineage { number, nonce } };
            prop_assert_eq!(ClusterFile::decode(&file.encode()).unwrap(), file);
        }
    }
}
