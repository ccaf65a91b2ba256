//! Altered: rows of the read models and a record of the journal that somebody changed. `ledger verify` names each, with both
//! values.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use local_stack::testing::shared_log_folder;
use local_stack::testing::wire::{Packed, RawRecord, Wire, batch, crc32c};
use platform::http_client;
use platform::kafka::{Journal, Position};
use platform::pg::Schema;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tempfile::NamedTempFile;
use tokio::time::sleep;
use transparency_log::checkpoint::Checkpoint;
use transparency_log::hash::Hash;
use transparency_log::key::Kind;
use transparency_log::key_file::LogKey;
use transparency_log::name::KeyName;
use transparency_log::note::Note;
use transparency_log::tree::Head;

use crate::client::{Load, open_accounts, write};
use crate::fleet::{Fleet, LOG_SEED, home_of};
use crate::verify::{ALERTS, LIVE};

const SERVICES: [&str; 3] = ["projector", "command-api", "alert-worker"];

impl Fleet {
    /// Runs `ledger verify`, which must end with this code, and returns what it says.
    fn verifies(&self, code: i32, arguments: &[&str]) -> Result<String> {
        let verified = Command::new(e2e::program())
            .arg("verify")
            .args(arguments)
            .env("DATABASE_URL", &self.database_url)
            .env("KAFKA_BROKERS", &self.kafka.brokers)
            .env("LEDGER_TOPIC_PREFIX", &self.kafka.topic_prefix)
            .env("RUST_LOG", "error")
            .output()?;
        let said = String::from_utf8(verified.stdout)?;
        let why = String::from_utf8_lossy(&verified.stderr);
        ensure!(verified.status.code() == Some(code), "{}: {said} {why}", verified.status);
        Ok(said)
    }
}

/// A value that somebody changed.
#[derive(Debug)]
struct Altered {
    table: String,
    key: BTreeMap<String, Option<String>>,
    column: String,
    was: String,
    is: String,
}

impl Altered {
    fn is_found(&self, finding: &Value) -> bool {
        finding["kind"] == "row_altered"
            && finding["table"] == json!(self.table)
            && finding["key"] == json!(self.key)
            && finding["column"] == json!(self.column)
            && finding["expected"] == json!(self.was)
            && finding["found"] == json!(self.is)
    }
}

/// Columns of a table that a change can be made to, each with the changed value in SQL.
async fn changeable(fleet: &Fleet, schema: Schema, table: &str) -> Result<Vec<(String, String)>> {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "select column_name::text, data_type::text from information_schema.columns
         where table_schema = $1 and table_name = $2 and is_generated = 'NEVER'
         order by column_name",
    )
    .bind(schema.to_string())
    .bind(table)
    .fetch_all(&fleet.pool)
    .await?;
    let changed = |(name, kind): (String, String)| {
        let quoted = format!("\"{name}\"");
        let value = match kind.as_str() {
            "bigint" | "integer" | "numeric" => format!("{quoted} + 1"),
            "text" => format!("{quoted} || 'x'"),
            "timestamp with time zone" => format!("{quoted} + interval '1 second'"),
            "bytea" => format!("{quoted} || '\\x00'"),
            _ => return None,
        };
        Some((name, value))
    };
    Ok(columns.into_iter().filter_map(changed).collect())
}

/// Changes one value of a random row, if the table has rows and a column that takes a change.
async fn alter(fleet: &Fleet, schema: Schema, table: &str, random: &mut StdRng) -> Result<Option<Altered>> {
    let known = engine::tables::of(schema.model).iter().find(|known| known.name == table);
    let key: Vec<&str> =
        known.context("a table")?.key.split(", ").map(|name| name.trim_matches('"')).collect();
    let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {schema}.{table}")))
        .fetch_one(&fleet.pool)
        .await?;
    let mut columns = changeable(fleet, schema, table).await?;
    columns.retain(|(name, _)| !key.contains(&name.as_str()));
    columns.shuffle(random);
    for (column, value) in columns.into_iter().filter(|_| count > 0) {
        let row = random.random_range(0..count);
        let change = format!(
            r#"with before as (
                   select ctid as at, to_json(t) as row from {schema}.{table} as t order by ctid offset {row} limit 1
               ),
               after as (
                   update {schema}.{table} as t set "{column}" = {value}
                   from before where t.ctid = before.at and "{column}" is not null
                   returning to_json(t) as row
               )
               select (select json_object_agg(key, value) from json_each_text(before.row))::text, after.row ->> '{column}'
               from before, after"#
        );
        // What a constraint refuses, nobody changes either.
        let changed: Result<Option<(String, String)>, sqlx::Error> =
            sqlx::query_as(AssertSqlSafe(change)).fetch_optional(&fleet.pool).await;
        let Ok(Some((before, is))) = changed else { continue };
        let before: BTreeMap<String, Option<String>> = serde_json::from_str(&before)?;
        let text = |name: &str| before.get(name).cloned().flatten();
        return Ok(Some(Altered {
            table: format!("{schema}.{table}"),
            key: key.iter().map(|name| ((*name).to_owned(), text(name))).collect(),
            was: text(&column).unwrap_or_default(),
            column,
            is,
        }));
    }
    Ok(None)
}

/// Of these not every row or column follows from the journal.
const APART: [&str; 5] = ["checkpoint", "halted", "log_tail", "parked", "user_page"];

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_somebody_altered_are_named_with_both_values() -> Result<()> {
    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let mut fleet = Fleet::start(&SERVICES).await?;
    open_accounts(&fleet).await?;
    let load = Load::start(&fleet)?;
    sleep(Duration::from_secs(2)).await;
    let sent = load.finish().await?;
    fleet.at_rest().await?;
    fleet.stop_all().await?;
    let said = fleet.verifies(0, &[])?;
    ensure!(said.contains("as the journal says"), "{said}");

    let mut altered = Vec::new();
    for schema in [LIVE, ALERTS] {
        for table in engine::tables::of(schema.model).iter().filter(|table| !APART.contains(&table.name)) {
            altered.extend(alter(&fleet, schema, table.name, &mut random).await?);
        }
    }
    ensure!(altered.len() >= 10, "only {} tables had rows to alter: {altered:#?}", altered.len());
    let said = fleet.verifies(1, &["--json"])?;
    let verified: Value = serde_json::from_str(&said)?;
    let findings = verified["findings"].as_array().context("findings")?;
    for one in &altered {
        let found = findings.iter().any(|finding| one.is_found(finding));
        ensure!(found, "seed {seed}: {one:#?} is not among {findings:#?}");
    }
    ensure!(findings.len() == altered.len(), "seed {seed}: {altered:#?} are not {findings:#?}");
    ensure!(sent > 0, "nothing was folded");
    Ok(())
}

/// Changes bytes of a record in the files of a partition, and mends the checksum of its batch.
fn alter_record(partition: &Path, from: &[u8], to: &[u8]) -> Result<()> {
    let file = partition.join("00000000000000000000.log");
    let mut bytes = fs::read(&file).with_context(|| file.display().to_string())?;
    let at = bytes.windows(from.len()).position(|bytes| bytes == from).context("the record in the file")?;
    bytes[at..at + from.len()].copy_from_slice(to);
    let mut start = 0;
    loop {
        let length: [u8; 4] = bytes[start + 8..start + 12].try_into()?;
        let end = start + 12 + usize::try_from(i32::from_be_bytes(length))?;
        if at < end {
            // Summed is everything after the sum.
            let sum = crc32c(&bytes[start + 21..end]).to_be_bytes();
            bytes[start + 17..start + 21].copy_from_slice(&sum);
            break;
        }
        start = end;
    }
    // In place: the broker has the file open.
    let mut opened = fs::OpenOptions::new().write(true).open(&file)?;
    Ok(std::io::Write::write_all(&mut opened, &bytes)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_somebody_altered_in_the_brokers_files_is_named_by_its_position() -> Result<()> {
    let fleet = Fleet::start(&SERVICES).await?;
    let http = http_client::plain();
    let body =
        json!({"account_id": "acme", "clock": "live", "plan": {"cycle": "yearly", "allowance": "100"}});
    write(&fleet, &http, Method::POST, "/v1/accounts", &body).await?;
    let now = platform::clock::now();
    let event =
        json!({"specversion": "1.0", "id": "altered", "source": "/app", "type": "ledger.usage.recorded.v1",
                       "subject": "acme", "time": now, "recordedat": now, "actor": "test",
                       "data": {"user_id": "ana", "credits": "0.25"}})
        .to_string();
    let record = RawRecord { key: Some(b"acme"), value: Some(event.as_bytes()), headers: Vec::new() };
    let (topic, partition) = (fleet.kafka.topics().events, home_of("acme")?);
    let mut wire = Wire::connect(&fleet.kafka.brokers).await?;
    let offset = wire.produce(&topic, partition, &batch(Packed::Plain, &[record])).await?;
    let usage = json!({"id": "later", "occurred_at": now, "user_id": "ana", "credits": "1"});
    write(&fleet, &http, Method::POST, "/v1/accounts/acme/usage", &usage).await?;
    fleet.at_rest().await?;
    fleet.verifies(0, &[])?;

    let logs = shared_log_folder()?.context("the broker is not ours, unset KAFKA_BROKERS")?;
    let own = logs.join(format!("{topic}-{partition}"));
    alter_record(&own, br#""credits":"0.25""#, br#""credits":"0.35""#)?;

    let at = Position { partition, offset };
    let said = fleet.verifies(1, &[])?;
    let named = format!("{}.event account_id=acme offset={offset} (record {at}): ", LIVE);
    ensure!(said.lines().any(|line| line.starts_with(&named)), "{said}");
    let sum = "used is 1.250000000, by the journal 1.350000000";
    ensure!(said.lines().any(|line| line.contains("user_usage") && line.contains(sum)), "{said}");
    // The log still has what the record was.
    let verified: Value = serde_json::from_str(&fleet.verifies(1, &["--json"])?)?;
    let findings = verified["findings"].as_array().context("findings")?;
    let mut records = findings.iter().filter(|finding| finding.get("leaf").is_some());
    let altered = json!({"kind": "record_altered", "partition": partition, "offset": offset, "leaf": offset});
    ensure!(records.next() == Some(&altered) && records.next().is_none(), "{findings:#?}");
    Ok(())
}

/// Signs a head of a partition's log with the key that follows from a seed, into a file.
fn note(fleet: &Fleet, origin: &str, seed: u8, head: Head) -> Result<(NamedTempFile, String)> {
    let origin: KeyName = origin.replace("{log}", &fleet.identity.log_id.to_string()).parse()?;
    let signer = LogKey::from_seed([seed; 32]).signer(&origin);
    let mut file = NamedTempFile::new()?;
    let note = Checkpoint { origin, head }.sign(&[signer]);
    std::io::Write::write_all(&mut file, note.to_string().as_bytes())?;
    let name = file.path().to_str().context("a path in UTF-8")?.to_owned();
    Ok((file, name))
}

/// Appends records that are no events to one partition, and waits until all of it is signed; returns the last head.
async fn sign_many(fleet: &Fleet, records: usize) -> Result<(i32, Head)> {
    let all: Vec<(&str, String)> = (0..records).map(|n| ("acme", format!("no event {n}"))).collect();
    let journal = Journal::new(&fleet.kafka, fleet.identity)?;
    for outcome in journal.append_all(&all).await {
        outcome?;
    }
    let partition = home_of("acme")?;
    let size = journal.end(partition).await?.offset;
    for _ in 0..600 {
        let note = "select note from control.log_checkpoint where partition = $1 and size = $2";
        let note: Option<String> =
            sqlx::query_scalar(note).bind(partition).bind(size).fetch_optional(&fleet.pool).await?;
        if let Some(note) = note {
            let checkpoint: Checkpoint = Note::parse(note.as_bytes())?.text().parse()?;
            return Ok((partition, checkpoint.head));
        }
        sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("{size} records of partition {partition} are not signed")
}

const ORIGIN: &str = "ledger.local/v1/audit/log/{log}";

/// Gives `ledger verify` checkpoints that this ledger did not sign, or not of this journal.
fn checkpoints_of_others_are_named(fleet: &Fleet, origin: &str, head: Head) -> Result<()> {
    let vkey = LogKey::from_seed([LOG_SEED; 32]);
    let vkey = vkey.signer(&origin.replace("{log}", &fleet.identity.log_id.to_string()).parse()?);
    let vkey = vkey.verifier(Kind::Ed25519).to_string();
    for (kind, origin, seed, head) in [
        ("checkpoint_fork", origin.to_owned(), LOG_SEED, Head { root: Hash::ZERO, ..head }),
        ("log_shrunk", origin.to_owned(), LOG_SEED, Head { size: head.size + 1, ..head }),
        ("checkpoint_forged", origin.to_owned(), LOG_SEED + 1, head),
        ("checkpoint_of_another_log", origin.replace("{log}", "{log}0"), LOG_SEED, head),
    ] {
        let file = note(fleet, &origin, seed, head)?;
        let said = fleet.verifies(1, &["--json", "--checkpoint", &file.1, "--vkey", &vkey])?;
        let verified: Value = serde_json::from_str(&said)?;
        let origin = origin.replace("{log}", &fleet.identity.log_id.to_string());
        let expected = json!([{"kind": kind, "file": file.1, "origin": origin, "size": head.size}]);
        ensure!(verified["findings"] == expected, "{kind}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changed_of_the_audit_log_or_signed_otherwise_is_named() -> Result<()> {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let mut fleet = Fleet::start(&SERVICES).await?;
    let (partition, head) = sign_many(&fleet, 600).await?;
    fleet.at_rest().await?;
    fleet.stop_all().await?;

    let origin = format!("{ORIGIN}/{partition}");
    let kept = note(&fleet, &origin, LOG_SEED, head)?;
    let said = fleet.verifies(0, &["--checkpoint", &kept.1, "--json"])?;
    let verified: Value = serde_json::from_str(&said)?;
    let computed = json!({"partition": partition, "records": head.size, "size": head.size, "root": head.root.to_string()});
    ensure!(verified["partitions"].as_array().is_some_and(|all| all.contains(&computed)), "{said}");
    ensure!(verified["trusted"].as_str().is_some_and(|trusted| trusted.starts_with("none: ")), "{said}");
    ensure!(verified["result"] == "equal" && verified["findings"] == json!([]), "{said}");

    checkpoints_of_others_are_named(&fleet, &origin, head)?;

    // What the ledger itself keeps.
    let (tiles, notes): (i64, i64) = sqlx::query_as(
        "select (select count(*) from read_model_1.log_tile), (select count(*) from control.log_checkpoint)",
    )
    .fetch_one(&fleet.pool)
    .await?;
    let (tile, note) = (random.random_range(0..tiles), random.random_range(0..notes));
    let change = format!(
        "update read_model_1.log_tile as tile set bytes = set_byte(tile.bytes, 7, get_byte(tile.bytes, 7) # 1)
         from (select * from read_model_1.log_tile order by partition, level, index offset {tile} limit 1) as one
         where (tile.partition, tile.level, tile.index) = (one.partition, one.level, one.index);
         update read_model_1.log_tail set entries = set_byte(entries, 80, get_byte(entries, 80) # 1)
         where (partition, leaf) = (select partition, min(leaf) from read_model_1.log_tail where partition = {partition} group by 1);
         update control.log_checkpoint as note set note = overlay(note.note placing '!' from length(note.note) - 9)
         from (select * from control.log_checkpoint order by partition, size offset {note} limit 1) as one
         where (note.partition, note.size) = (one.partition, one.size)"
    );
    sqlx::raw_sql(AssertSqlSafe(change)).execute(&fleet.pool).await?;
    let said = fleet.verifies(1, &["--json"])?;
    let verified: Value = serde_json::from_str(&said)?;
    let findings = verified["findings"].as_array().context("findings")?;
    let mut kinds: Vec<String> = findings
        .iter()
        .map(|finding| {
            format!(
                "{} {}",
                finding["kind"],
                finding["table"].as_str().or(finding["file"].as_str()).unwrap_or("?")
            )
        })
        .collect();
    kinds.sort();
    let is_forged =
        kinds.first().is_some_and(|first| first.starts_with("\"checkpoint_forged\" control.log_checkpoint "));
    let rows = ["\"row_altered\" read_model_1.log_tail", "\"row_altered\" read_model_1.log_tile"];
    ensure!(is_forged && kinds[1..] == rows, "seed {seed}: {said}");
    Ok(())
}
