//! Finds settings of Kafka and Postgres that could lose acknowledged data.

use std::collections::BTreeMap;

use sqlx::PgPool;

use super::error::Error;
use super::preflight::{Preflight, Unsafe};
use crate::pg;

/// Returns the settings that could lose acknowledged writes; a service is not ready while there are any.
pub async fn safety(preflight: &Preflight, pool: &PgPool) -> Result<Vec<Unsafe>, Error> {
    let mut found = preflight.check().await?;
    found.extend(unsafe_postgres(&postgres_settings(pool).await?));
    Ok(found)
}

type Settings = BTreeMap<String, String>;

async fn postgres_settings(pool: &PgPool) -> Result<Settings, Error> {
    let names = ["fsync", "full_page_writes", "synchronous_commit"];
    let rows: Vec<(String, String)> =
        sqlx::query_as("select name, setting from pg_settings where name = any($1)")
            .bind(names.map(str::to_owned).to_vec())
            .fetch_all(pg::bounded(pool))
            .await?;
    Ok(rows.into_iter().collect())
}

fn unsafe_postgres(settings: &Settings) -> Vec<Unsafe> {
    let rules: [(&str, &[&str], &'static str); 3] = [
        ("fsync", &["on"], "a power cut could lose committed rows"),
        ("full_page_writes", &["on"], "a power cut could tear pages"),
        (
            "synchronous_commit",
            &["on", "local", "remote_write", "remote_apply"],
            "a power cut could lose committed rows",
        ),
    ];
    check("postgres", settings, &rules)
}

fn check(place: &str, settings: &Settings, rules: &[(&str, &[&str], &'static str)]) -> Vec<Unsafe> {
    let broken = |(name, safe, reason): &(&str, &[&str], &'static str)| {
        let value = settings.get(*name)?;
        let unsafe_setting = Unsafe { setting: format!("{place} {name}"), value: value.clone(), reason };
        (!safe.contains(&value.as_str())).then_some(unsafe_setting)
    };
    rules.iter().filter_map(broken).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &[Unsafe]) -> Vec<&str> {
        found.iter().map(|it| it.setting.as_str()).collect()
    }

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_database_that_does_not_wait_for_the_disk_is_not_safe() {
        assert_eq!(names(&unsafe_postgres(&settings(&[("fsync", "off")]))), ["postgres fsync"]);
        assert_eq!(
            names(&unsafe_postgres(&settings(&[("synchronous_commit", "off"), ("full_page_writes", "off")]))),
            ["postgres full_page_writes", "postgres synchronous_commit"]
        );
        assert_eq!(names(&unsafe_postgres(&settings(&[("synchronous_commit", "remote_apply")]))), [""; 0]);
    }
}
