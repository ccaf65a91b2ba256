//! The services as real processes, killed for real: nothing lost, nothing twice.
//!
//! Every test ends with the journal folded anew, in memory and into another generation: both must equal what stands.

local_stack::shared_test_stack!();

mod drain;
mod holds;
mod kills;
mod outages;
mod resets;
mod top_ups;

mod client;
mod fleet;
mod history;
mod verify;
