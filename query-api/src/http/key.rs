//! Key: what the caller's own key is, so that a program can show what it may do.

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
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![get("/v1/key", own).named("getOwnKey", "Returns the role and the accounts of the key that asks.")]
}

/// `GET /v1/key`
async fn own(caller: Principal) -> Result<Unbound<OwnKey>, Problem> {
    let accounts = match &caller.accounts {
        Accounts::All => vec![ALL_ACCOUNTS.to_owned()],
        Accounts::Named(names) => names.to_vec(),
    };
    answer::unbound(OwnKey {
        key_id: caller.key_id.to_string(),
        role: caller.role,
        accounts,
        user_id: caller.user_id.as_deref().map(str::to_owned),
    })
}
