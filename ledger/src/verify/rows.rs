//! Rows: folds both models anew and compares every row of the live generations with them; they stay as they are.

use std::num::NonZeroU32;

use anyhow::{Context, Result};
use engine::compare::{Columns, Difference, Sample};
use engine::consume::Source;
use ledger_core::event::partition::partition_of;
use platform::kafka::Position;

use super::arguments::Verify;
use super::finding::{Finding, Row};
use crate::rebuild::{self, Rebuild, Rebuildable};

/// Folds both models anew and compares them with the live ones; returns how many rows differ beside those that are named.
pub(super) async fn verify(source: &Source, arguments: &Verify, found: &mut Vec<Finding>) -> Result<i64> {
    let partitions = u32::try_from(source.identity.partitions).ok().and_then(NonZeroU32::new);
    let partitions =
        partitions.with_context(|| format!("a journal of {} partitions", source.identity.partitions))?;
    let mut more_rows = 0;
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
        for difference in &rebuilt.differences {
            let named = i64::try_from(difference.samples.len())?;
            more_rows += difference.rows - named;
            let rows = findings(difference, &rebuilt.live, model, partitions);
            found.extend(rows.into_iter().map(Finding::Row));
        }
    }
    Ok(more_rows)
}

fn findings(difference: &Difference, live: &str, model: Rebuildable, partitions: NonZeroU32) -> Vec<Row> {
    let known = engine::tables::of(model.into()).iter().find(|table| table.name == difference.table);
    let key: Vec<&str> =
        known.map_or("", |table| table.key).split(", ").map(|column| column.trim_matches('"')).collect();
    let mut findings = Vec::new();
    for sample in &difference.samples {
        let Some(row) = sample.first.as_ref().or(sample.second.as_ref()) else { continue };
        let finding = |kind, column: Option<&str>, expected: Option<&str>, found: Option<&str>| Row {
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
        let text = findings[0].to_string();
        assert!(text.starts_with("read_model_1.event account_id=acme offset=17 (record "), "{text}");
        assert!(text.ends_with("outcome is applied, by the journal rejected"), "{text}");
    }
}
