//! Manual resolution of a top-up whose outcome is unknown, after an operator has checked with the provider.

use ledger_core::event::Event;
use ledger_core::policy::top_up;
use ledger_core::value::id::{AccountId, AttemptId, Label, PaymentId, Text};
use platform::clock;
use platform::pg::{self, Model, PgPool};

use super::store::{self, Parked};

/// The actor of manual resolutions: the command uses the database and has no API key.
const ACTOR: &str = "ledger-decide-top-up";

#[derive(Debug, Clone)]
pub enum Decision {
    /// Paid, by this payment.
    Paid(PaymentId),
    /// Not paid, for this reason.
    Failed(Text),
}

/// Why an attempt can't be resolved as requested.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// The account has no parked attempt.
    #[error("no top-up of {0} waits for a person")]
    NoneParked(AccountId),
    /// The payment is credited already, and can't be credited again.
    #[error(
        "payment {0} is credited already: say --failed, or --paid with the payment that the top-up was paid by"
    )]
    Credited(PaymentId),
    /// The fold refused the credit of the payment that the provider named: no other payment can be credited to the
    /// attempt.
    #[error(
        "payment {0} was told of it and its credit refused: record what else was paid as a purchase, and say --failed"
    )]
    Refused(PaymentId),
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
}

/// Ends the parked attempt of an account, and returns its id.
pub async fn decide(
    pool: &PgPool,
    account: &AccountId,
    decision: Decision,
) -> Result<AttemptId, DecideError> {
    let account = account.clone();
    let live = pg::live_generation(pool, Model::Alerting).await?;
    pg::write(pool, move |connection| {
        Box::pin(async move {
            let parked = store::parked(connection, &account).await?;
            let parked = parked.ok_or_else(|| DecideError::NoneParked(account.clone()))?;
            if let (Decision::Paid(_), Some(refused)) = (&decision, &parked.refused) {
                return Err(DecideError::Refused(refused.clone()));
            }
            if let (Decision::Paid(payment), Some(live)) = (&decision, live)
                && store::is_credited(connection, live, &account, payment).await?
            {
                return Err(DecideError::Credited(payment.clone()));
            }
            let event = event(&account, &parked, decision)?;
            store::report_parked(connection, &account, &parked.attempt, &event).await?;
            Ok(parked.attempt)
        })
    })
    .await
}

fn event(account: &AccountId, parked: &Parked, decision: Decision) -> Result<Event, sqlx::Error> {
    let at = if parked.live { clock::now() } else { parked.ledger_time };
    let event = match decision {
        Decision::Paid(payment) => {
            top_up::succeeded(account, parked.attempt.clone(), payment, parked.amount, None, at)
        }
        Decision::Failed(reason) => top_up::failed(account, parked.attempt.clone(), reason, at),
    };
    let actor = Label::new(ACTOR).map_err(|error| sqlx::Error::Encode(error.into()))?;
    Ok(Event { actor, ..event })
}
