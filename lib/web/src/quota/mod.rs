//! Quotas: what one caller may take of what all callers share.

mod attempts;
mod rates;
mod slots;

pub use attempts::Attempts;
pub use rates::Rates;
pub use slots::{Slot, Slots};
