//! Checkout: a one-time purchase at the payment provider, credited when its webhook reports the payment.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ledger_core::account::Core;
use ledger_core::event::field_error::FieldError;
use ledger_core::request::Body;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::AccountId;
use ledger_core::value::money::Usd;
use payments::{CheckoutError, Order};
use platform::pg;
use serde::Deserialize;
use web::auth::Action;
use web::http::{Path, Problem, read_body};

use crate::app::App;
use crate::request_context::RequestContext;
use crate::write;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCheckout {
    amount: Credits,
}

impl Body for NewCheckout {
    const GOOD: &'static str = r#"{"amount":"1"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        if !self.amount.is_positive() {
            errors.push(FieldError::new("amount", "not_positive", "must be above 0"));
        }
    }
}

/// `POST /v1/accounts/{account}/checkout`
///
/// Accepts any amount whose price fits in cents; the provider may refuse amounts above its own maximum.
pub async fn create(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::Settings, &account)?;
    let NewCheckout { amount } = read_body(request).await?;
    write::admit_open(&app, &context, &account).await?;
    let core = core(&app, &account).await?.ok_or_else(|| Problem::account_not_found(account.as_str()))?;
    let usd = core.usd_per_unit.and_then(|price| Usd::price_of(amount, price));
    if core.usd_per_unit.is_some() && usd.and_then(Usd::minor_units).is_none() {
        return Err(Problem::bad_field("amount", "out_of_range", "costs more than can be paid at once"));
    }
    let order = Order { account, amount, usd };
    let checkout = app.sales.provider.checkout(&order).await.map_err(|error| match error {
        CheckoutError::NoPrice => Problem::unprocessable("no_price", error.to_string()),
        CheckoutError::Refused(_) => Problem::unprocessable("payment_refused", error.to_string()),
        CheckoutError::Unavailable(_) => Problem::unavailable(error.to_string()),
    })?;
    Ok((StatusCode::CREATED, axum::Json(checkout)).into_response())
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
