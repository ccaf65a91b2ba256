//! The fold in Postgres: loads cores and pages for a batch of records, folds the records, and stores the result.
//!
//! Every worker that folds the journal into tables uses this module, so that accounts, lots, repayments and halted
//! accounts are stored in one way; a [`Projection`] defines the rest. Its schema has the tables `account`, `event`,
//! `lot`, `repayment`, `parked` and `halted` with the columns read here.

mod accounts;
mod cache;
mod classify;
mod projection;
mod repeated;
mod reversals;
mod store;
mod worker;

pub use accounts::{Account, Accounts};
pub use cache::Cache;
pub use classify::Decode;
pub use projection::Projection;
pub use repeated::note_repeated;
pub use reversals::{Reversed, write_reversals};
pub use store::lot_changes;
pub use worker::FoldWorker;
