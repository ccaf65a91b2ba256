//! Reversals: reverse a whole usage event, once.

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use ledger_core::event::field_error::FieldError;
use ledger_core::event::{Data, ReverseUsage, derive};
use ledger_core::request::Body;
use ledger_core::value::id::{AccountId, EventId, Source, Text};
use platform::pg;
use schemars::JsonSchema;
use serde::Deserialize;
use web::auth::Action;
use web::http::{Path, Problem, read_body};
use web::openapi::{Route, Sent, post};

use crate::app::App;
use crate::request_context::{RequestContext, Waits, timed};
use crate::write::answer::Wrote;
use crate::write::{self, Draft};

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReversalQuery {
    /// As with every write.
    pub wait: Option<bool>,
    /// The usage's producer, if several producers used the id.
    pub source: Option<Source>,
}

impl Waits for ReversalQuery {
    fn wait(&self) -> Option<bool> {
        self.wait
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reversal {
    /// A note for people.
    #[serde(default)]
    pub reason: Option<Text>,
}

impl Body for Reversal {
    const GOOD: &'static str = "{}";

    fn check(&self, _: &mut Vec<FieldError>) {}
}

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/usage/{event_id}/reversal", reverse)
            .named("reverseUsage", "Reverses a whole usage event, once.")
            .says("By the operator.")
            .refuses(&["event_not_found", "ambiguous_event", "already_reversed"])
            .with(timed)
            .with(|operation| operation.body_is_optional()),
    ]
}

/// `POST /v1/accounts/{account}/usage/{event_id}/reversal`
async fn reverse(
    State(app): State<App>,
    context: RequestContext<ReversalQuery>,
    Path((account, event_id)): Path<(AccountId, EventId)>,
    sent: Sent<Reversal>,
) -> Result<Wrote, Problem> {
    context.require(Action::Undo, &account)?;
    let Reversal { reason } = optional_body(sent.into_request()).await?;
    let (_, recorded_at) = write::admit(&app, &context, &account).await?;
    let source = usage_source(&app, &context, &account, &event_id).await?;
    let reversal_id = derive::reversal_id(&account, &source, &event_id);
    let data = Data::UsageReversed(ReverseUsage { event_id, source, reason });
    let draft = Draft::derived(&account, "reversal", reversal_id, data);
    write::once(&app, &context, draft, async { Ok(recorded_at) }).await
}

/// The reason is optional, so the body is too.
async fn optional_body(request: Request) -> Result<Reversal, Problem> {
    let nothing = request.body().size_hint().exact() == Some(0);
    if nothing && !request.headers().contains_key(CONTENT_TYPE) {
        return Ok(Reversal::default());
    }
    read_body(request).await
}

/// Finds the producer of the usage: 404 if there is no such usage, 409 if several producers used the id.
async fn usage_source(
    app: &App,
    context: &RequestContext<ReversalQuery>,
    account: &AccountId,
    event_id: &EventId,
) -> Result<Source, Problem> {
    let wanted = context.query.source.as_ref();
    let mut sources = read_sources(app, account, event_id, wanted).await?;
    if sources.is_empty() {
        app.require_caught_up(account, context.deadline).await?;
        sources = read_sources(app, account, event_id, wanted).await?;
    }
    match sources.as_slice() {
        [] => {
            let detail = format!("account {account} has no usage event {event_id}");
            Err(Problem::not_found("event_not_found", detail))
        }
        [source] => Source::new(source).map_err(Problem::internal),
        _ => {
            let detail = "this id came from several sources: say which by ?source=";
            Err(Problem::conflicting("ambiguous_event", detail).with("sources", &sources))
        }
    }
}

const SOURCES: &str = "
    select source
    from event
    where account_id = $1 and event_id = $2 and type = 'ledger.usage.recorded.v1' and outcome = 'applied'
      and source = coalesce($3, source)
    order by source
";

async fn read_sources(
    app: &App,
    account: &AccountId,
    event_id: &EventId,
    source: Option<&Source>,
) -> Result<Vec<String>, sqlx::Error> {
    let (account, event_id) = (account.to_string(), event_id.to_string());
    let source = source.map(ToString::to_string);
    pg::read(&app.pool, app.waiter.schema(), |connection| {
        Box::pin(async move {
            let context = sqlx::query_scalar(SOURCES).bind(account).bind(event_id).bind(source);
            context.fetch_all(connection).await
        })
    })
    .await
}
