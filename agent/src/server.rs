//! Kafka's side of the network: accept, read frames within budgets, answer in order.

pub mod connection;
pub mod frame_reader;
pub mod listener;
