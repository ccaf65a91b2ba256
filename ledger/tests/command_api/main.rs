//! The write side over real HTTP, on real Kafka and Postgres, with the projector and the read side beside it.

#[path = "../whole/mod.rs"]
mod whole;

mod accounts;
