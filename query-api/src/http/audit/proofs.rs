//! Proofs: that a record is in a partition's tree, and that a tree continues an earlier one.

use std::collections::BTreeMap;

use axum::extract::State;
use engine::tables::log_tile;
use platform::pg;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use transparency_log::hash::Hash;
use transparency_log::proof::Outline;
use transparency_log::tile::{Kind, Tile, WIDTH};
use transparency_log::tree::{MissingTile, Tiles, Tree};
use web::auth::{Action, Principal};
use web::http::{FieldError, Problem, Query};
use web::openapi::{Route, get};

use super::{leaf, published};
use crate::answer::{self, Unbound};
use crate::app::App;

/// Two forms: `offset` with `size` or without, and `from` with `to`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProofQuery {
    /// A partition of the journal.
    partition: u32,
    /// The offset of the record to prove.
    offset: Option<u64>,
    /// The size of the tree that has the record; without it, that of the last checkpoint.
    #[schemars(range(min = 1))]
    size: Option<u64>,
    /// The size of the earlier tree.
    #[schemars(range(min = 1))]
    from: Option<u64>,
    /// The size of the later tree.
    #[schemars(range(min = 1))]
    to: Option<u64>,
}

/// What is to be proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Inclusion { offset: u64, size: Option<u64> },
    Consistency { from: u64, to: u64 },
}

impl ProofQuery {
    fn asked(&self) -> Result<Asked, Problem> {
        let mut errors = Vec::new();
        let mut refuse =
            |field: &str, code: &str, detail: &str| errors.push(FieldError::new(field, code, detail));
        let sizes = [("size", self.size), ("from", self.from), ("to", self.to)];
        for (field, _) in sizes.into_iter().filter(|(_, size)| *size == Some(0)) {
            refuse(field, "out_of_range", "must be 1 or more");
        }
        let asked = match (self.offset, self.from, self.to) {
            (Some(offset), None, None) => Some(Asked::Inclusion { offset, size: self.size }),
            (None, Some(from), Some(to)) if self.size.is_none() => {
                if from > to {
                    refuse("from", "out_of_range", "must not be above to");
                }
                Some(Asked::Consistency { from, to })
            }
            (None, None, None) => {
                refuse("offset", "required", "is required, or from and to are");
                None
            }
            (None, None, Some(_)) => {
                refuse("from", "required", "is required with to");
                None
            }
            (None, Some(_), None) => {
                refuse("to", "required", "is required with from");
                None
            }
            (None, Some(_), Some(_)) => {
                refuse("size", "not_allowed", "must not stand with from and to");
                None
            }
            (Some(_), _, _) => {
                refuse("offset", "not_allowed", "must not stand with from or to");
                None
            }
        };
        match asked {
            Some(asked) if errors.is_empty() => Ok(asked),
            _ => Err(Problem::invalid(errors)),
        }
    }
}

/// A proof; all hashes are in base64.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Proof {
    Inclusion(Inclusion),
    Consistency(Consistency),
}

/// That the tree of a size has a record (RFC 6962, 2.1.1).
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "InclusionProof")]
struct Inclusion {
    partition: u32,
    offset: u64,
    /// The record's index in the tree.
    leaf: u64,
    size: u64,
    leaf_hash: String,
    /// The root of the tree of this size.
    root: String,
    hashes: Vec<String>,
}

/// That a tree begins with an earlier one (RFC 6962, 2.1.2).
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ConsistencyProof")]
struct Consistency {
    partition: u32,
    from: u64,
    to: u64,
    hashes: Vec<String>,
}

pub(super) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/audit/proofs", prove)
            .named("getProof", "Proves that a record is in the audit log, or that the log continues an earlier one.")
            .says(
                "With `offset`: the proof that the tree of `size` has the record. With `from` and `to`: the proof \
                 that the tree of the one size begins with that of the other.",
            )
            .refuses(&["not_in_the_log"]),
    ]
}

/// `GET /v1/audit/proofs`
async fn prove(
    State(app): State<App>,
    caller: Principal,
    query: Result<Query<ProofQuery>, Problem>,
) -> Result<Unbound<Proof>, Problem> {
    caller.require_role(Action::AuditRead)?;
    let Query(query) = query?;
    let asked = query.asked()?;
    let log = i32::try_from(query.partition).ok().filter(|partition| *partition < app.identity.partitions);
    let log =
        log.ok_or_else(|| not_in_the_log(format!("the journal has no partition {}", query.partition)))?;
    let proof = pg::read(&app.pool, app.waiter.schema(), move |connection| {
        Box::pin(async move {
            let published = published::last(connection, log).await?.map_or(0, |last| last.size);
            match asked {
                Asked::Inclusion { offset, size } => {
                    let size = within(size.unwrap_or(published), published)?;
                    include(connection, log, offset, size).await
                }
                Asked::Consistency { from, to } => {
                    continue_from(connection, log, from, within(to, published)?).await
                }
            }
        })
    })
    .await?;
    answer::unbound(proof)
}

fn within(size: u64, published: u64) -> Result<u64, Problem> {
    if size <= published && size > 0 {
        return Ok(size);
    }
    Err(not_in_the_log(format!("the last checkpoint has {published} records")))
}

async fn include(
    connection: &mut PgConnection,
    partition: i32,
    offset: u64,
    size: u64,
) -> Result<Proof, Problem> {
    let leaf = leaf::of_offset(connection, partition, size, offset).await?;
    let leaf = leaf.ok_or_else(|| {
        not_in_the_log(format!(
            "the first {size} records of the partition have none with the offset {offset}"
        ))
    })?;
    let outline = Outline::inclusion(leaf, size).map_err(Problem::internal)?;
    let kind = Kind::Hashes { level: 0 };
    let of_leaf = Tile::at(kind, leaf / u64::from(WIDTH), size);
    let needed = outline.tiles().into_iter().chain(Tile::edge(size)).chain(of_leaf);
    let tiles = tiles(connection, partition, needed).await?;
    let root = Tree::resume(size, &tiles).map_err(missing)?.root();
    let hashes = outline.hashes(&tiles).map_err(missing)?;
    Ok(Proof::Inclusion(Inclusion {
        partition: partition.unsigned_abs(),
        offset,
        leaf,
        size,
        leaf_hash: leaf_hash(&tiles, leaf).map_err(missing)?.to_string(),
        root: root.to_string(),
        hashes: shown(&hashes),
    }))
}

async fn continue_from(
    connection: &mut PgConnection,
    partition: i32,
    from: u64,
    to: u64,
) -> Result<Proof, Problem> {
    let outline = Outline::consistency(from, to).map_err(Problem::internal)?;
    let tiles = tiles(connection, partition, outline.tiles()).await?;
    let hashes = shown(&outline.hashes(&tiles).map_err(missing)?);
    Ok(Proof::Consistency(Consistency { partition: partition.unsigned_abs(), from, to, hashes }))
}

async fn tiles(
    connection: &mut PgConnection,
    partition: i32,
    needed: impl IntoIterator<Item = Tile>,
) -> Result<BTreeMap<(u8, u64), Vec<u8>>, sqlx::Error> {
    let mut needed: Vec<Tile> = needed.into_iter().collect();
    needed.sort_unstable();
    needed.dedup_by_key(|tile| (tile.kind, tile.index));
    log_tile::hashes(connection, partition, &needed).await
}

fn leaf_hash(tiles: &impl Tiles, leaf: u64) -> Result<Hash, MissingTile> {
    let (index, at) = (leaf / u64::from(WIDTH), leaf % u64::from(WIDTH));
    let missing = || MissingTile(Tile { kind: Kind::Hashes { level: 0 }, index, width: WIDTH });
    let at = usize::try_from(at).map_err(|_| missing())? * Hash::BYTES;
    let hash = tiles.hashes(0, index).and_then(|hashes| hashes.get(at..at + Hash::BYTES));
    hash.and_then(Hash::from_slice).ok_or_else(missing)
}

fn shown(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(Hash::to_string).collect()
}

fn not_in_the_log(detail: String) -> Problem {
    Problem::not_found("not_in_the_log", detail)
}

/// Only between the flip to another generation and its notice is the log shorter than what is published.
fn missing(tile: MissingTile) -> Problem {
    Problem::unavailable(format!("{tile} in the live generation"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: [Option<u64>; 4], expected: Result<Asked, &str>) {
        let [offset, size, from, to] = query;
        let asked = ProofQuery { partition: 0, offset, size, from, to }.asked();
        let refused = |problem: Problem| {
            let named = problem.errors.iter().map(|error| format!("{} {}", error.field, error.code));
            named.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(asked.map_err(refused), expected.map_err(str::to_owned), "{query:?}");
    }

    #[test]
    fn a_proof_is_of_a_record_or_of_two_sizes() {
        check([Some(7), None, None, None], Ok(Asked::Inclusion { offset: 7, size: None }));
        check([Some(0), Some(9), None, None], Ok(Asked::Inclusion { offset: 0, size: Some(9) }));
        check([None, None, Some(3), Some(3)], Ok(Asked::Consistency { from: 3, to: 3 }));
        check([None, None, None, None], Err("offset required"));
        check([None, None, Some(3), None], Err("to required"));
        check([None, None, None, Some(3)], Err("from required"));
        check([None, Some(3), None, None], Err("offset required"));
        check([Some(7), None, Some(3), Some(4)], Err("offset not_allowed"));
        check([None, Some(5), Some(3), Some(4)], Err("size not_allowed"));
        check([None, None, Some(4), Some(3)], Err("from out_of_range"));
        check([None, None, Some(0), Some(3)], Err("from out_of_range"));
        check([Some(7), Some(0), None, None], Err("size out_of_range"));
    }
}
