//! Member tokens: short-lived tokens for one user of an account, for pages in a browser.

use axum::extract::State;
use ledger_core::value::id::AccountId;
use web::auth::{Action, MemberToken, NewMemberToken};
use web::http::{Path, Problem};
use web::openapi::{Created, Route, Sent, post};

use crate::app::App;
use crate::request_context::RequestContext;

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/member-tokens", create)
            .named("createMemberToken", "Makes a token that can do what a member's key can, for one user.")
            .says("By admins, producers and the operator. It ends by itself, or with the key that made it. The only key for browsers."),
    ]
}

/// `POST /v1/accounts/{account}/member-tokens`
async fn create(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<NewMemberToken>,
) -> Result<Created<MemberToken>, Problem> {
    context.require(Action::MemberTokens, &account)?;
    let new: NewMemberToken = sent.read().await?;
    app.account(&account, None, context.deadline).await?;
    let token = app.auth.issue_member_token(&context.principal, &account, &new, context.now).await?;
    Ok(Created(token))
}
