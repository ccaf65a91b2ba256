//! Test calls of webhooks: by the client and the rules of real ones, and limited in rate.

use std::time::Duration;

use contacts::webhook::{Answer, Client, Failure, Hook, Message, WebhookConfig};
use ledger_core::value::id::AccountId;
use ledger_core::value::time::Time;
use web::http::Problem;
use web::quota::{Attempts, Slot, Slots};

/// Calls of one account in [`WINDOW`].
const CALLS_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Calls under way at once; one account has one.
const AT_ONCE_MAX: usize = 16;

pub struct TestCalls {
    client: Client,
    rate: Attempts<AccountId>,
    under_way: Slots,
}

impl TestCalls {
    pub fn new(config: WebhookConfig) -> anyhow::Result<TestCalls> {
        let (rate, under_way) = (Attempts::new(CALLS_MAX, WINDOW), Slots::with_share(AT_ONCE_MAX, 1));
        Ok(TestCalls { client: Client::new(config)?, rate, under_way })
    }

    /// Lets an account make one call until the slot is dropped: 429 if it has one under way, or had its share.
    pub fn begin(&self, account: &AccountId) -> Result<Slot, Problem> {
        let slot = self.under_way.take(&account.as_str().into());
        let slot = slot.ok_or_else(|| Problem::too_many_requests("another test call is under way"))?;
        let too_often = format!("a webhook is tested at most {CALLS_MAX} times a minute");
        self.rate.begin(account).map_err(|problem| Problem { detail: too_often, ..problem })?;
        Ok(slot)
    }

    pub async fn call(&self, hook: &Hook, message: Message<'_>, now: Time) -> Result<Answer, Failure> {
        let target = self.client.target(hook)?;
        self.client.call(&target, &hook.secrets, message, now).await
    }
}
