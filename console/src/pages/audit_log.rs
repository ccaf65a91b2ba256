//! Audit log: what each partition of the journal has signed last, the keys that sign, and the proof of one record.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;
use ledger_core::value::time::Time;
use serde::Deserialize;

use crate::api::Failure;
use crate::format::{self, When};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Visit};

#[derive(Deserialize)]
struct Items<T> {
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Checkpoint {
    partition: i32,
    origin: String,
    size: u64,
    root: String,
    checkpoint: String,
}

#[derive(Deserialize)]
struct Key {
    partition: i32,
    vkey: String,
    since: Time,
    until: Option<Time>,
}

#[derive(Deserialize)]
struct Proof {
    leaf: u64,
    size: u64,
    leaf_hash: String,
    root: String,
    hashes: Vec<String>,
}

#[derive(Template)]
#[template(path = "audit_log.html")]
struct AuditLog {
    frame: Frame,
    logs: Result<Vec<Log>, Failure>,
    asked: Fields,
    proof: Option<Result<Proof, Failure>>,
}

/// One partition's log.
struct Log {
    partition: i32,
    size: String,
    root: String,
    note: String,
    /// The path of the log, for tools of others.
    prefix: String,
    keys: Vec<KeyRow>,
}

struct KeyRow {
    vkey: String,
    since: When,
    until: Option<When>,
}

pub fn routes() -> Router {
    Router::new().route("/audit-log", get(show))
}

async fn show(visit: Visit) -> Result<Response, Failure> {
    let asked = visit.query.clone();
    let proof = match (asked.filled("partition"), asked.filled("offset")) {
        (None, _) | (_, None) => None,
        (Some(partition), Some(offset)) => {
            let query = Fields::default().with("partition", partition).with("offset", offset);
            Some(visit.api.get(&format!("/v1/audit/proofs{}", query.link())).await)
        }
    };
    layout::page(&AuditLog {
        frame: Frame::of(&visit, "Audit log", Tab::AuditLog),
        logs: logs(&visit).await,
        asked,
        proof,
    })
}

async fn logs(visit: &Visit) -> Result<Vec<Log>, Failure> {
    let listed: Result<Items<Checkpoint>, Failure> = visit.api.get("/v1/audit/checkpoints").await;
    let listed = match listed {
        Err(failure) if failure.code == "no_checkpoint" => return Ok(Vec::new()),
        listed => listed?.items,
    };
    let keys: Items<Key> = visit.api.get("/v1/audit/log/keys").await?;
    Ok(listed.into_iter().map(|checkpoint| log(checkpoint, &keys.items)).collect())
}

fn log(checkpoint: Checkpoint, keys: &[Key]) -> Log {
    let Checkpoint { partition, origin, size, root, checkpoint } = checkpoint;
    let row = |key: &Key| KeyRow {
        vkey: key.vkey.clone(),
        since: format::exactly(&key.since),
        until: key.until.as_ref().map(format::exactly),
    };
    Log {
        partition,
        size: format::count(size),
        root,
        note: checkpoint,
        prefix: prefix(&origin).unwrap_or_default(),
        keys: keys.iter().filter(|key| key.partition == partition).map(row).collect(),
    }
}

/// Returns the path of a log by its origin, which ends with the log's id and the partition.
fn prefix(origin: &str) -> Option<String> {
    let (rest, partition) = origin.rsplit_once('/')?;
    let (_, log_id) = rest.rsplit_once('/')?;
    Some(format!("/v1/audit/log/{log_id}/{partition}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_served_below_its_id_and_partition() {
        let origin = "ledger.local/v1/audit/log/6ba7b810-9dad-11d1-80b4-00c04fd430c8/3";
        let expected = "/v1/audit/log/6ba7b810-9dad-11d1-80b4-00c04fd430c8/3";
        assert_eq!(prefix(origin).as_deref(), Some(expected));
        assert_eq!(prefix("ledger"), None);
    }
}
