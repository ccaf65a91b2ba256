//! Compare: whether two generations say the same, row for row.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{Model, Schema};

/// A table of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its primary key.
    pub key: &'static str,
    /// Which of its rows follow from the journal, where not all do; `{schema}` stands for the generation.
    rows: Option<&'static str>,
}

impl Table {
    const fn new(name: &'static str, key: &'static str) -> Self {
        Self { name, key, rows: None }
    }

    const fn of_rows(self, rows: &'static str) -> Self {
        Self { rows: Some(rows), ..self }
    }

    fn rows_in(&self, schema: Schema) -> String {
        let named = || format!("{schema}.{}", self.name);
        self.rows.map_or_else(named, |rows| format!("({})", rows.replace("{schema}", &schema.to_string())))
    }
}

/// The epoch of a checkpoint names a process; that of a partition of which nothing was folded stands where somebody
/// claimed it.
const CHECKPOINT: Table = Table::new("checkpoint", "partition").of_rows(
    "select partition, next_offset, last_leaf, fold_version, log_id from {schema}.checkpoint where next_offset > 0",
);

const READ_MODEL: [Table; 15] = [
    Table::new("account", "account_id"),
    Table::new("category_usage", "account_id, period_index, category"),
    CHECKPOINT,
    Table::new("dead_letter", "partition, \"offset\""),
    Table::new("ended_hold", "account_id, reservation_id"),
    Table::new("entry", "account_id, \"offset\", seq"),
    Table::new("event", "account_id, \"offset\""),
    Table::new("lot", "account_id, grant_id"),
    Table::new("parked", "account_id, \"offset\""),
    Table::new("period", "account_id, index"),
    Table::new("refused", "account_id, \"offset\""),
    Table::new("repayment", "account_id, line_start"),
    Table::new("snapshot", "account_id, \"offset\""),
    Table::new(
        "usage_rollup",
        "account_id, period_index, user_id, day, category, tier, model, feature, org_id",
    ),
    Table::new("user_usage", "account_id, period_index, user_id, feature"),
];

/// Pages of a period that has ended are of no more use: a batch that crosses its end leaves out what it changed last.
const USER_PAGE: Table = Table::new("user_page", "account_id, period_index, user_id").of_rows(
    "select user_page.* from {schema}.user_page join {schema}.account using (account_id)
     where period_index = (core -> 'period' ->> 'index')::bigint",
);

const ALERTING: [Table; 8] = [
    Table::new("account", "account_id"),
    CHECKPOINT,
    Table::new("event", "account_id, event_id, source"),
    Table::new("firing", "account_id, \"offset\", seq"),
    Table::new("lot", "account_id, grant_id"),
    Table::new("parked", "account_id, \"offset\""),
    Table::new("repayment", "account_id, line_start"),
    USER_PAGE,
];

impl Model {
    /// Returns the tables of each of its generations, all of them compared.
    pub const fn tables(self) -> &'static [Table] {
        match self {
            Model::ReadModel => &READ_MODEL,
            Model::Alerting => &ALERTING,
        }
    }
}

/// Differing rows shown of each table.
pub const SAMPLES_MAX: usize = 5;

/// Rows of one table in which two generations differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The table.
    pub table: &'static str,
    /// Keys whose row differs, or is in one only.
    pub rows: i64,
    /// Those that only the first has.
    pub only_first: i64,
    /// Those that only the second has.
    pub only_second: i64,
    /// Some of them, the first by key.
    pub samples: Vec<Sample>,
}

/// A row's values as text, by the names of their columns.
pub type Columns = BTreeMap<String, Option<String>>;

/// A row as each of two generations has it: none where it is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// In the first.
    pub first: Option<Columns>,
    /// In the second.
    pub second: Option<Columns>,
}

/// Returns the tables in which two generations of one model differ, as one snapshot sees them.
pub async fn compare(
    tx: &mut PgConnection,
    first: Schema,
    second: Schema,
) -> Result<Vec<Difference>, sqlx::Error> {
    let mut differences = Vec::new();
    for table in first.model.tables() {
        let difference = compare_table(&mut *tx, first, second, *table).await?;
        if difference.rows > 0 {
            differences.push(difference);
        }
    }
    Ok(differences)
}

async fn compare_table(
    tx: &mut PgConnection,
    first: Schema,
    second: Schema,
    table: Table,
) -> Result<Difference, sqlx::Error> {
    let key = table.key;
    // As text, because json has no equality. Both sides come in the order of their primary keys.
    let differing = format!(
        "from {} as first full join {} as second using ({key})
         where first::text is distinct from second::text",
        table.rows_in(first),
        table.rows_in(second)
    );
    let count = format!(
        "select count(*), count(*) filter (where second is null), count(*) filter (where first is null) {differing}"
    );
    let found = sqlx::query(AssertSqlSafe(count)).fetch_one(&mut *tx).await?;
    let mut difference = Difference {
        table: table.name,
        rows: found.try_get(0)?,
        only_first: found.try_get(1)?,
        only_second: found.try_get(2)?,
        samples: Vec::new(),
    };
    if difference.rows > 0 {
        let show = format!(
            "select case when first is null  then null
                         else (select json_object_agg(key, value) from json_each_text(to_json(first)))  end,
                    case when second is null then null
                         else (select json_object_agg(key, value) from json_each_text(to_json(second))) end
             {differing}
             order by {key}
             limit {SAMPLES_MAX}"
        );
        for row in sqlx::query(AssertSqlSafe(show)).fetch_all(&mut *tx).await? {
            let side =
                |at| row.try_get::<Option<Json<Columns>>, _>(at).map(|side| side.map(|Json(side)| side));
            difference.samples.push(Sample { first: side(0)?, second: side(1)? });
        }
    }
    Ok(difference)
}

impl Sample {
    /// Returns the columns in which the two differ, each with both values.
    pub fn columns(&self) -> Vec<(&str, Option<&str>, Option<&str>)> {
        let names: BTreeSet<&str> = [&self.first, &self.second]
            .into_iter()
            .flatten()
            .flat_map(Columns::keys)
            .map(String::as_str)
            .collect();
        let both = |name| (name, value(&self.first, name), value(&self.second, name));
        names.into_iter().map(both).filter(|(_, first, second)| first != second).collect()
    }
}

fn value<'a>(row: &'a Option<Columns>, name: &str) -> Option<&'a str> {
    row.as_ref()?.get(name)?.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(model: Model, migrations: &[&str]) {
        let mut tables: Vec<&str> = migrations
            .iter()
            .flat_map(|migration| migration.lines())
            .filter_map(|line| line.strip_prefix("create table "))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        tables.sort_unstable();
        let compared: Vec<&str> = model.tables().iter().map(|table| table.name).collect();
        assert_eq!(tables, compared);
    }

    #[test]
    fn every_table_of_a_generation_is_compared() {
        check(
            Model::ReadModel,
            &[
                include_str!("../../../migrations/read_model/0001_read_model.sql"),
                include_str!("../../../migrations/read_model/0002_ended_hold.sql"),
            ],
        );
        check(Model::Alerting, &[include_str!("../../../migrations/alerting/0001_alerting.sql")]);
    }
}
