//! The read side over real HTTP, on real Kafka and Postgres, fed through the write side and the projector.

#[path = "../whole/mod.rs"]
mod whole;

mod commands;
