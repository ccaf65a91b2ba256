//! Orders: what may be bought for an account, and by which payment method.

use ledger_core::account::Core;
use ledger_core::event::SetAutoTopUp;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::AccountId;
use payments::{NoOwner, NotTheirs, Price, Unpayable, authorize, customer};
use platform::pg;
use web::http::Problem;

use crate::app::App;

/// The field of an amount that can't be paid for.
const AMOUNT: &str = "amount";
const PAYMENT_METHOD: &str = "payment_method";

/// Returns the price of an amount for an account: 404 if the account does not exist, 422 if it can't be paid for.
pub async fn price(app: &App, account: &AccountId, amount: Credits) -> Result<Price, Problem> {
    let core = core(app, account).await?;
    let core = core.ok_or_else(|| Problem::account_not_found(account.as_str()))?;
    Price::of(amount, core.usd_per_unit).map_err(|unpayable| match unpayable {
        Unpayable::NoPrice => Problem::unprocessable(unpayable.code(), unpayable.to_string()),
        Unpayable::TooSmall | Unpayable::TooLarge | Unpayable::TooFine => {
            Problem::bad_field(AMOUNT, unpayable.code(), unpayable.to_string())
        }
    })
}

/// Returns 422 unless the provider would take what these settings would order. Settings that are off order nothing.
pub async fn require_orderable(
    app: &App,
    account: &AccountId,
    settings: &SetAutoTopUp,
) -> Result<(), Problem> {
    if settings.enabled != Some(true) {
        return Ok(());
    }
    if let Some(amount) = settings.amount {
        price(app, account, amount).await?;
    }
    let Some(method) = &settings.payment_method else { return Ok(()) };
    let customer = customer::find(pg::bounded(&app.pool), account).await?;
    if customer.is_none() && app.sales.provider.name().moves_money() {
        return Err(not_chargeable(NotTheirs::NoCustomer));
    }
    let owner = app.sales.provider.owner(method).await.map_err(|no_owner| match no_owner {
        NoOwner::Refused(refused) => {
            let detail = format!("the payment provider does not know it: {}", refused.reason);
            Problem::bad_field(PAYMENT_METHOD, "unknown", detail)
        }
        NoOwner::Unavailable(detail) => {
            Problem::unavailable(format!("the payment provider can't be reached: {detail}"))
        }
    })?;
    authorize(&owner, customer.as_ref()).map_err(not_chargeable)
}

fn not_chargeable(not_theirs: NotTheirs) -> Problem {
    Problem::bad_field(PAYMENT_METHOD, not_theirs.code(), not_theirs.to_string())
}

/// Reads an account without its lots; none if it is not open.
pub async fn core(app: &App, account: &AccountId) -> Result<Option<Core>, sqlx::Error> {
    let account = account.to_string();
    let core: Option<String> = pg::read(&app.pool, app.waiter.schema(), |connection| {
        Box::pin(async move {
            let core = sqlx::query_scalar("select core::text from account where account_id = $1");
            core.bind(account).fetch_optional(connection).await
        })
    })
    .await?;
    core.map(|core| serde_json::from_str(&core).map_err(|error| sqlx::Error::Decode(error.into())))
        .transpose()
}
