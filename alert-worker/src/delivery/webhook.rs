//! Webhooks: sends notifications to the account's current webhook, and judges the answer.

use std::sync::Arc;

use contacts::webhook::{self, Answer, Client, Message, StatusCode, WebhookConfig};
use ledger_core::value::time::Time;
use platform::pg::PgPool;
use tokio::sync::Semaphore;
use web::quota::Slots;

use super::attempt::Failure;
use super::notification::Due;

#[derive(Clone)]
pub(super) struct Caller {
    pool: PgPool,
    client: Client,
    /// The calls under way, by host and port.
    targets: Arc<Slots>,
}

impl Caller {
    pub fn new(pool: PgPool, config: WebhookConfig, calls_per_target: usize) -> anyhow::Result<Caller> {
        let targets = Arc::new(Slots::with_share(Semaphore::MAX_PERMITS, calls_per_target));
        Ok(Caller { pool, client: Client::new(config)?, targets })
    }

    /// Calls the account's current webhook, once.
    pub async fn send(&self, due: &Due, now: Time) -> Result<(), Failure> {
        let hook = webhook::hook_of(&self.pool, &due.account_id).await;
        let Some(hook) = hook.map_err(Failure::retry)? else {
            return Err(Failure::park("the account has no webhook any more"));
        };
        let target = self.client.target(&hook)?;
        let _call = self.targets.take(&target.authority().into()).ok_or(Failure::Busy)?;
        let message = Message { id: &due.notification_id, body: &due.text };
        judge(self.client.call(&target, &hook.secrets, message, now).await?)
    }
}

impl From<webhook::Failure> for Failure {
    fn from(failure: webhook::Failure) -> Failure {
        match failure {
            webhook::Failure::Retry(reason) => Failure::Retry { reason, after: None },
            webhook::Failure::Park(reason) => Failure::Park { reason },
        }
    }
}

/// 2xx accepts and 410 ends delivery; any other answer is retried.
fn judge(answer: Answer) -> Result<(), Failure> {
    let Answer { status, said, after } = answer;
    if status.is_success() {
        return Ok(());
    }
    let reason = format!("the webhook answered {}: {said}", status.as_u16());
    let reason = reason.trim_end_matches([':', ' ']).to_owned();
    if status == StatusCode::GONE {
        Err(Failure::Park { reason })
    } else {
        Err(Failure::Retry { reason, after })
    }
}
