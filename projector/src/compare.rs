//! Compare: whether two generations say the same, row for row.

use runtime::pg::Schema;
use sqlx::{AssertSqlSafe, PgConnection, Row};

/// Tables of a generation, all of them compared.
pub const TABLES_COMPARED: [&str; 13] = [
    "account",
    "checkpoint",
    "dead_letter",
    "entry",
    "event",
    "lot",
    "parked",
    "period",
    "refused",
    "repayment",
    "snapshot",
    "usage_rollup",
    "user_usage",
];
/// Differing rows shown of each table and side.
pub const SAMPLES_MAX: usize = 3;

/// Rows of one table that only one of two generations has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The table.
    pub table: &'static str,
    /// Rows that only the first has; a row that differs counts on both sides.
    pub only_first: i64,
    /// Rows that only the second has.
    pub only_second: i64,
    /// Some of the first's, as text.
    pub first_samples: Vec<String>,
    /// Some of the second's.
    pub second_samples: Vec<String>,
}

/// Returns the tables in which two generations differ, as one snapshot sees them.
///
/// The epoch of a checkpoint is not compared: it names a process. Everything else follows from the log.
pub async fn compare(
    tx: &mut PgConnection,
    first: Schema,
    second: Schema,
) -> Result<Vec<Difference>, sqlx::Error> {
    let mut differences = Vec::new();
    for table in TABLES_COMPARED {
        let difference = compare_table(&mut *tx, first, second, table).await?;
        if difference.only_first + difference.only_second > 0 {
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
) -> Result<Difference, sqlx::Error> {
    let row = match table {
        "checkpoint" => "row(partition, next_offset, last_leaf, fold_version, log_id)",
        table => table,
    };
    // As text, because json has no equality. A table's rows differ in their keys, so a join is enough.
    let statement = format!(
        "select count(*) filter (where second.line is null),
                count(*) filter (where first.line is null),
                coalesce((array_agg(first.line)  filter (where second.line is null))[1:{SAMPLES_MAX}], '{{}}'),
                coalesce((array_agg(second.line) filter (where first.line is null))[1:{SAMPLES_MAX}], '{{}}')
         from            (select {row}::text as line from {first}.{table})  as first
         full outer join (select {row}::text as line from {second}.{table}) as second
                      on first.line = second.line
         where first.line is null
            or second.line is null"
    );
    let found = sqlx::query(AssertSqlSafe(statement)).fetch_one(tx).await?;
    Ok(Difference {
        table,
        only_first: found.try_get(0)?,
        only_second: found.try_get(1)?,
        first_samples: found.try_get(2)?,
        second_samples: found.try_get(3)?,
    })
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
        assert_eq!(tables, TABLES_COMPARED);
    }
}
