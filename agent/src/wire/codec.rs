//! Kafka's primitive encodings, and the traits the generated messages are made of.
//!
//! Every count and length is checked against the bytes that are there before it sizes anything,
//! and what a decode allocates is charged to the [`Reader`]'s budget.

mod element;
mod reader;
mod tags;
mod value;
mod writer;

pub use element::{Element, Nullable, read_null_if, write_null_if};
pub use reader::{DecodeError, Reader};
pub use tags::{TagReader, TagWriter};
pub use value::{Records, Str, Uuid};
pub use writer::Writer;

#[cfg(test)]
mod tests;
