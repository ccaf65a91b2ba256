//! Verify: folds the journal anew and compares every row of the live generations with it; they stay as they are.

use std::collections::BTreeMap;
use std::io::Write;
use std::num::NonZeroU32;

use anyhow::{Context, Result};
use clap::Args;
use engine::compare::{Columns, Difference, Sample};
use engine::consume::Source;
use ledger_core::event::partition::partition_of;
use platform::kafka::{self, KafkaOptions, Position};
use platform::pg;
use serde::Serialize;

use crate::connection::Connection;
use crate::rebuild::{self, Rebuild, Rebuildable};

/// Connections: as many as a rebuild has.
const CONNECTIONS: u32 = 4;

/// What to verify.
#[derive(Debug, Clone, Args)]
pub struct Verify {
    /// The journal's Kafka.
    #[command(flatten)]
    pub kafka: KafkaOptions,
    /// The ledger's Postgres, as postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The local stack, where a service is not named.
    #[command(flatten)]
    pub connection: Connection,
    /// Most rows that are named of each table that differs
    #[arg(long, default_value_t = 1_000)]
    pub samples: u32,
    /// Prints the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// `equal` or `different`.
    pub result: &'static str,
    /// Records of the journal that were folded for the read model.
    pub records: i64,
    pub findings: Vec<Finding>,
    /// Rows that differ beside those that are named.
    pub more_rows: i64,
}

/// A column of a row that differs from what the journal says, or a row that is missing or too many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: &'static str,
    /// With its generation, such as `read_model_1.period`.
    pub table: String,
    pub key: BTreeMap<String, Option<String>>,
    pub column: Option<String>,
    /// By the journal.
    pub expected: Option<String>,
    /// In Postgres.
    pub found: Option<String>,
    /// The record that the row is of, for rows of one record.
    pub position: Option<Position>,
}

/// Verifies and reports; false if anything differs.
pub async fn run(arguments: &Verify, out: &mut impl Write) -> Result<bool> {
    let verified = verify(arguments).await?;
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&verified)?)?;
    } else {
        report(&verified, out)?;
    }
    Ok(verified.findings.is_empty())
}

async fn verify(arguments: &Verify) -> Result<Verified> {
    let url = arguments.connection.database_url(arguments.database_url.as_deref())?;
    let pool =
        pg::connect(&url, "ledger verify", CONNECTIONS).await.context("the database can't be reached")?;
    let kafka = arguments.connection.kafka(&arguments.kafka)?;
    let identity = kafka::existing(&kafka).await?;
    let partitions = u32::try_from(identity.partitions).ok().and_then(NonZeroU32::new);
    let partitions =
        partitions.with_context(|| format!("a journal of {} partitions", identity.partitions))?;
    let source = Source { kafka, identity, pool };
    let mut verified = Verified { result: "equal", records: 0, findings: Vec::new(), more_rows: 0 };
    for model in [Rebuildable::ReadModel, Rebuildable::Alerting] {
        let wanted = Rebuild {
            kafka: arguments.kafka.clone(),
            database_url: None,
            connection: arguments.connection.clone(),
            model,
            no_flip: true,
            accept_differences: false,
            drop_old: false,
            drop: None,
            samples: arguments.samples,
            json: false,
        };
        let rebuilt = rebuild::rebuild(source.clone(), &wanted).await?;
        if let Ok(schema) = rebuilt.rebuilt.parse() {
            rebuild::drop_generation(&source.pool, schema).await?;
        }
        if matches!(model, Rebuildable::ReadModel) {
            verified.records = rebuilt.compared_at.iter().map(|position| position.offset).sum();
        }
        for difference in &rebuilt.differences {
            let named = i64::try_from(difference.samples.len())?;
            verified.more_rows += difference.rows - named;
            verified.findings.extend(findings(difference, &rebuilt.live, model, partitions));
        }
    }
    if !verified.findings.is_empty() {
        verified.result = "different";
    }
    Ok(verified)
}

fn findings(difference: &Difference, live: &str, model: Rebuildable, partitions: NonZeroU32) -> Vec<Finding> {
    let known = engine::tables::of(model.into()).iter().find(|table| table.name == difference.table);
    let key: Vec<&str> =
        known.map_or("", |table| table.key).split(", ").map(|column| column.trim_matches('"')).collect();
    let mut findings = Vec::new();
    for sample in &difference.samples {
        let Some(row) = sample.first.as_ref().or(sample.second.as_ref()) else { continue };
        let finding = |kind, column: Option<&str>, expected: Option<&str>, found: Option<&str>| Finding {
            kind,
            table: format!("{live}.{}", difference.table),
            key: key
                .iter()
                .map(|column| ((*column).to_owned(), row.get(*column).cloned().flatten()))
                .collect(),
            column: column.map(str::to_owned),
            expected: expected.map(str::to_owned),
            found: found.map(str::to_owned),
            position: position(row, &key, partitions),
        };
        match sample {
            Sample { first: None, .. } => findings.push(finding("row_missing", None, None, None)),
            Sample { second: None, .. } => findings.push(finding("row_added", None, None, None)),
            Sample { first: Some(_), second: Some(_) } => {
                let columns = sample.columns().into_iter();
                findings.extend(
                    columns.map(|(column, found, expected)| {
                        finding("row_altered", Some(column), expected, found)
                    }),
                );
            }
        }
    }
    findings
}

/// Returns the record that a row is of, if its key has an offset.
fn position(row: &Columns, key: &[&str], partitions: NonZeroU32) -> Option<Position> {
    if !key.contains(&"offset") {
        return None;
    }
    let text = |column: &str| row.get(column)?.as_deref();
    let offset = text("offset")?.parse().ok()?;
    let partition = match text("partition") {
        Some(partition) => partition.parse().ok()?,
        None => i32::try_from(partition_of(text("account_id")?.as_bytes(), partitions)).ok()?,
    };
    Some(Position { partition, offset })
}

fn report(verified: &Verified, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "{} records of the journal folded anew", verified.records)?;
    for finding in &verified.findings {
        let key = finding.key.iter().map(|(column, value)| format!("{column}={}", shown(value.as_deref())));
        let key = key.collect::<Vec<_>>().join(" ");
        let place = finding.position.map_or_else(String::new, |position| format!(" (record {position})"));
        write!(out, "{} {key}{place}: ", finding.table)?;
        match (finding.kind, &finding.column) {
            (_, Some(column)) => writeln!(
                out,
                "{column} is {}, by the journal {}",
                shown(finding.found.as_deref()),
                shown(finding.expected.as_deref())
            )?,
            ("row_missing", None) => writeln!(out, "the row is missing")?,
            (_, None) => writeln!(out, "the journal has no such row")?,
        }
    }
    if verified.more_rows > 0 {
        writeln!(out, "and {} more rows", verified.more_rows)?;
    }
    match verified.findings.is_empty() {
        true => writeln!(out, "every row of the read model and of the alerts is as the journal says"),
        false => writeln!(out, "the live rows are NOT what the journal says; nothing was changed"),
    }
}

fn shown(value: Option<&str>) -> &str {
    value.unwrap_or("null")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pairs: &[(&str, &str)]) -> Columns {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect()
    }

    #[test]
    fn a_row_of_a_record_is_named_by_its_position_too() {
        let partitions = NonZeroU32::new(8).expect("eight");
        let event = row(&[("account_id", "acme"), ("offset", "17"), ("outcome", "applied")]);
        let home = i32::try_from(partition_of(b"acme", partitions)).expect("small");
        let at = position(&event, &["account_id", "offset"], partitions);
        assert_eq!(at, Some(Position { partition: home, offset: 17 }));
        let letter = row(&[("partition", "3"), ("offset", "5")]);
        let at = position(&letter, &["partition", "offset"], partitions);
        assert_eq!(at, Some(Position { partition: 3, offset: 5 }));
        assert_eq!(position(&row(&[("account_id", "acme")]), &["account_id"], partitions), None);
    }

    #[test]
    fn a_finding_names_the_row_and_both_values() {
        let samples = vec![
            Sample {
                first: Some(row(&[("account_id", "acme"), ("offset", "17"), ("outcome", "applied")])),
                second: Some(row(&[("account_id", "acme"), ("offset", "17"), ("outcome", "rejected")])),
            },
            Sample { first: Some(row(&[("account_id", "acme"), ("offset", "18")])), second: None },
        ];
        let difference = Difference { table: "event", rows: 2, only_first: 1, only_second: 0, samples };
        let partitions = NonZeroU32::new(8).expect("eight");
        let findings = findings(&difference, "read_model_1", Rebuildable::ReadModel, partitions);
        let kinds: Vec<&str> = findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, ["row_altered", "row_added"]);
        let mut text = Vec::new();
        let verified = Verified { result: "different", records: 20, findings, more_rows: 0 };
        report(&verified, &mut text).expect("written");
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains("read_model_1.event account_id=acme offset=17 (record "), "{text}");
        assert!(text.contains("outcome is applied, by the journal rejected"), "{text}");
    }
}
