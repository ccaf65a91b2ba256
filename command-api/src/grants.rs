//! Grants: giving credits, and voiding what remains of them.

use axum::extract::{Request, State};
use axum::response::Response;
use ledger_core::derive;
use ledger_core::event::{Data, Grant, VoidGrant};
use ledger_core::id::{EventId, Id, Text};
use ledger_core::time::Time;
use runtime::auth::Action;
use runtime::http::{Path, Problem};
use runtime::pg;
use serde::Deserialize;

use crate::app::App;
use crate::asked::{self, Asked, Waits};
use crate::submit::{self, Draft};

/// Grants and payments share one id space.
pub const ID_SPACE: &str = "grant";

/// Drafts what makes a lot under an id of the caller's: a grant or a payment.
pub fn lot_draft(account: &Id, lot: &Id, data: Data) -> Draft {
    Draft {
        account: account.clone(),
        kind: ID_SPACE,
        key: lot.to_string(),
        source: derive::GRANTS,
        event_id: EventId::from(lot),
        data,
    }
}

/// `POST /v1/accounts/{account}/grants`
pub async fn grant(
    State(app): State<App>,
    asked: Asked,
    Path(account): Path<Id>,
    request: Request,
) -> Result<Response, Problem> {
    asked.require(Action::Money, &account)?;
    let grant: Grant = asked::body(request).await?;
    let expires_at = grant.expires_at;
    let draft = lot_draft(&account, &grant.grant_id.clone(), Data::CreditsGranted(grant));
    submit::once(&app, &asked, draft, granted_at(&app, &asked, &account, expires_at)).await
}

async fn granted_at(
    app: &App,
    asked: &Asked,
    account: &Id,
    expires_at: Option<Time>,
) -> Result<Time, Problem> {
    let (known, recorded_at) = submit::admit(app, asked, account).await?;
    asked::require_future("expires_at", expires_at, recorded_at.max(known.ledger_time))?;
    Ok(recorded_at)
}

/// The query of a void.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoidQuery {
    /// Whether to wait for the outcome.
    pub wait: Option<bool>,
    /// Why, for people.
    pub reason: Option<Text>,
}

impl Waits for VoidQuery {
    fn wait(&self) -> Option<bool> {
        self.wait
    }
}

/// `DELETE /v1/accounts/{account}/grants/{grant}`
pub async fn void(
    State(app): State<App>,
    asked: Asked<VoidQuery>,
    Path((account, grant_id)): Path<(Id, Id)>,
) -> Result<Response, Problem> {
    asked.require(Action::Undo, &account)?;
    let (_, recorded_at) = submit::admit(&app, &asked, &account).await?;
    let void = VoidGrant { grant_id: grant_id.clone(), reason: asked.query.reason.clone() };
    let data = Data::GrantVoided(void);
    if is_known(&app, &asked, &account, &grant_id).await? {
        let draft = Draft::derived(&account, "void", derive::void_id(&account, &grant_id), data);
        return submit::once(&app, &asked, draft, async { Ok(recorded_at) }).await;
    }
    // The refusal is recorded, but under an id of its own: a grant made later can still be voided.
    let draft = Draft::derived(&account, "void", submit::new_id(asked.now), data);
    submit::untracked(&app, &asked, draft, recorded_at).await
}

const KNOWN: &str = "select exists (select from lot where account_id = $1 and grant_id = $2)";

/// Says whether a lot of this id ever was, by a projection that has caught up where it was not.
async fn is_known<Q: Waits>(app: &App, asked: &Asked<Q>, account: &Id, grant: &Id) -> Result<bool, Problem> {
    if read_known(app, account, grant).await? {
        return Ok(true);
    }
    app.require_caught_up(account, asked.deadline).await?;
    Ok(read_known(app, account, grant).await?)
}

async fn read_known(app: &App, account: &Id, grant: &Id) -> Result<bool, sqlx::Error> {
    let (account, grant) = (account.to_string(), grant.to_string());
    pg::read(&app.pool, app.waiter.schema(), |connection| {
        Box::pin(
            async move { sqlx::query_scalar(KNOWN).bind(account).bind(grant).fetch_one(connection).await },
        )
    })
    .await
}
