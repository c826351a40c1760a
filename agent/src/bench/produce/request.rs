//! A Produce request that is encoded once and patched from then on. [pure]
//!
//! It is written as slices: what changes, the shared tail, what changes, the tail again. Nothing
//! of the payload is copied per request.

use std::{
    io::{self, IoSlice, Write},
    ops::RangeInclusive,
};

use super::template::{BatchTemplate, BatchVariables};
use crate::{
    bench::client::CLIENT_ID,
    wire::{
        ApiKey, Str, Uuid, Writer,
        codec::{Element as _, Nullable as _},
        header::{RequestHeader, is_flexible},
    },
};

/// The versions that are written here.
pub const VERSIONS: RangeInclusive<i16> = 3..=13;

/// From this version on a topic goes by its id.
const FIRST_WITH_TOPIC_ID: i16 = 13;

const CORRELATION_AT: usize = 8;

/// What is the same in every request of a connection.
#[derive(Clone, Debug)]
pub struct RequestShape {
    /// One of [`VERSIONS`].
    pub version: i16,
    /// The topic's name, sent up to version 12.
    pub topic_name: Str,
    /// The topic's id, sent from version 13 on.
    pub topic_id: Uuid,
    /// -1 or 1.
    pub acks: i16,
    /// How long the broker may take.
    pub timeout_ms: i32,
    /// Batches in a request, each of another partition.
    pub batches: usize,
}

/// One connection's request.
#[derive(Clone, Debug)]
pub struct RequestTemplate<'a> {
    batch: &'a BatchTemplate,
    /// All but the tails.
    changing: Vec<u8>,
    batches: Vec<BatchPlace>,
}

/// Where a batch is in the part that changes.
#[derive(Clone, Copy, Debug)]
struct BatchPlace {
    partition_at: usize,
    head_at: usize,
}

impl<'a> RequestTemplate<'a> {
    /// Encodes it.
    ///
    /// # Panics
    /// When the whole takes 2 GiB.
    pub fn new(shape: &RequestShape, batch: &'a BatchTemplate) -> Self {
        let (version, flexible) = (shape.version, is_flexible(ApiKey::Produce, shape.version));
        let mut w = Writer::default();
        w.put(&[0; 4]);
        let client_id = Some(Str::from_static(CLIENT_ID));
        RequestHeader { correlation_id: 0, client_id }.encode(ApiKey::Produce, version, &mut w);
        Str::write_nullable(None, &mut w, version, flexible);
        shape.acks.write(&mut w, version, flexible);
        shape.timeout_ms.write(&mut w, version, flexible);
        w.put_length(Some(1), flexible);
        match version < FIRST_WITH_TOPIC_ID {
            true => shape.topic_name.write(&mut w, version, flexible),
            false => shape.topic_id.write(&mut w, version, flexible),
        }
        w.put_length(Some(shape.batches), flexible);
        let mut batches = Vec::with_capacity(shape.batches);
        for _ in 0..shape.batches {
            let partition_at = w.len();
            w.put(&[0; 4]);
            w.put_length(Some(batch.batch_bytes()), flexible);
            batches.push(BatchPlace { partition_at, head_at: w.len() });
            w.put(&vec![0; batch.head_bytes()]);
            end_of_struct(&mut w, flexible);
        }
        end_of_struct(&mut w, flexible);
        end_of_struct(&mut w, flexible);
        let mut changing = w.into_bytes().to_vec();
        let frame_bytes = changing.len() - 4 + shape.batches * batch.tail().len();
        let length = i32::try_from(frame_bytes).expect("a request is below 2 GiB");
        changing[..4].copy_from_slice(&length.to_be_bytes());
        Self { batch, changing, batches }
    }

    /// Sets what the answer is told by.
    pub fn set_correlation_id(&mut self, correlation_id: i32) {
        self.changing[CORRELATION_AT..CORRELATION_AT + 4]
            .copy_from_slice(&correlation_id.to_be_bytes());
    }

    /// Sets the partition and the changing part of the `index`-th batch.
    ///
    /// # Panics
    /// When there is no such batch.
    pub fn set_batch(&mut self, index: usize, partition: i32, variables: &BatchVariables) {
        let BatchPlace { partition_at, head_at } = self.batches[index];
        self.changing[partition_at..partition_at + 4].copy_from_slice(&partition.to_be_bytes());
        let head_end = head_at + self.batch.head_bytes();
        self.batch.seal(&mut self.changing[head_at..head_end], variables);
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// The socket's.
    pub fn write_to(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut slices = Vec::with_capacity(2 * self.batches.len() + 1);
        let mut written = 0;
        for place in &self.batches {
            let end = place.head_at + self.batch.head_bytes();
            slices.push(IoSlice::new(&self.changing[written..end]));
            slices.push(IoSlice::new(self.batch.tail()));
            written = end;
        }
        slices.push(IoSlice::new(&self.changing[written..]));
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match stream.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => IoSlice::advance_slices(&mut left, bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn end_of_struct(w: &mut Writer, flexible: bool) {
    if flexible {
        w.put_uvarint(0); // No tagged fields.
    }
}

#[cfg(test)]
mod tests;
