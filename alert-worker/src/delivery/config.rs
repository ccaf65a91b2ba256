//! Settings of delivery.

use clap::Args;
use contacts::webhook::WebhookConfig;

use super::mail;

/// Days that notifications are kept by default.
const KEEP_DAYS: u32 = 400;

/// Milliseconds between two rounds by default.
const INTERVAL_MS: u64 = 200;
/// Milliseconds before the second attempt by default.
const FIRST_BACKOFF_MS: u64 = 5_000;
/// Attempts by default: with the pauses between them five to ten hours.
const ATTEMPTS: i32 = 20;

/// How delivery runs.
#[derive(Debug, Clone, Args)]
pub struct DeliveryConfig {
    /// The mail server, as smtp://user:password@host:587?tls=required or smtps://...; without it mails are parked
    #[arg(
        long,
        env = "LEDGER_SMTP_URL",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub smtp_url: String,
    /// Who mails are from: set it to an address of yours, which the mail server lets this machine use
    #[arg(long, env = "LEDGER_MAIL_FROM", default_value = mail::FROM)]
    pub mail_from: String,
    /// Which addresses webhooks call.
    #[command(flatten)]
    pub webhook: WebhookConfig,
    /// Milliseconds between two rounds of delivery
    #[arg(long, env = "LEDGER_DELIVERY_INTERVAL_MS", default_value_t = INTERVAL_MS, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub delivery_interval_ms: u64,
    /// Milliseconds before the second attempt; each further pause is twice the one before, an hour at most
    #[arg(long, env = "LEDGER_DELIVERY_FIRST_BACKOFF_MS", default_value_t = FIRST_BACKOFF_MS, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub delivery_first_backoff_ms: u64,
    /// Attempts before a notification is parked; 20 are five to ten hours
    #[arg(long, env = "LEDGER_DELIVERY_ATTEMPTS", default_value_t = ATTEMPTS, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub delivery_attempts: i32,
    /// Days that notifications are kept once they are delivered or parked, with the addresses that they went to
    #[arg(long, env = "LEDGER_NOTIFICATIONS_KEEP_DAYS", default_value_t = KEEP_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub notifications_keep_days: u32,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            smtp_url: String::new(),
            mail_from: mail::FROM.to_owned(),
            webhook: WebhookConfig::default(),
            delivery_interval_ms: INTERVAL_MS,
            delivery_first_backoff_ms: FIRST_BACKOFF_MS,
            delivery_attempts: ATTEMPTS,
            notifications_keep_days: KEEP_DAYS,
        }
    }
}
