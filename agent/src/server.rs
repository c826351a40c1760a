//! Kafka's side of the network: accept, read frames within budgets, answer in order.

pub mod connection;
mod connection_limit;
pub mod frame_reader;
pub mod listener;
pub mod refusal_log;
