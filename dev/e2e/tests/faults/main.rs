//! The services as real processes that are killed: nothing is lost, nothing counts twice.
//!
//! Every test ends with the journal folded anew, in memory and into another generation: both must equal the live one.

local_stack::shared_test_stack!();

mod altered;
mod auto_top_ups;
mod campaign;
mod disks;
mod drain;
mod holds;
mod kafka_security;
mod kills;
mod outages;
mod resets;
mod restored;
mod signing;

mod client;
mod fleet;
mod fuzz;
mod history;
mod verify;

// Shared with the services' own tests.
#[path = "../../../../alert-worker/tests/delivery/identity.rs"]
#[allow(dead_code, reason = "the alert worker's tests use more of it")]
mod identity;
#[path = "../../../../alert-worker/tests/delivery/server.rs"]
#[allow(dead_code, reason = "the alert worker's tests use more of it")]
mod server;
