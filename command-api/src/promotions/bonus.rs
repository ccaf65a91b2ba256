//! Bonuses: grants that the ledger makes by itself, each once.

use ledger_core::event::{Data, Grant, GrantSource, derive};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, GrantId};
use platform::pg::PgConnection;
use web::http::Problem;

use crate::app::App;
use crate::write::effects::Effect;

/// Makes the grant of a bonus under an id derived from its reason.
pub fn grant_effect(
    account: &AccountId,
    id: &str,
    source: GrantSource,
    amount: Credits,
) -> Result<Effect, Problem> {
    let grant_id = GrantId::new(id)
        .map_err(|_| Problem::bad_field("account_id", "too_long", "is too long for its bonus"))?;
    let event_id = grant_id.as_event();
    let (priority, effective_at, expires_at, reason) = (None, None, None, None);
    let grant = Grant { grant_id, source, amount, priority, effective_at, expires_at, reason };
    Ok(Effect {
        account: account.clone(),
        source: derive::GRANTS,
        event_id,
        data: Data::CreditsGranted(grant),
    })
}

/// Returns the welcome bonus of a new account, if one is configured.
pub fn welcome(app: &App, account: &AccountId) -> Result<Option<Effect>, Problem> {
    let amount = app.sales.promotions.welcome_bonus;
    let wanted = amount.is_positive();
    wanted
        .then(|| grant_effect(account, &format!("welcome:{account}"), GrantSource::Welcome, amount))
        .transpose()
}

/// Serializes the requests of one account.
pub async fn lock_account(connection: &mut PgConnection, account: &AccountId) -> Result<(), sqlx::Error> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('growth/' || $1, 0))", account.as_str())
        .execute(connection)
        .await
        .map(drop)
}
