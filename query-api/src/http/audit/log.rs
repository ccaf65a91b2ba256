//! Log: each partition's transparency log as its readers know it: tiles, entry bundles, the checkpoint (C2SP
//! `tlog-tiles`), and the keys that sign.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::tables::log_tile;
use ledger_core::value::time::Time;
use platform::pg;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use transparency_log::tile::Tile;
use web::http::{Path, Problem};
use web::openapi::{Answers, Operation, Route, get};

use super::published;
use super::reader::Reader;
use crate::app::App;

const PREFIX: &str = "/v1/audit/log";
const BYTES: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";
/// A tile never changes: a partial one has its width in its path.
const FOR_EVERYBODY: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const FOR_THE_CALLER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

pub(super) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/audit/log/{*path}", resource)
            .named("getLogResource", "Returns a tile, an entry bundle or the checkpoint of a partition's audit log.")
            .says(
                "The path is `{log id}/{partition}/` and then `checkpoint`, `tile/{L}/{N}[.p/{W}]` or \
                 `tile/entries/{N}[.p/{W}]`, as C2SP's `tlog-tiles` has them. Without the log id, the answer is a \
                 redirect to the present log. Nothing beyond the last checkpoint is served. No key is needed where \
                 the deployment sets `LEDGER_AUDIT_PUBLIC`.",
            )
            .refuses(&["no_checkpoint"]),
        get("/v1/audit/log/keys", keys)
            .named("listLogKeys", "Lists the public keys that sign the audit log's checkpoints, earlier ones too."),
    ]
}

/// What a path below a partition's prefix names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Checkpoint,
    Tile(Tile),
}

/// A path below `/v1/audit/log`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked<'a> {
    /// None: the present log is meant.
    log_id: Option<&'a str>,
    partition: i32,
    resource: Resource,
    /// The path below the partition's prefix.
    rest: &'a str,
}

impl<'a> Asked<'a> {
    /// Reads a path that names something in one spelling; `None` for all others.
    fn parse(path: &'a str) -> Option<Asked<'a>> {
        let (first, behind) = path.split_once('/')?;
        if let Some(partition) = partition_of(first) {
            return Asked::of(None, partition, behind);
        }
        let (second, rest) = behind.split_once('/')?;
        Asked::of(Some(first), partition_of(second)?, rest)
    }

    fn of(log_id: Option<&'a str>, partition: i32, rest: &'a str) -> Option<Asked<'a>> {
        let resource = match rest {
            "checkpoint" => Resource::Checkpoint,
            path => Resource::Tile(path.parse().ok()?),
        };
        Some(Asked { log_id, partition, resource, rest })
    }
}

fn partition_of(digits: &str) -> Option<i32> {
    digits.parse().ok().filter(|partition: &i32| *partition >= 0 && partition.to_string() == digits)
}

/// `GET /v1/audit/log/{path}`
async fn resource(
    State(app): State<App>,
    _reader: Reader,
    Path(path): Path<String>,
) -> Result<Served, Problem> {
    let asked = Asked::parse(&path).filter(|asked| asked.partition < app.identity.partitions);
    let Asked { log_id, partition, resource, rest } = asked.ok_or_else(nothing)?;
    let present = app.identity.log_id.to_string();
    match log_id {
        None => return Ok(Served::Moved(format!("{PREFIX}/{present}/{partition}/{rest}"))),
        Some(log_id) if log_id != present => return Err(nothing()),
        Some(_) => {}
    }
    let public = app.audit_public;
    pg::read(&app.pool, app.waiter.schema(), move |connection| {
        Box::pin(async move {
            match resource {
                Resource::Checkpoint => checkpoint(connection, partition).await,
                Resource::Tile(tile) => {
                    let bytes = tile_bytes(connection, partition, tile).await?;
                    Ok(Served::Tile { bytes, public })
                }
            }
        })
    })
    .await
}

async fn checkpoint(connection: &mut PgConnection, partition: i32) -> Result<Served, Problem> {
    let last = published::last(connection, partition).await?;
    let last = last.ok_or_else(|| {
        let detail = format!("partition {partition} has no checkpoint yet");
        Problem::not_found("no_checkpoint", detail)
    })?;
    Ok(Served::Checkpoint(last.note))
}

async fn tile_bytes(connection: &mut PgConnection, partition: i32, tile: Tile) -> Result<Vec<u8>, Problem> {
    let last = published::last(connection, partition).await?;
    if !last.is_some_and(|last| tile.is_within(last.size)) {
        return Err(nothing());
    }
    // Only between the flip to another generation and its notice is the log shorter than what is published.
    let bytes = log_tile::read(connection, partition, tile).await?;
    bytes.ok_or_else(|| Problem::unavailable("the log is not read from the live generation yet"))
}

fn nothing() -> Problem {
    Problem::not_found("not_found", "the audit log has nothing under this path")
}

/// What is served below the prefix.
#[derive(Debug)]
enum Served {
    Tile { bytes: Vec<u8>, public: bool },
    Checkpoint(String),
    Moved(String),
}

impl IntoResponse for Served {
    fn into_response(self) -> Response {
        match self {
            Served::Tile { bytes, public } => {
                let caching = if public { FOR_EVERYBODY } else { FOR_THE_CALLER };
                (
                    [
                        (header::CONTENT_TYPE, HeaderValue::from_static(BYTES)),
                        (header::CACHE_CONTROL, caching),
                    ],
                    bytes,
                )
                    .into_response()
            }
            Served::Checkpoint(note) => {
                let headers = [
                    (header::CONTENT_TYPE, HeaderValue::from_static(TEXT)),
                    (header::CACHE_CONTROL, ASK_AGAIN),
                ];
                (headers, note).into_response()
            }
            Served::Moved(location) => {
                let caching = (header::CACHE_CONTROL, ASK_AGAIN);
                (StatusCode::TEMPORARY_REDIRECT, [caching], [(header::LOCATION, location)]).into_response()
            }
        }
    }
}

impl Answers for Served {
    fn describe(operation: &mut Operation<'_>) {
        let said = "The bytes of a tile or an entry bundle; a checkpoint is `text/plain`.";
        operation.answers(200, said, BYTES, json!({"type": "string", "format": "binary"}));
        operation.redirects("The path below the present log.");
    }
}

#[derive(Serialize, JsonSchema)]
struct LogKeys {
    items: Vec<LogKey>,
}

/// A key that signs, or has signed, the checkpoints of a partition.
#[derive(Serialize, JsonSchema)]
struct LogKey {
    partition: i32,
    origin: String,
    /// As C2SP's `signed-note` has it: name, key id and public key.
    vkey: String,
    since: Time,
    /// Null: it signs now.
    #[schemars(extend("nullable" = true))]
    until: Option<Time>,
}

/// `GET /v1/audit/log/keys`
async fn keys(State(app): State<App>, _reader: Reader) -> Result<Listed, Problem> {
    let keys = pg::read(&app.pool, app.waiter.schema(), |connection| Box::pin(published::keys(connection)));
    let keys: Vec<published::LogKey> = keys.await?;
    let shown = |key: published::LogKey| {
        let published::LogKey { partition, origin, vkey, since, until } = key;
        LogKey { partition, origin, vkey, since, until }
    };
    Ok(Listed(LogKeys { items: keys.into_iter().map(shown).collect() }))
}

/// The answer with the keys.
struct Listed(LogKeys);

impl IntoResponse for Listed {
    fn into_response(self) -> Response {
        ([(header::CACHE_CONTROL, ASK_AGAIN)], axum::Json(self.0)).into_response()
    }
}

impl Answers for Listed {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers_json::<LogKeys>(200, "Found.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

    fn check(path: &str, expected: Option<(Option<&str>, i32, &str)>) {
        let asked = Asked::parse(path);
        assert_eq!(asked.map(|asked| (asked.log_id, asked.partition, asked.rest)), expected, "{path}");
    }

    #[test]
    fn a_path_names_a_log_and_what_it_has() {
        check(&format!("{LOG}/3/checkpoint"), Some((Some(LOG), 3, "checkpoint")));
        check(&format!("{LOG}/0/tile/0/x001/067.p/5"), Some((Some(LOG), 0, "tile/0/x001/067.p/5")));
        check("12/tile/entries/000", Some((None, 12, "tile/entries/000")));
        check("0/checkpoint", Some((None, 0, "checkpoint")));
    }

    #[test]
    fn every_other_path_names_nothing() {
        for path in [
            "",
            "checkpoint",
            "0",
            "0/",
            "0/checkpoint/",
            "00/checkpoint",
            "-1/checkpoint",
            "+1/checkpoint",
            "9999999999/checkpoint",
            "0/tile",
            "0/tile/0/000.p/256",
            "0/../checkpoint",
            "0/0/0/checkpoint",
            &format!("{LOG}/checkpoint"),
            &format!("{LOG}//checkpoint"),
            &format!("{LOG}/01/checkpoint"),
            &format!("{LOG}/0/entries"),
        ] {
            check(path, None);
        }
    }
}
