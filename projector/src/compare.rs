//! Compare: whether two generations say the same, row for row.

use std::collections::{BTreeMap, BTreeSet};

use runtime::pg::Schema;
use serde::Serialize;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection, Row};

/// Tables of a generation, all of them compared, each with its primary key.
pub const TABLES_COMPARED: [(&str, &str); 13] = [
    ("account", "account_id"),
    ("checkpoint", "partition"),
    ("dead_letter", "partition, \"offset\""),
    ("entry", "account_id, \"offset\", seq"),
    ("event", "account_id, \"offset\""),
    ("lot", "account_id, grant_id"),
    ("parked", "account_id, \"offset\""),
    ("period", "account_id, index"),
    ("refused", "account_id, \"offset\""),
    ("repayment", "account_id, line_start"),
    ("snapshot", "account_id, \"offset\""),
    ("usage_rollup", "account_id, period_index, user_id, day, category, tier, model, feature, org_id"),
    ("user_usage", "account_id, period_index, user_id, feature"),
];
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

/// Returns the tables in which two generations differ, as one snapshot sees them.
///
/// The epoch of a checkpoint is not compared: it names a process. Nor is the checkpoint of a partition of which nothing
/// was folded: it stands where somebody claimed it. Everything else follows from the log.
pub async fn compare(
    tx: &mut PgConnection,
    first: Schema,
    second: Schema,
) -> Result<Vec<Difference>, sqlx::Error> {
    let mut differences = Vec::new();
    for (table, key) in TABLES_COMPARED {
        let difference = compare_table(&mut *tx, first, second, table, key).await?;
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
    table: &'static str,
    key: &str,
) -> Result<Difference, sqlx::Error> {
    let rows = |schema: Schema| match table {
        "checkpoint" => format!(
            "(select partition, next_offset, last_leaf, fold_version, log_id
              from {schema}.checkpoint
              where next_offset > 0)"
        ),
        table => format!("{schema}.{table}"),
    };
    // As text, because json has no equality. Both sides come in the order of their primary keys.
    let differing = format!(
        "from {} as first full join {} as second using ({key})
         where first::text is distinct from second::text",
        rows(first),
        rows(second)
    );
    let count = format!(
        "select count(*), count(*) filter (where second is null), count(*) filter (where first is null) {differing}"
    );
    let found = sqlx::query(AssertSqlSafe(count)).fetch_one(&mut *tx).await?;
    let mut difference = Difference {
        table,
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

    #[test]
    fn every_table_of_the_read_model_is_compared() {
        let migration = include_str!("../../migrations/read_model/0001_read_model.sql");
        let mut tables: Vec<&str> = migration
            .lines()
            .filter_map(|line| line.strip_prefix("create table "))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        tables.sort_unstable();
        assert_eq!(tables, TABLES_COMPARED.map(|(table, _)| table));
    }
}
