//! Checkout: a one-time purchase at the payment provider, credited when its webhook reports the payment.
//!
//! What was ordered is stored before the provider is asked, so that its webhook can be compared with it, and so that a
//! repeat gets the same session.

use axum::extract::State;
use ledger_core::event::derive;
use ledger_core::event::field_error::FieldError;
use ledger_core::request::Body;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, EventId};
use payments::{
    CURRENCY, Checkout, CheckoutError, CustomerId, Order, Price, customer, idempotency_key,
    usd_of_minor_units,
};
use platform::pg::columns::parsed;
use platform::pg::{self, PgPool, credits_of, numeric_text};
use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{Created, Route, Sent, post};

use super::orders;
use crate::app::App;
use crate::request_context::{IDEMPOTENCY_KEY, RequestContext};
use crate::write;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCheckout {
    /// Credits, in the account's unit. The price is this amount times `usd_per_unit`, rounded up to whole cents.
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

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/checkout", create)
            .named("createCheckout", "Opens a checkout at the payment provider.")
            .says(
                "By admins. The credits arrive when the provider's webhook reports the payment of this amount of money; \
                 any other payment waits for a person. The first checkout that is paid sets the account's payment \
                 customer. With an `Idempotency-Key` a repeat gets the same session. The sandbox only pretends: nobody \
                 can pay at its address, and it sends no webhook. The price must be 0.50 to 999,999.99 USD in whole \
                 cents.",
            )
            .refuses(&["no_price", "payment_refused"])
            .with(|operation| {
                let said = "Names the checkout: the same key answers with the same session.";
                operation.header::<EventId>(IDEMPOTENCY_KEY, false, said);
            }),
    ]
}

/// `POST /v1/accounts/{account}/checkout`
///
/// With an `Idempotency-Key`, a repeat gets the same session. The provider is asked under a key of its own, also
/// without one, so that no repetition on the way to it opens a second session.
async fn create(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<NewCheckout>,
) -> Result<Created<Checkout>, Problem> {
    context.require(Action::Settings, &account)?;
    let NewCheckout { amount } = sent.read().await?;
    write::admit_open(&app, &context, &account).await?;
    let reference = match &context.idempotency_key {
        Some(key) => derive::keyed_id("checkout", &account, key.as_str()).to_string(),
        None => Uuid::new_v4().to_string(),
    };
    let ordered = match find(&app.pool, &reference).await? {
        Some(ordered) => ordered,
        None => {
            let price = orders::price(&app, &account, amount).await?;
            let customer = customer::find(pg::bounded(&app.pool), &account).await?;
            let (charged, currency) = (price.minor_units, CURRENCY.to_owned());
            let new = Ordered { reference, account, amount, charged, currency, customer, checkout: None };
            keep(&app.pool, &new).await?
        }
    };
    if ordered.amount != amount {
        let problem = Problem::conflict("a checkout with this Idempotency-Key has another amount");
        return Err(problem.with("differs", ["amount"]));
    }
    let checkout = match ordered.checkout {
        Some(checkout) => checkout,
        None => open(&app, &ordered).await?,
    };
    Ok(Created(checkout))
}

/// Opens the session of an order, and stores it.
async fn open(app: &App, ordered: &Ordered) -> Result<Checkout, Problem> {
    let usd = usd_of_minor_units(ordered.charged).ok_or_else(|| Problem::internal("a price out of range"))?;
    let order = Order {
        key: idempotency_key(app.sales.log_id, &ordered.reference),
        reference: ordered.reference.clone(),
        account: ordered.account.clone(),
        amount: ordered.amount,
        price: Price { usd, minor_units: ordered.charged },
        customer: ordered.customer.clone(),
    };
    let checkout = app.sales.provider.checkout(&order).await.map_err(|error| match error {
        CheckoutError::Refused(_) => Problem::unprocessable("payment_refused", error.to_string()),
        CheckoutError::Unavailable(_) => Problem::unavailable(error.to_string()),
    })?;
    opened(&app.pool, &ordered.reference, &checkout).await?;
    Ok(checkout)
}

/// What was ordered at the provider, and its session once there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    pub reference: String,
    pub account: AccountId,
    /// In the account's unit.
    pub amount: Credits,
    /// The price, in the currency's smallest unit.
    pub charged: i64,
    pub currency: String,
    customer: Option<CustomerId>,
    checkout: Option<Checkout>,
}

/// A row of `control.checkout`.
struct OrderedRow {
    reference: String,
    account_id: String,
    amount: String,
    charged: i64,
    currency: String,
    customer_id: Option<String>,
    checkout_id: Option<String>,
    url: Option<String>,
    client_secret: Option<String>,
}

impl OrderedRow {
    fn parse(self) -> Result<Ordered, sqlx::Error> {
        let (url, client_secret) = (self.url, self.client_secret);
        let customer = self.customer_id.as_deref().map(CustomerId::new).transpose();
        Ok(Ordered {
            reference: self.reference,
            account: parsed(&self.account_id)?,
            amount: credits_of(&self.amount)?,
            charged: self.charged,
            currency: self.currency,
            customer: customer.map_err(|error| sqlx::Error::Decode(error.into()))?,
            checkout: self.checkout_id.map(|checkout_id| Checkout { checkout_id, url, client_secret }),
        })
    }
}

/// A statement that returns [`OrderedRow`]s; their columns go between its two parts.
macro_rules! query_ordered {
    ($before:literal, $after:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            OrderedRow,
            $before
                + r#" reference, account_id, amount::text as "amount!", charged, currency, customer_id, checkout_id, url,
                      client_secret "#
                + $after,
            $($argument),+
        )
    };
}

/// Finds an order by its reference.
pub async fn find(pool: &PgPool, reference: &str) -> Result<Option<Ordered>, sqlx::Error> {
    let row = query_ordered!("select", "from control.checkout where reference = $1", reference);
    row.fetch_optional(pg::bounded(pool)).await?.map(OrderedRow::parse).transpose()
}

/// Finds an account's order by the provider's id of its session.
pub async fn find_session(
    pool: &PgPool,
    account: &AccountId,
    checkout_id: &str,
) -> Result<Option<Ordered>, sqlx::Error> {
    let row = query_ordered!(
        "select",
        "from control.checkout where checkout_id = $2 and account_id = $1 order by created_at desc limit 1",
        account.as_str(),
        checkout_id
    );
    row.fetch_optional(pg::bounded(pool)).await?.map(OrderedRow::parse).transpose()
}

/// Stores an order unless its reference exists, and returns the stored one.
async fn keep(pool: &PgPool, new: &Ordered) -> Result<Ordered, sqlx::Error> {
    // The update changes nothing: it makes an existing row visible to `returning`.
    let row = query_ordered!(
        "insert into control.checkout as kept (reference, account_id, amount, charged, currency, customer_id, created_at)
         values ($1, $2, $3::text::numeric, $4, $5, $6, clock_timestamp())
         on conflict (reference) do update
         set created_at = kept.created_at
         returning",
        "",
        new.reference,
        new.account.as_str(),
        numeric_text(new.amount),
        new.charged,
        new.currency,
        new.customer.as_ref().map(CustomerId::as_str)
    );
    row.fetch_one(pg::bounded(pool)).await?.parse()
}

/// Stores the session of an order.
async fn opened(pool: &PgPool, reference: &str, checkout: &Checkout) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update control.checkout
         set checkout_id   = $2,
             url           = $3,
             client_secret = $4
         where reference = $1",
        reference,
        checkout.checkout_id,
        checkout.url,
        checkout.client_secret
    )
    .execute(pg::bounded(pool))
    .await
    .map(drop)
}
