//! Reading and cutting what a plan names, so that `benches/hot.rs` can count what it costs.
//!
//! As in [`crate::produce::hot`]: the only door to a private module, for the feature
//! `bench-internals` alone.

use aquifer_metadata::machine::effect::Pointers;
use aquifer_storage::cache::ObjectReader;
use bytes::Bytes;
use futures::FutureExt;

use super::{plan::PartitionPlan, reader};

/// The batches of a plan whose rows are all cached: nothing has to be waited for.
///
/// # Panics
/// When a row is not cached, or is damaged.
pub fn cut(reader: &ObjectReader, plan: &PartitionPlan, pointers: &Pointers) -> Vec<Bytes> {
    let read = reader::read(reader, plan, pointers, true, None).now_or_never();
    let cutting = read.expect("the rows are cached");
    cutting.unwrap_or_else(|failed| panic!("the rows are sound: {failed:?}")).chunks
}
