//! Checks, holds and hard limits: every rule as a story, and any interleaving of many processes against a naive model.

mod rules;
mod seen;
mod simulation;
mod store;
#[path = "../story/mod.rs"]
mod story;
mod world;
