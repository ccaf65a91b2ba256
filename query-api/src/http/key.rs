//! Key: what the caller's own key is, so that a program can show what it may do.

use axum::extract::State;
use ledger_core::event::Unit;
use ledger_core::value::id::AccountId;
use platform::pg::{self, Scope, columns};
use schemars::JsonSchema;
use serde::Serialize;
use web::auth::{Accounts, Principal, Role};
use web::http::Problem;
use web::openapi::{Route, get};

use crate::answer::{self, Unbound};
use crate::app::App;

/// Stands for all accounts, as where keys are made.
const ALL_ACCOUNTS: &str = "*";

#[derive(Serialize, JsonSchema)]
struct OwnKey {
    key_id: String,
    role: Role,
    /// `["*"]` stands for all accounts.
    accounts: Vec<String>,
    /// The only user whose rows a member sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    /// What amounts of a member's account are in, once it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![get("/v1/key", own).named("getOwnKey", "Returns the role and the accounts of the key that asks.")]
}

/// `GET /v1/key`
async fn own(State(app): State<App>, caller: Principal) -> Result<Unbound<OwnKey>, Problem> {
    let accounts = match &caller.accounts {
        Accounts::All => vec![ALL_ACCOUNTS.to_owned()],
        Accounts::Named(names) => names.to_vec(),
    };
    let unit = match (caller.only_user(), accounts.as_slice()) {
        (Some(_), [account]) => unit_of(&app, account).await?,
        _ => None,
    };
    answer::unbound(OwnKey {
        key_id: caller.key_id.to_string(),
        role: caller.role,
        accounts,
        user_id: caller.user_id.as_deref().map(str::to_owned),
        unit,
    })
}

async fn unit_of(app: &App, account: &str) -> Result<Option<Unit>, Problem> {
    let Ok(account) = AccountId::new(account) else { return Ok(None) };
    let scope = Scope::Account(account.clone());
    let unit: Option<String> = pg::read_of(&app.pool, app.waiter.schema(), &scope, move |connection| {
        Box::pin(async move {
            let unit = sqlx::query_scalar("select core ->> 'unit' from account where account_id = $1");
            unit.bind(account.as_str()).fetch_optional(connection).await
        })
    })
    .await?;
    Ok(unit.as_deref().map(columns::variant_of).transpose()?)
}
