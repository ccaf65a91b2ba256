//! The limits of the API.
//!
//! Policy, which may change: nothing that reads the journal knows these numbers. Lower a limit at will; raising one above
//! what the journal can hold (`event::rules_v1`) does not compile.

use crate::event::rules_v1::{BOUNDS, Bounds};
use crate::value::credits::Credits;

/// Most errors listed in one answer.
pub const ERRORS_MAX: usize = 32;
/// Deepest nesting of JSON.
pub const JSON_DEPTH_MAX: usize = 8;
/// How far usage may be dated after its recording: 5 minutes.
pub const TOO_NEW_SECONDS: i64 = 5 * 60;
/// How far usage may be dated before its recording: 35 days.
pub const TOO_OLD_SECONDS: i64 = 35 * 24 * 60 * 60;
/// Longest lifetime of a hold from its creation or extension.
pub const TTL_SECONDS_MAX: u32 = 86_400;
/// Most meters of one rate card.
pub const METERS_MAX: usize = 1_000;

/// Limits of the event bodies that callers send.
pub const LIMITS: Bounds = Bounds {
    metadata_keys_max: 16,
    quantities_max: 32,
    priority_max: 1_000,
    custom_limits_max: 2_000,
    excluded_features_max: 100,
    recipients_max: 100,
    top_up_max: Credits::whole(100_000),
    top_ups_per_period_max: 1_000,
};

const _: () = assert!(LIMITS.is_within(&BOUNDS), "a caller could send what the journal can't read back");
