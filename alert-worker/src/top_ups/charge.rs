//! Charges attempts at the provider, and turns its reply into the event that reports it.

use std::sync::Arc;

use ledger_core::event::{Event, Price};
use ledger_core::policy::top_up;
use ledger_core::value::id::{PaymentId, Text};
use ledger_core::value::time::Time;
use payments::{Charge, Found, Provider, Reply, is_too_old};
use platform::pg::PgPool;
use platform::{clock, failpoint};
use tokio::task::JoinSet;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::config::TopUpConfig;
use super::store::{self, Due};

/// Longest pause between two requests for one attempt: an hour.
const BACKOFF_MS_MAX: u64 = 3_600_000;

/// Attempts that a worker charges concurrently.
const CHARGES_MAX: usize = 16;

/// Charges each attempt on a task of its own, so that a slow one does not block the others.
pub struct Charger {
    context: Arc<ChargeContext>,
    charging: JoinSet<()>,
}

struct ChargeContext {
    config: TopUpConfig,
    pool: PgPool,
    provider: Arc<dyn Provider>,
    /// The journal's id, the first part of each provider key.
    log_id: Uuid,
}

impl Charger {
    pub fn new(config: TopUpConfig, pool: PgPool, provider: Arc<dyn Provider>, log_id: Uuid) -> Charger {
        let context = ChargeContext { config, pool, provider, log_id };
        Charger { context: Arc::new(context), charging: JoinSet::new() }
    }

    /// Starts to charge due attempts.
    pub async fn charge_due(&mut self) -> Result<(), sqlx::Error> {
        let free = CHARGES_MAX - self.charging.len();
        if free == 0 {
            return Ok(());
        }
        let ChargeContext { config, pool, log_id, .. } = self.context.as_ref();
        for due in store::lease(pool, *log_id, config.top_up_lease_ms, free).await? {
            let context = Arc::clone(&self.context);
            self.charging.spawn(async move {
                if let Err(error) = context.charge(&due).await {
                    let (account, attempt) = (&due.charge.account, &due.charge.attempt);
                    warn!(account_id = %account, %attempt, %error, "outcome not recorded, so it is charged again under the same key");
                }
            });
        }
        Ok(())
    }

    /// Completes when the next charge ends; at once if none is running.
    pub async fn answered(&mut self) -> Option<()> {
        let ended = self.charging.join_next().await?;
        if let Err(error) = ended {
            error!(%error, "a task that charges a top-up broke off; its lease runs out");
        }
        Some(())
    }
}

impl ChargeContext {
    async fn charge(&self, due: &Due) -> Result<(), sqlx::Error> {
        let (config, pool, charge) = (&self.config, &self.pool, &due.charge);
        failpoint::hit("top_up.before_charge");
        let reply = reply(self.provider.as_ref(), due, clock::now()).await;
        failpoint::hit("top_up.after_charge");
        let detail = format!("{reply:?}");
        match reply {
            Some(Reply::Paid { payment_id, price }) => {
                info!(account_id = %charge.account, attempt = %charge.attempt, amount = %charge.amount, "topped up");
                let event = succeeded(due, payment_id.clone(), price, clock::now());
                count("paid");
                store::report(pool, charge, Some(payment_id), detail, event).await
            }
            Some(Reply::Declined { reason }) => {
                info!(account_id = %charge.account, attempt = %charge.attempt, %reason, "top-up declined");
                count("declined");
                store::report(pool, charge, None, detail, failed(due, reason, clock::now())).await
            }
            Some(Reply::Unknown { detail }) => {
                warn!(account_id = %charge.account, attempt = %charge.attempt, detail, "outcome of a top-up unknown");
                count("unknown");
                let doublings = u32::try_from(due.attempts - 1).unwrap_or_default().min(20);
                let pause = (config.top_up_first_backoff_ms << doublings).min(BACKOFF_MS_MAX);
                store::ask_again(pool, charge, &detail, i64::try_from(pause).unwrap_or(i64::MAX)).await
            }
            None => {
                error!(account_id = %charge.account, attempt = %charge.attempt, "outcome of a top-up unknown for 20 h: a person has to decide");
                count("parked");
                store::park(pool, charge, "unknown for 20 h").await
            }
        }
    }
}

/// Charges, after a look-up if the provider may know the attempt; `None` if the provider will never know it.
async fn reply(provider: &dyn Provider, due: &Due, now: Time) -> Option<Reply> {
    let charge: &Charge = &due.charge;
    let too_old = is_too_old(charge.since, now);
    if due.verify_first || too_old {
        match provider.look_up(charge).await {
            Found::Known(Reply::Unknown { .. }) if too_old => return None,
            Found::Known(reply) => return Some(reply),
            Found::Nothing if too_old => return None,
            Found::Nothing => {}
        }
    }
    let refused = match provider.charge(charge).await {
        Ok(reply) => return Some(reply),
        Err(refused) => refused,
    };
    if due.is_first() {
        return Some(Reply::Declined { reason: refused.reason });
    }
    // An earlier call may have charged it, by a card that has since been removed.
    match provider.look_up(charge).await {
        Found::Known(reply) => Some(reply),
        Found::Nothing => Some(Reply::Unknown { detail: refused.to_string() }),
    }
}

fn succeeded(due: &Due, payment_id: PaymentId, price: Option<Price>, now: Time) -> Event {
    let Charge { account, attempt, amount, .. } = &due.charge;
    top_up::succeeded(account, attempt.clone(), payment_id, *amount, price, stamp(due, now))
}

fn failed(due: &Due, reason: Text, now: Time) -> Event {
    top_up::failed(&due.charge.account, due.charge.attempt.clone(), reason, stamp(due, now))
}

/// A test account's time moves only by its writes.
fn stamp(due: &Due, now: Time) -> Time {
    if due.live { now } else { due.ledger_time }
}

fn count(outcome: &'static str) {
    metrics::counter!("ledger_top_ups_total", "outcome" => outcome).increment(1);
}
