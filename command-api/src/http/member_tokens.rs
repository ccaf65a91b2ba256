//! Member tokens: short-lived tokens for one user of an account, for pages in a browser.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ledger_core::value::id::AccountId;
use web::auth::{Action, NewMemberToken};
use web::http::{Path, Problem, read_body};

use crate::app::App;
use crate::request_context::RequestContext;

/// `POST /v1/accounts/{account}/member-tokens`
pub async fn create(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::MemberTokens, &account)?;
    let new: NewMemberToken = read_body(request).await?;
    app.account(&account, None, context.deadline).await?;
    let token = app.auth.issue_member_token(&context.principal, &account, &new, context.now).await?;
    Ok((StatusCode::CREATED, Json(token)).into_response())
}
