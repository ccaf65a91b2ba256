//! Top-ups: whichever process is killed, at any step, each attempt is charged once and each charge credited once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use platform::http_client;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::client;
use crate::fleet::Fleet;
use crate::verify::LIVE;

/// A lease of a killed worker, and all steps after it.
const ENDED_MAX: Duration = Duration::from_secs(120);
const ABORT_MAX: Duration = Duration::from_secs(120);

/// Attempts that have not ended, and events that are not appended yet.
const UNDER_WAY: &str = "
    select (select count(*) from control.top_up where state in ('proposed', 'started', 'told'))
         + (select count(*) from control.outbox where source = 'urn:ledger:auto-top-up')";

/// Sandbox charges without a lot of the same amount, and lots of top-ups without a charge.
const ASTRAY: &str = "
    select count(*)
    from (select payment_id from control.sandbox_charge where payment_id is not null) as charged
    full join (select payment_id from lot where source = 'top_up') as credited using (payment_id)
    where charged.payment_id is null or credited.payment_id is null";

impl Fleet {
    /// Waits until every attempt has ended; then each charge is one lot and each lot of a top-up one charge.
    pub async fn charged_once(&self) -> Result<()> {
        let deadline = Instant::now() + ENDED_MAX;
        while self.under_way().await? > 0 {
            ensure!(Instant::now() < deadline, "top-ups are still under way");
            sleep(Duration::from_millis(100)).await;
        }
        // The last credit may be folded by the alert worker and not by the projector yet.
        loop {
            let mut tx = platform::pg::begin_read(&self.pool, LIVE).await?;
            let astray: i64 = sqlx::query_scalar(ASTRAY).fetch_one(&mut *tx).await?;
            drop(tx);
            if astray == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{astray} charges or credits have no counterpart");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Returns how many attempts have not ended.
    pub async fn under_way(&self) -> Result<i64> {
        Ok(sqlx::query_scalar(UNDER_WAY).fetch_one(&self.pool).await?)
    }

    async fn charges(&self, account: &str) -> Result<i64> {
        let charges = "select count(*) from control.sandbox_charge where account_id = $1";
        Ok(sqlx::query_scalar(charges).bind(account).fetch_one(&self.pool).await?)
    }

    async fn until_charged(&self, account: &str) -> Result<()> {
        let deadline = Instant::now() + ENDED_MAX;
        while self.charges(account).await? == 0 {
            ensure!(Instant::now() < deadline, "{account} was never charged");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_of_a_top_up_charges_once_and_credits_once() -> Result<()> {
    let mut fleet = Fleet::start(&["projector", "command-api", "alert-worker"]).await?;
    let http = http_client::plain();
    // One method answers at once, one charges and does not answer: two faults at the same time.
    let failpoints = [
        ("alert-worker.before_commit", "pm_ok"),
        ("alert-worker.after_commit", "pm_timeout"),
        ("top_up.before_relay:1", "pm_ok"),
        ("top_up.after_relay:1", "pm_timeout"),
        ("top_up.before_charge", "pm_timeout"),
        ("top_up.after_charge", "pm_ok"),
        ("top_up.after_charge:2", "pm_timeout"),
        ("top_up.after_relay:2", "pm_ok"),
    ];
    for (number, (failpoint, method)) in failpoints.into_iter().enumerate() {
        let account = format!("acct-{number}");
        let body = json!({"account_id": account, "usd_per_unit": "0.01", "plan": {"cycle": "monthly", "allowance": "0"}});
        client::write(&fleet, &http, reqwest::Method::POST, "/v1/accounts", &body).await?;
        fleet.kill("alert-worker")?;
        fleet.launch("alert-worker", Some(failpoint))?;
        let settings = json!({"enabled": true, "threshold": "10", "amount": "50", "payment_method": method});
        let path = format!("/v1/accounts/{account}/auto-top-up");
        client::write(&fleet, &http, reqwest::Method::PUT, &path, &settings).await?;
        fleet.aborted("alert-worker", ABORT_MAX).await.with_context(|| failpoint.to_owned())?;
        fleet.launch("alert-worker", None)?;
        fleet.until_charged(&account).await?;
    }
    fleet.charged_once().await?;
    for (number, (failpoint, _)) in failpoints.into_iter().enumerate() {
        let charges = fleet.charges(&format!("acct-{number}")).await?;
        ensure!(charges == 1, "{charges} charges at {failpoint}");
    }
    fleet.ready("alert-worker").await?;
    fleet.replays_equal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_charge_once() -> Result<()> {
    let mut fleet = Fleet::start(&["projector", "command-api", "alert-worker", "alert-worker.2"]).await?;
    let http = http_client::plain();
    for number in 0..12 {
        let account = format!("acct-{number}");
        let body = json!({"account_id": account, "usd_per_unit": "0.01", "plan": {"cycle": "monthly", "allowance": "0"}});
        client::write(&fleet, &http, reqwest::Method::POST, "/v1/accounts", &body).await?;
        let method = ["pm_ok", "pm_timeout", "pm_fail"][number % 3];
        let settings = json!({"enabled": true, "threshold": "10", "amount": "50", "payment_method": method});
        let path = format!("/v1/accounts/{account}/auto-top-up");
        client::write(&fleet, &http, reqwest::Method::PUT, &path, &settings).await?;
    }
    for number in 0..12 {
        fleet.until_charged(&format!("acct-{number}")).await?;
    }
    fleet.charged_once().await?;
    for number in 0..12 {
        ensure!(fleet.charges(&format!("acct-{number}")).await? == 1);
    }
    fleet.kill("alert-worker.2")?;
    fleet.replays_equal().await
}
