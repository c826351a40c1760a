//! Which batches belong to transactions that were aborted. Pure.

use std::collections::BTreeSet;

use crate::{
    cli::records::{Batch, Marker},
    wire::messages::FetchResponseResponsesPartitionsAbortedTransactions as AbortedRow,
};

/// The transactions of one answer that were aborted, looked through in offset order.
#[derive(Debug, Default)]
pub struct Aborted {
    /// (first offset, producer id), falling, so that the next one is at the end.
    ahead: Vec<(i64, i64)>,
    /// Producers whose batches are aborted from here to their marker.
    open: BTreeSet<i64>,
}

impl Aborted {
    /// Of an answer's rows.
    pub fn of(rows: &[AbortedRow]) -> Self {
        let rows = rows.iter().map(|row| (row.first_offset, row.producer_id));
        let mut ahead: Vec<(i64, i64)> = rows.collect();
        ahead.sort_unstable_by(|a, b| b.cmp(a));
        Self { ahead, open: BTreeSet::new() }
    }

    /// Whether the records of the next batch are to be skipped.
    pub fn skips(&mut self, batch: &Batch) -> bool {
        let header = &batch.header;
        let reached = batch.next_offset();
        while let Some((_, producer)) = self.ahead.pop_if(|(first, _)| *first < reached) {
            self.open.insert(producer);
        }
        if batch.marker() == Some(Marker::Abort) {
            self.open.remove(&header.producer_id);
        }
        header.attributes.is_transactional() && self.open.contains(&header.producer_id)
    }
}

#[cfg(test)]
mod tests {
    use aquifer_storage::{
        format::record_batch::{BatchProducer, Codec},
        model::{ProducerEpoch, ProducerId, Sequence},
    };
    use bytes::Bytes;

    use super::*;
    use crate::cli::records::{Record, encode_batch};

    const TRANSACTIONAL: u8 = 1 << 4;
    const CONTROL: u8 = 1 << 5;

    fn batch(offset: i64, producer: i64, attributes: u8, record: Record) -> Batch {
        let producer = BatchProducer {
            id: ProducerId::new(producer),
            epoch: ProducerEpoch::new(0).expect("not negative"),
            base_sequence: Sequence::ZERO,
        };
        let mut bytes = encode_batch(&[record], producer, Codec::None).to_vec();
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        bytes[22] = attributes;
        let crc = aquifer_storage::format::checksum::Crc32c::of(&bytes[21..]).value();
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Batch::take(&mut Bytes::from(bytes)).unwrap().expect("a batch")
    }

    fn records(offset: i64, producer: i64) -> Batch {
        batch(offset, producer, TRANSACTIONAL, Record::default())
    }

    fn marker(offset: i64, producer: i64, kind: u8) -> Batch {
        let key = Some(Bytes::from(vec![0, 0, 0, kind]));
        let record = Record { key, ..Record::default() };
        batch(offset, producer, TRANSACTIONAL | CONTROL, record)
    }

    #[test]
    fn an_aborted_transaction_is_skipped_up_to_its_marker_and_its_neighbours_are_not() {
        let row = |producer_id, first_offset| AbortedRow { producer_id, first_offset };
        let mut aborted = Aborted::of(&[row(7, 4), row(7, 0)]);
        assert!(aborted.skips(&records(0, 7)));
        assert!(!aborted.skips(&records(1, 8)), "another producer");
        aborted.skips(&marker(2, 7, 0));
        assert!(!aborted.skips(&records(3, 7)), "its next transaction was committed");
        assert!(aborted.skips(&records(4, 7)), "and the one after that aborted");
        aborted.skips(&marker(5, 8, 1));
        assert!(aborted.skips(&records(6, 7)), "a commit of another ends nothing");
        let plain = batch(7, 7, 0, Record::default());
        assert!(!aborted.skips(&plain), "what is in no transaction is always there");
    }
}
