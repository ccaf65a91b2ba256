//! Person: what somebody decides of an attempt that nobody knows the outcome of, once he has asked the provider himself.

use ledger_core::event::Event;
use ledger_core::id::{Id, Text};
use ledger_core::top_up;
use runtime::clock;
use runtime::pg::{self, PgPool};

use super::store::{self, Parked};

/// What has become of the attempt.
#[derive(Debug, Clone)]
pub enum Decision {
    /// It was paid, by this payment.
    Paid(Id),
    /// It was not, for this reason.
    Failed(Text),
}

/// Ends the attempt of an account that is parked, and returns its id; none: none is parked.
pub async fn decide(pool: &PgPool, account: &Id, decision: Decision) -> Result<Option<Id>, sqlx::Error> {
    let account = account.clone();
    pg::write(pool, move |connection| {
        Box::pin(async move {
            let Some(parked) = store::parked(connection, &account).await? else { return Ok(None) };
            let event = event(&account, &parked, decision);
            store::tell_parked(connection, &account, &parked.attempt, &event).await?;
            Ok(Some(parked.attempt))
        })
    })
    .await
}

fn event(account: &Id, parked: &Parked, decision: Decision) -> Event {
    let at = if parked.live { clock::now() } else { parked.ledger_time };
    match decision {
        Decision::Paid(payment) => {
            top_up::succeeded(account, parked.attempt.clone(), payment, parked.amount, at)
        }
        Decision::Failed(reason) => top_up::failed(account, parked.attempt.clone(), reason, at),
    }
}
