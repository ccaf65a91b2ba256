//! Alerts, limits reached and notices: every rule as a story, and any history against a naive model.

mod backtests;
mod naive;
mod notices;
mod properties;
mod rules;
#[path = "../story/mod.rs"]
mod story;
mod watched;
