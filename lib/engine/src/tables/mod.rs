//! The tables of each generation, and the statements on them that several services share.

pub mod account;
pub mod checkpoint;
pub mod commitments;
pub mod event;
pub mod halted;
pub mod log_size;
pub mod log_tail;
pub mod log_tile;
pub mod lot;
pub mod own_limit;
pub(crate) mod parked;
pub(crate) mod repayment;
pub mod user_total;

use platform::pg::{Model, Schema};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    pub name: &'static str,
    pub key: &'static str,
    /// Which of its rows follow from the journal, if not all; `{schema}` is replaced by the generation.
    rows: Option<&'static str>,
}

impl Table {
    const fn new(name: &'static str, key: &'static str) -> Self {
        Self { name, key, rows: None }
    }

    const fn of_rows(self, rows: &'static str) -> Self {
        Self { rows: Some(rows), ..self }
    }

    pub(crate) fn rows_in(&self, schema: Schema) -> String {
        let named = || format!("{schema}.{}", self.name);
        self.rows.map_or_else(named, |rows| format!("({})", rows.replace("{schema}", &schema.to_string())))
    }
}

/// The epoch names a process, and a partition without folded records has a row only if a process claimed it:
/// neither follows from the journal.
const CHECKPOINT: Table = Table::new("checkpoint", "partition").of_rows(
    "select partition, next_offset, last_leaf, fold_version, log_id from {schema}.checkpoint where next_offset > 0",
);

const READ_MODEL: [Table; 23] = [
    Table::new("account", "account_id"),
    Table::new("category_usage", "account_id, period_index, category"),
    CHECKPOINT,
    Table::new("daily_usage", "account_id, period_index, day, category, tier, model, feature, org_id"),
    Table::new("dead_letter", "partition, \"offset\""),
    Table::new("ended_hold", "account_id, reservation_id"),
    Table::new("entry", "account_id, \"offset\", seq"),
    Table::new("event", "account_id, \"offset\""),
    HALTED,
    Table::new("log_size", "partition"),
    LOG_TAIL,
    Table::new("log_tile", "partition, level, index"),
    Table::new("lot", "account_id, grant_id"),
    Table::new("own_limit", "account_id, user_id"),
    Table::new("parked", "account_id, \"offset\""),
    Table::new("period", "account_id, index"),
    Table::new("refused", "account_id, \"offset\""),
    Table::new("repayment", "account_id, line_start"),
    Table::new("snapshot", "account_id, \"offset\""),
    Table::new(
        "usage_rollup",
        "account_id, period_index, user_id, day, category, tier, model, feature, org_id",
    ),
    USER_TOTAL,
    Table::new("user_usage", "account_id, period_index, user_id, feature"),
    Table::new("user_usage_count", "account_id, period_index"),
];

/// How the entries are shared out to rows follows from how batches were cut.
const LOG_TAIL: Table = Table::new("log_tail", "partition").of_rows(
    "select partition, string_agg(entries, ''::bytea order by leaf) as entries
     from {schema}.log_tail group by partition",
);

/// The rank follows from the other columns.
const USER_TOTAL: Table = Table::new("user_total", "account_id, period_index, user_id")
    .of_rows("select account_id, period_index, user_id, used, events from {schema}.user_total");

/// How folding a record failed is for people, and what an operator asked for does not follow from the journal.
const HALTED: Table =
    Table::new("halted", "account_id").of_rows("select account_id, partition, kind from {schema}.halted");

/// Pages of an ended period are not used again: a batch that crosses its end does not store its last changes.
const USER_PAGE: Table = Table::new("user_page", "account_id, period_index, user_id").of_rows(
    "select user_page.* from {schema}.user_page join {schema}.account using (account_id)
     where period_index = (core -> 'period' ->> 'index')::bigint",
);

const ALERTING: [Table; 10] = [
    Table::new("account", "account_id"),
    CHECKPOINT,
    Table::new("event", "account_id, event_id, source"),
    Table::new("firing", "account_id, \"offset\", seq"),
    HALTED,
    Table::new("limit_page", "account_id, user_id"),
    Table::new("lot", "account_id, grant_id"),
    Table::new("parked", "account_id, \"offset\""),
    Table::new("repayment", "account_id, line_start"),
    USER_PAGE,
];

/// Returns the tables of each generation of a model.
pub const fn of(model: Model) -> &'static [Table] {
    match model {
        Model::ReadModel => &READ_MODEL,
        Model::Alerting => &ALERTING,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(model: Model, folder: &str) {
        let folder = format!("{}/../../migrations/{folder}", env!("CARGO_MANIFEST_DIR"));
        let mut tables = Vec::new();
        for file in fs::read_dir(folder).expect("the migrations") {
            let migration = fs::read_to_string(file.expect("a file").path()).expect("a migration");
            let created = migration.lines().filter_map(|line| line.strip_prefix("create table "));
            tables.extend(created.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())));
        }
        tables.sort_unstable();
        let compared: Vec<&str> = of(model).iter().map(|table| table.name).collect();
        assert_eq!(tables, compared);
    }

    #[test]
    fn every_table_of_a_generation_is_compared() {
        check(Model::ReadModel, "read_model");
        check(Model::Alerting, "alerting");
    }
}
