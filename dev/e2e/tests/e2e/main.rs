//! The whole ledger from outside, on real Kafka and real Postgres. Tests that kill processes are in `faults`.
//!
//! One test program, because linking each takes longer than most of its tests.

local_stack::shared_test_stack!();

mod alerts;
mod clients;
mod command_api;
mod console;
mod documents;
mod forms;
mod halted;
mod invitations;
mod payments;
mod query_api;
mod quotas;
mod rebuild;
mod redelivery;
mod schemas;
mod stack;
mod structure;

// Shared with the services' own tests.
#[path = "../../../../alert-worker/tests/delivery/fixture.rs"]
#[allow(dead_code, reason = "the alert worker's tests use more of it")]
mod fixture;
#[path = "../../../../projector/tests/projector/history.rs"]
mod history;
#[path = "../../../../alert-worker/tests/delivery/identity.rs"]
#[allow(dead_code, reason = "the alert worker's tests use more of it")]
mod identity;
#[path = "../../../../alert-worker/tests/delivery/receiver.rs"]
#[allow(dead_code, reason = "the alert worker's tests use more of it")]
mod receiver;
#[path = "../../../../alert-worker/tests/delivery/server.rs"]
#[allow(dead_code, reason = "the alert worker's tests use more of it")]
mod server;
#[path = "../../../../projector/tests/projector/world.rs"]
#[allow(dead_code, reason = "the projector's tests use more of it")]
mod world;
