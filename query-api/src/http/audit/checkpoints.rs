//! Checkpoints: what each partition's log has signed last.

use axum::extract::State;
use platform::pg;
use platform::pg::columns::{parsed, undecodable};
use schemars::JsonSchema;
use serde::Serialize;
use transparency_log::checkpoint::Checkpoint;
use transparency_log::note::Note;
use web::auth::{Action, Principal};
use web::http::Problem;
use web::openapi::{Route, get};

use super::published::{self, Published};
use crate::answer::{self, Unbound};
use crate::app::App;

pub(super) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/audit/checkpoints", list)
            .named("listCheckpoints", "Returns the last signed checkpoint of each partition of the journal.")
            .says("Keep them: whoever has a checkpoint can prove later that nothing before it was changed.")
            .refuses(&["no_checkpoint"]),
    ]
}

#[derive(Serialize, JsonSchema)]
struct Checkpoints {
    items: Vec<Signed>,
}

/// What a log has signed.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Checkpoint")]
struct Signed {
    partition: i32,
    origin: String,
    /// How many records the tree has.
    size: u64,
    /// In base64.
    root: String,
    /// The signed note, with the cosignatures of witnesses.
    checkpoint: String,
}

/// `GET /v1/audit/checkpoints`
async fn list(State(app): State<App>, caller: Principal) -> Result<Unbound<Checkpoints>, Problem> {
    caller.require_role(Action::AuditRead)?;
    let partitions = app.identity.partitions;
    let last: Vec<Published> = pg::read(&app.pool, app.waiter.schema(), move |connection| {
        Box::pin(published::last_of_each(connection, partitions))
    })
    .await?;
    if last.is_empty() {
        return Err(Problem::not_found("no_checkpoint", "no checkpoint has been signed yet"));
    }
    let items = last.into_iter().map(signed).collect::<Result<_, sqlx::Error>>()?;
    answer::unbound(Checkpoints { items })
}

fn signed(published: Published) -> Result<Signed, sqlx::Error> {
    let Published { partition, note, .. } = published;
    let text = Note::parse(note.as_bytes()).map_err(undecodable)?;
    let Checkpoint { origin, head } = parsed(text.text())?;
    Ok(Signed {
        partition,
        origin: origin.to_string(),
        size: head.size,
        root: head.root.to_string(),
        checkpoint: note,
    })
}
