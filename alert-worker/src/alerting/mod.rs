//! Alerting: folds the journal a second time, evaluates the rules of each account, and records what fired.
//!
//! Writes `alerting_<n>`, and in the same transaction the outbox of notifications.

mod changes;
mod evaluate;
mod load;
mod notify_from;
mod restored;
mod run;
mod store;
mod watched;

pub use evaluate::{Alerting, Evaluation};
pub use notify_from::{Notified, NotifyFrom};
pub use run::{LANES, Options, begin, lanes, watch};
