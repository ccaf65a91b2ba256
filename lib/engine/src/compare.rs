//! Compares two generations of a model, row for row.

use std::collections::{BTreeMap, BTreeSet};

use platform::pg::Schema;
use serde::Serialize;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::tables::{self, Table};

/// Most differing rows sampled per table, unless more are wanted.
pub const SAMPLES_MAX: u32 = 5;

/// Rows of one table in which two generations differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub table: &'static str,
    /// Number of keys whose row differs or is in one generation only.
    pub rows: i64,
    pub only_first: i64,
    pub only_second: i64,
    /// Samples, the first by key.
    pub samples: Vec<Sample>,
}

/// A row's values as text, by column name.
pub type Columns = BTreeMap<String, Option<String>>;

/// A row in each of two generations; `None` if missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    pub first: Option<Columns>,
    pub second: Option<Columns>,
}

/// Returns the tables in which two generations of one model differ, as one snapshot sees them.
pub async fn compare(
    tx: &mut PgConnection,
    first: Schema,
    second: Schema,
) -> Result<Vec<Difference>, sqlx::Error> {
    compare_sampling(tx, first, second, SAMPLES_MAX).await
}

/// Compares as [`compare`] does, with at most this many samples per table.
pub async fn compare_sampling(
    tx: &mut PgConnection,
    first: Schema,
    second: Schema,
    samples_max: u32,
) -> Result<Vec<Difference>, sqlx::Error> {
    let mut differences = Vec::new();
    for table in tables::of(first.model) {
        let difference = compare_table(&mut *tx, first, second, *table, samples_max).await?;
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
    samples_max: u32,
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
        "select count(*) as rows,
                count(*) filter (where second is null) as only_first,
                count(*) filter (where first is null)  as only_second
         {differing}"
    );
    let found = sqlx::query(AssertSqlSafe(count)).fetch_one(&mut *tx).await?;
    let mut difference = Difference {
        table: table.name,
        rows: found.try_get("rows")?,
        only_first: found.try_get("only_first")?,
        only_second: found.try_get("only_second")?,
        samples: Vec::new(),
    };
    if difference.rows > 0 {
        let show = format!(
            "select case when first is null  then null
                         else (select json_object_agg(key, value) from json_each_text(to_json(first)))
                    end as first_row,
                    case when second is null then null
                         else (select json_object_agg(key, value) from json_each_text(to_json(second)))
                    end as second_row
             {differing}
             order by {key}
             limit {samples_max}"
        );
        for row in sqlx::query(AssertSqlSafe(show)).fetch_all(&mut *tx).await? {
            let side =
                |name| row.try_get::<Option<Json<Columns>>, _>(name).map(|side| side.map(|Json(side)| side));
            difference.samples.push(Sample { first: side("first_row")?, second: side("second_row")? });
        }
    }
    Ok(difference)
}

impl Sample {
    /// Returns the differing columns, each with both values.
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
