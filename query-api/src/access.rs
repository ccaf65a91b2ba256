//! Access: decides which rows a caller may see, before anything is read.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use ledger_core::value::id::AccountId;
use serde::Deserialize;
use web::auth::{Action, Principal};
use web::http::{Path, Problem};
use web::openapi::{Operation, Reads};

use crate::app::App;

/// The path variable of every read of an account; other variables are ignored.
#[derive(Deserialize)]
struct Named {
    account: AccountId,
}

/// An account that the caller may read completely.
pub(crate) struct Whole(pub AccountId);

/// An account of which the caller may read at least their own rows.
pub(crate) struct Seen {
    pub account: AccountId,
    caller: Principal,
}

impl Seen {
    /// Returns the only user whose rows are shown: a member's own, otherwise the requested one. 403 if a member
    /// requests another user.
    pub fn user(&self, asked: Option<String>) -> Result<Option<String>, Problem> {
        if let Some(user) = &asked {
            self.caller.require_user(user)?;
        }
        Ok(asked.or_else(|| self.caller.only_user().map(str::to_owned)))
    }

    /// Returns whether the caller may see the account's own figures besides the rows; a member may not.
    pub fn sees_account(&self) -> bool {
        self.caller.only_user().is_none()
    }
}

impl FromRequestParts<App> for Whole {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let (account, _) = admit(parts, app, Action::AccountRead).await?;
        Ok(Self(account))
    }
}

impl FromRequestParts<App> for Seen {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let (account, caller) = admit(parts, app, Action::OwnRead).await?;
        Ok(Self { account, caller })
    }
}

impl Reads for Whole {
    fn describe(operation: &mut Operation<'_>) {
        operation.variable::<AccountId>("account");
        operation.needs_key();
    }
}

impl Reads for Seen {
    fn describe(operation: &mut Operation<'_>) {
        Whole::describe(operation);
    }
}

async fn admit(parts: &mut Parts, app: &App, action: Action) -> Result<(AccountId, Principal), Problem> {
    let caller = Principal::from_request_parts(parts, app).await?;
    let Path(Named { account }) = Path::from_request_parts(parts, app).await?;
    caller.require(action, account.as_str())?;
    Ok((account, caller))
}
