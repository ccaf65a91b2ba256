//! The fold in Postgres: cores and pages loaded for a batch of records, folded, and stored again.
//!
//! Whoever folds the journal into tables does it here, so that accounts, lots, repayments and halted accounts are kept
//! one way; a `Book` says what else is made of it. Its schema has the tables `account`, `event`, `lot`, `repayment` and
//! `parked` with the columns read here.

mod cache;
mod intake;
mod load;
mod rows;
mod store;
mod worker;

pub use cache::Cache;
pub use intake::Decode;
pub use load::{cores, lots_of};
pub use rows::{Amount, Rows};
pub use store::{Reversed, column, lot_changes, write_reversals};
pub use worker::{Account, Accounts, Book, Fold, RESUMED_RECORDS_MAX};
