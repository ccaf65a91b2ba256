//! Reads what callers send, and names every bad field at once.

mod body;
pub mod json;
pub mod limits;
mod offer;
mod read;

pub use body::Body;
pub use offer::{OFFERED_TYPE, Offer, PLAIN_SOURCE, check_age, read_offer, read_plain_usage};
pub use read::{read, read_into, read_opening, read_org_alert, take};
