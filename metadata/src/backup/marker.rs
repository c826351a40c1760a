//! The marker of a life that a restore began: written before anything else of it, never changed
//! [pure].

use aquifer_storage::{format::object_key::parse_lineage, model::Lineage};
use serde::{Deserialize, Serialize};

/// The newest format this build knows.
const FORMAT: u32 = 1;

/// What a marker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The cluster.
    pub cluster_id: String,
    /// The life.
    pub lineage: Lineage,
    /// By how much each partition's next offset was raised when it began.
    pub offset_jump: u64,
}

/// A marker that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkerRefused {
    /// A newer version wrote it.
    #[error("it has format {format}, this version reads up to {FORMAT}: use the newer aquifer")]
    Newer {
        /// As written.
        format: u32,
    },
    /// It is not what any version writes.
    #[error("it is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct FormatOne {
    format: u32,
    cluster_id: String,
    lineage: String,
    offset_jump: u64,
}

impl Marker {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let file = FormatOne {
            format: FORMAT,
            cluster_id: self.cluster_id.clone(),
            lineage: self.lineage.to_string(),
            offset_jump: self.offset_jump,
        };
        serde_json::to_vec_pretty(&file).expect("strings and numbers serialize")
    }

    /// The marker of these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, MarkerRefused> {
        let damaged = |reason: String| MarkerRefused::Damaged { reason };
        let AnyFormat { format } =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if FORMAT < format {
            return Err(MarkerRefused::Newer { format });
        }
        let file: FormatOne =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        let lineage = parse_lineage(&file.lineage);
        let lineage = lineage.ok_or_else(|| damaged("its lineage is none".to_owned()))?;
        Ok(Self { cluster_id: file.cluster_id, lineage, offset_jump: file.offset_jump })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_back_and_a_newer_one_refused_with_advice() {
        let lineage = Lineage { number: 3, nonce: 9 };
        let marker = Marker { cluster_id: "c".into(), lineage, offset_jump: 7 };
        assert_eq!(Marker::decode(&marker.encode()).unwrap(), marker);
        let newer = Marker::decode(br#"{"format": 2, "what": "ever"}"#).unwrap_err().to_string();
        assert!(newer.contains("newer aquifer"), "{newer}");
        for wrong in
            ["", "{}", r#"{"format": 1, "cluster_id": "c", "lineage": "0", "offset_jump": 1}"#]
        {
            assert!(Marker::decode(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
