//! Verify: the journal against everything that follows from it: the log's trees against what was signed and kept, and
//! every row of the live generations against the journal folded anew. Changes nothing.

mod against;
mod arguments;
mod entries;
mod finding;
mod notes;
mod rows;
mod trees;
mod trust;

use std::io::Write;

use anyhow::{Context, Result};
use engine::consume::Source;
use futures::{StreamExt, TryStreamExt};
use platform::kafka::{self, Ends, LogIdentity};
use platform::pg::{self, Model};
use serde::Serialize;
use sqlx::PgPool;

use crate::progress::Progress;
use against::Ledger;
use entries::{entry, key_hasher};
use finding::{Finding, Record};
use notes::Notes;
use trees::{Computed, Entries};
use trust::{Keeper, Signed, Trust};

pub use arguments::Verify;

/// Connections: as many as a rebuild has.
const CONNECTIONS: u32 = 4;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// `equal` or `different`.
    pub result: &'static str,
    /// By which keys checkpoints were opened.
    pub trusted: String,
    pub partitions: Vec<Computed>,
    pub findings: Vec<Finding>,
    /// Rows that differ beside those that are named.
    pub more_rows: i64,
    /// Records that differ beside those that are named.
    pub more_records: u64,
    /// Why the rows could not be compared, where something was found already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<String>,
}

/// Verifies and reports; false if anything differs.
pub async fn run(arguments: &Verify, out: &mut impl Write) -> Result<bool> {
    let verified = verify(arguments).await?;
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&verified)?)?;
    } else {
        report(&verified, arguments.against.against.is_some(), out)?;
    }
    Ok(verified.findings.is_empty())
}

async fn verify(arguments: &Verify) -> Result<Verified> {
    let mut verified = match &arguments.against.against {
        Some(url) => verify_against(arguments, &Ledger::at(url, arguments.against.key.clone())).await?,
        None => verify_here(arguments).await?,
    };
    if !verified.findings.is_empty() {
        verified.result = "different";
    }
    Ok(verified)
}

impl Verified {
    fn by(trust: &Trust) -> Verified {
        Verified {
            result: "equal",
            trusted: trust.says(),
            partitions: Vec::new(),
            findings: Vec::new(),
            more_rows: 0,
            more_records: 0,
            unfinished: None,
        }
    }

    fn add(&mut self, tree: trees::Verified) {
        self.partitions.push(tree.computed);
        self.findings.extend(tree.findings);
        self.more_records += tree.more;
    }
}

/// Verifies the trees of a ledger over HTTP.
async fn verify_against(arguments: &Verify, ledger: &Ledger) -> Result<Verified> {
    let trust = Trust::of(&arguments.trust, ledger.keys().await?)?;
    let mut verified = Verified::by(&trust);
    let identity = ledger.identity().await?;
    let last = ledger.checkpoints().await?;
    let mut notes = Notes::new(&trust, identity);
    notes.take_files(&arguments.trust.checkpoint)?;
    for one in &last {
        let file = format!("/v1/audit/checkpoints {}:{}", one.partition, one.size);
        notes.take(&file, Keeper::Ledger, one.checkpoint.as_bytes());
    }
    let mut signed = notes.into_signed(&mut verified.findings);
    for partition in 0..identity.partitions {
        let size = last.iter().find(|one| one.partition == partition).map_or(0, |one| one.size);
        let kept = ledger.kept(identity, partition, size);
        let of_partition: Vec<Signed> =
            signed.extract_if(.., |signed| signed.partition == partition).collect();
        let journal = ledger.journal(identity, partition);
        verified.add(trees::verify(partition, journal, kept, of_partition, || {}).await?);
    }
    Ok(verified)
}

/// Verifies the trees and rows of a ledger whose Kafka and Postgres are at hand.
async fn verify_here(arguments: &Verify) -> Result<Verified> {
    let url = arguments.connection.database_url(arguments.database_url.as_deref())?;
    let pool =
        pg::connect(&url, "ledger verify", CONNECTIONS).await.context("the database can't be reached")?;
    let kafka = arguments.connection.kafka(&arguments.kafka)?;
    let identity = kafka::existing(&kafka).await?;
    let trust = Trust::of(&arguments.trust, notes::listed_keys(&pool).await?)?;
    let mut verified = Verified::by(&trust);
    let source = Source { kafka, identity, pool };
    verify_trees(&source, arguments, &trust, &mut verified).await?;
    match verify_rows(&source, arguments, &mut verified).await {
        Err(error) if !verified.findings.is_empty() => verified.unfinished = Some(format!("{error:#}")),
        compared => compared?,
    }
    Ok(verified)
}

/// Computes the tree of each partition, and holds it against what was signed and kept.
async fn verify_trees(
    source: &Source,
    arguments: &Verify,
    trust: &Trust,
    verified: &mut Verified,
) -> Result<()> {
    let Source { kafka, identity, pool } = source;
    let known = known_identity(pool).await?;
    let live = pg::live_generation(pool, Model::ReadModel).await?;
    let live = live.context("there is no read model yet: it is folded when its service starts")?;
    let mut notes = Notes::new(trust, *identity);
    notes.take_files(&arguments.trust.checkpoint)?;
    notes.take_topic(kafka).await?;
    notes.take_published(pool).await?;
    let mut signed = notes.into_signed(&mut verified.findings);
    for partition in 0..identity.partitions {
        if known.is_some_and(|known| known.log_id != identity.log_id) {
            let (offset, leaf) = (Some(0), Some(0));
            let anew = Record { kind: "topic_made_anew", partition, offset, leaf, between: None };
            verified.findings.push(Finding::Record(anew));
        }
        // The log is read first: the journal has at least as much.
        let (kept, _) = trees::kept(pool, live, partition).await?;
        let end = Ends::new(kafka, *identity)?.of(partition).await?.offset;
        let mut progress = Progress::start("computing the trees", end.unsigned_abs());
        let mut done = 0;
        let seen = move || {
            done += 1;
            progress.set(done);
        };
        let of_partition: Vec<Signed> =
            signed.extract_if(.., |signed| signed.partition == partition).collect();
        let tree =
            trees::verify(partition, journal(source, partition, end), kept, of_partition, seen).await?;
        verified.add(tree);
    }
    Ok(())
}

async fn verify_rows(source: &Source, arguments: &Verify, verified: &mut Verified) -> Result<()> {
    let ends = Ends::new(&source.kafka, source.identity)?.all().await?;
    for model in [Model::ReadModel, Model::Alerting] {
        let Some(live) = pg::live_generation(&source.pool, model).await? else { continue };
        for end in &ends {
            let mut tx = pg::begin_read(&source.pool, live).await?;
            let folded = engine::tables::checkpoint::next_offset(&mut tx, end.partition).await?.unwrap_or(0);
            anyhow::ensure!(
                folded <= end.offset,
                "partition {} of the journal ends at {}, and {live} has {folded} records of it",
                end.partition,
                end.offset
            );
        }
    }
    verified.more_rows = rows::verify(source, arguments, &mut verified.findings).await?;
    Ok(())
}

/// Returns the journal that the database belongs to.
async fn known_identity(pool: &PgPool) -> Result<Option<LogIdentity>> {
    let row: Option<(uuid::Uuid, i32)> =
        sqlx::query_as("select log_id, partitions from control.log_identity").fetch_optional(pool).await?;
    Ok(row.map(|(log_id, partitions)| LogIdentity { log_id, partitions }))
}

/// Reads the log entries of a partition's journal up to an offset.
fn journal(source: &Source, partition: i32, end: i64) -> Entries {
    let records = kafka::read_partition(&source.kafka, partition, 0, end);
    let log_id = source.identity.log_id;
    let mut hasher = None;
    Box::pin(records.map_err(anyhow::Error::from).map(move |record| {
        let record = record?;
        let hasher = hasher.get_or_insert_with(|| key_hasher(record.value_bytes(), log_id));
        let (offset, timestamp_ms) =
            (record.position.offset.unsigned_abs(), (record.appended_at.micros() / 1_000).unsigned_abs());
        Ok(entry(hasher, offset, timestamp_ms, record.key.as_deref(), record.value.as_deref()))
    }))
}

fn report(verified: &Verified, is_remote: bool, out: &mut impl Write) -> std::io::Result<()> {
    for Computed { partition, records, root, .. } in &verified.partitions {
        writeln!(out, "partition {partition}: {records} records, root {root}")?;
    }
    writeln!(out, "trusted: {}", verified.trusted)?;
    for finding in &verified.findings {
        writeln!(out, "{finding}")?;
    }
    if verified.more_rows > 0 {
        writeln!(out, "and {} more rows", verified.more_rows)?;
    }
    if verified.more_records > 0 {
        writeln!(out, "and {} more records", verified.more_records)?;
    }
    if let Some(why) = &verified.unfinished {
        writeln!(out, "the rows could not be compared: {why}")?;
    }
    match verified.findings.is_empty() {
        true if is_remote => writeln!(out, "the journal is what was signed; rows are not compared over HTTP"),
        true => writeln!(out, "every row of the read model and of the alerts is as the journal says"),
        false => writeln!(out, "what is kept is NOT what the journal says; nothing was changed"),
    }
}
