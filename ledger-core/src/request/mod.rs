//! Reads what callers send, and names every bad field at once.

mod binary;
mod body;
pub mod json;
pub mod limits;
mod offer;
mod read;

pub use binary::read_binary_offer;
pub use body::Body;
pub use offer::{
    OFFERED_TYPE, Offer, PLAIN_SOURCE, PlainUsage, UsageEvent, check_age, read_offer, read_plain_usage,
};
pub use read::{Opening, read, read_into, read_opening, read_org_alert, take};
