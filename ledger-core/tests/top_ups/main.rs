//! Auto top-up and disputes: every rule as a story, and any storm against brakes counted anew.

mod disputes;
mod rules;
mod storm;
#[path = "../story/mod.rs"]
mod story;
