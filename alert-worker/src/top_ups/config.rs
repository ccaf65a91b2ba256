//! Settings of top-ups.

use clap::Args;
use payments::CALL_TIME_MAX;

/// Milliseconds between two rounds by default.
const INTERVAL_MS: u64 = 100;
/// Milliseconds before an unknown outcome is requested again, by default.
const FIRST_BACKOFF_MS: u64 = 5_000;

/// Calls that one attempt may need: a look-up, the payment method's owner, the charge, and a look-up after a refusal.
const CALLS_MAX: u64 = 4;
/// Milliseconds added for the database.
const LEASE_SLACK_MS: u64 = 20_000;
/// Milliseconds of a lease by default: it expires only if the worker has crashed.
const LEASE_MS: u64 = CALLS_MAX * CALL_TIME_MAX.as_secs() * 1_000 + LEASE_SLACK_MS;

/// How top-ups run.
#[derive(Debug, Clone, Args)]
pub struct TopUpConfig {
    /// Milliseconds between two rounds that charge top-ups
    #[arg(long, env = "LEDGER_TOP_UP_INTERVAL_MS", default_value_t = INTERVAL_MS, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub top_up_interval_ms: u64,
    /// Milliseconds before a charge without an answer is sent to the payment provider again; each further pause is twice the one before, an hour at most
    #[arg(long, env = "LEDGER_TOP_UP_FIRST_BACKOFF_MS", default_value_t = FIRST_BACKOFF_MS, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub top_up_first_backoff_ms: u64,
    /// Milliseconds after which another worker takes over an attempt whose worker reports no outcome; longer than four calls of 20 s may take
    #[arg(long, env = "LEDGER_TOP_UP_LEASE_MS", default_value_t = LEASE_MS, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub top_up_lease_ms: u64,
}

impl Default for TopUpConfig {
    fn default() -> Self {
        Self {
            top_up_interval_ms: INTERVAL_MS,
            top_up_first_backoff_ms: FIRST_BACKOFF_MS,
            top_up_lease_ms: LEASE_MS,
        }
    }
}
