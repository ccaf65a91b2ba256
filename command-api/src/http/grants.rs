//! Grants: creating lots of credits, and voiding their rest.

use axum::extract::State;
use ledger_core::event::{Data, Grant, VoidGrant, derive};
use ledger_core::value::id::{AccountId, GrantId, Text};
use ledger_core::value::time::Time;
use platform::pg;
use schemars::JsonSchema;
use serde::Deserialize;
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{Route, Sent, delete, post};

use crate::app::App;
use crate::request_context::{self, RequestContext, Waits, timed};
use crate::write::answer::Wrote;
use crate::write::{self, Draft};

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/grants", grant)
            .named("grantCredits", "Grants credits: a lot that is drawn and expires by itself.")
            .says("By the operator. The same grant again gets the first answer.")
            .refuses(&["grant_exists", "grant_reserved", "grant_expired", "too_many_lots"])
            .with(timed),
        delete("/v1/accounts/{account}/grants/{grant_id}", void)
            .named("voidGrant", "Removes what remains of a grant.")
            .says("By the operator. Lots of the plan, and lots that have ended, can't be voided.")
            .refuses(&["grant_unknown", "grant_not_voidable"])
            .with(timed),
    ]
}

/// `POST /v1/accounts/{account}/grants`
async fn grant(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<Grant>,
) -> Result<Wrote, Problem> {
    context.require(Action::Money, &account)?;
    let grant: Grant = sent.read().await?;
    let expires_at = grant.expires_at;
    let draft = Draft::lot(&account, &grant.grant_id.clone(), Data::CreditsGranted(grant));
    write::once(&app, &context, draft, granted_at(&app, &context, &account, expires_at)).await
}

async fn granted_at(
    app: &App,
    context: &RequestContext,
    account: &AccountId,
    expires_at: Option<Time>,
) -> Result<Time, Problem> {
    let (known, recorded_at) = write::admit_open(app, context, account).await?;
    request_context::require_future("expires_at", expires_at, recorded_at.max(known.ledger_time))?;
    Ok(recorded_at)
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VoidQuery {
    /// As with every write.
    pub wait: Option<bool>,
    /// A note for people.
    pub reason: Option<Text>,
}

impl Waits for VoidQuery {
    fn wait(&self) -> Option<bool> {
        self.wait
    }
}

/// `DELETE /v1/accounts/{account}/grants/{grant}`
async fn void(
    State(app): State<App>,
    context: RequestContext<VoidQuery>,
    Path((account, grant_id)): Path<(AccountId, GrantId)>,
) -> Result<Wrote, Problem> {
    context.require(Action::Undo, &account)?;
    let (_, recorded_at) = write::admit(&app, &context, &account).await?;
    let void = VoidGrant { grant_id: grant_id.clone(), reason: context.query.reason.clone() };
    let data = Data::GrantVoided(void);
    if is_known(&app, &context, &account, &grant_id).await? {
        let draft = Draft::derived(&account, "void", derive::void_id(&account, &grant_id), data);
        return write::once(&app, &context, draft, async { Ok(recorded_at) }).await;
    }
    // The refusal is recorded under an id of its own, so that a grant made later can still be voided.
    let draft = Draft::derived(&account, "void", write::new_id(context.now), data);
    write::untracked(&app, &context, draft, recorded_at).await
}

const KNOWN: &str = "select exists (select from lot where account_id = $1 and grant_id = $2)";

/// Returns whether a lot of this id ever existed, after waiting for the projection if it seems absent.
async fn is_known<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    account: &AccountId,
    grant: &GrantId,
) -> Result<bool, Problem> {
    if read_known(app, account, grant).await? {
        return Ok(true);
    }
    app.require_caught_up(account, context.deadline).await?;
    Ok(read_known(app, account, grant).await?)
}

async fn read_known(app: &App, account: &AccountId, grant: &GrantId) -> Result<bool, sqlx::Error> {
    let (account, grant) = (account.to_string(), grant.to_string());
    pg::read(&app.pool, app.waiter.schema(), |connection| {
        Box::pin(
            async move { sqlx::query_scalar(KNOWN).bind(account).bind(grant).fetch_one(connection).await },
        )
    })
    .await
}
