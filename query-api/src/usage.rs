//! Usage: sums of credits, events and quantities, grouped and filtered by any dimension.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::extract::State as Shared;
use axum::http::HeaderMap;
use axum::response::Response;
use ledger_core::credits::Credits;
use ledger_core::time::Day;
use runtime::http::{Problem, Query};
use serde::de::Error;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::State;
use crate::access::Seen;
use crate::answer::{self, Format, Record};
use crate::columns;
use crate::list::{self, AtLeast, Limit, Page};
use crate::reading::{self, Account};

/// What usage can be told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dimension {
    Category,
    Tier,
    Model,
    User,
    Feature,
    Org,
    Day,
}

impl Dimension {
    const ALL: [Dimension; 7] = [
        Dimension::Category,
        Dimension::Tier,
        Dimension::Model,
        Dimension::User,
        Dimension::Feature,
        Dimension::Org,
        Dimension::Day,
    ];

    /// Returns its name in the contract.
    const fn name(self) -> &'static str {
        match self {
            Dimension::Category => "category",
            Dimension::Tier => "tier",
            Dimension::Model => "model",
            Dimension::User => "user",
            Dimension::Feature => "feature",
            Dimension::Org => "org",
            Dimension::Day => "day",
        }
    }

    /// Returns its column, as text.
    const fn column(self) -> &'static str {
        match self {
            Dimension::Category => "category",
            Dimension::Tier => "tier",
            Dimension::Model => "model",
            Dimension::User => "user_id",
            Dimension::Feature => "feature",
            Dimension::Org => "org_id",
            // In the form of the contract, whatever the session's date style.
            Dimension::Day => "to_char(day, 'YYYY-MM-DD')",
        }
    }
}

/// The dimensions of `group_by`, in the caller's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct GroupBy(Vec<Dimension>);

impl<'de> Deserialize<'de> for GroupBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut dimensions = Vec::new();
        for name in text.split(',').filter(|name| !name.is_empty()) {
            let named = Dimension::ALL.into_iter().find(|dimension| dimension.name() == name);
            let dimension = named.ok_or_else(|| {
                D::Error::custom("unknown_dimension: group by category, tier, model, user, feature, org, day")
            })?;
            if dimensions.contains(&dimension) {
                return Err(D::Error::custom(format!("duplicate: {name} is named twice")));
            }
            dimensions.push(dimension);
        }
        Ok(Self(dimensions))
    }
}

/// Which periods are summed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Span {
    /// The open one.
    #[default]
    Current,
    /// One by its index.
    Index(i64),
    /// All of them.
    All,
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "current" => Ok(Span::Current),
            "all" => Ok(Span::All),
            index => index
                .parse()
                .map(Span::Index)
                .map_err(|_| D::Error::custom("not_a_period: period is current, all, or a period's index")),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsageQuery {
    #[serde(default)]
    period: Span,
    #[serde(default)]
    group_by: GroupBy,
    category: Option<String>,
    tier: Option<String>,
    model: Option<String>,
    user: Option<String>,
    feature: Option<String>,
    org: Option<String>,
    day: Option<Day>,
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

impl UsageQuery {
    /// Returns what must hold of each dimension; an empty value asks for usage without one.
    fn filters(&self) -> Vec<(Dimension, String)> {
        let day = self.day.map(|day| day.to_string());
        let given = [
            (Dimension::Category, &self.category),
            (Dimension::Tier, &self.tier),
            (Dimension::Model, &self.model),
            (Dimension::User, &self.user),
            (Dimension::Feature, &self.feature),
            (Dimension::Org, &self.org),
            (Dimension::Day, &day),
        ];
        given.into_iter().filter_map(|(dimension, value)| Some((dimension, value.clone()?))).collect()
    }
}

/// One group's sums.
#[derive(Debug)]
struct Group {
    /// Its dimensions with their values, in the caller's order; '' = absent.
    key: Vec<(Dimension, String)>,
    credits: Credits,
    events: i64,
    /// No zeros.
    quantities: BTreeMap<String, Credits>,
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (dimension, value) in &self.key {
            map.serialize_entry(dimension.name(), &Some(value).filter(|value| !value.is_empty()))?;
        }
        map.serialize_entry("credits", &self.credits)?;
        map.serialize_entry("events", &self.events)?;
        map.serialize_entry("quantities", &self.quantities)?;
        map.end()
    }
}

impl Record for Group {
    fn values(&self) -> Vec<String> {
        let quantities: Vec<String> =
            self.quantities.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        let sums = [self.credits.to_string(), self.events.to_string(), quantities.join(" ")];
        self.key.iter().map(|(_, value)| value.clone()).chain(sums).collect()
    }
}

fn header(group_by: &GroupBy) -> Vec<&'static str> {
    group_by.0.iter().map(|dimension| dimension.name()).chain(["credits", "events", "quantities"]).collect()
}

/// `GET /v1/accounts/{account}/usage`
pub(crate) async fn usage(
    Shared(state): Shared<State>,
    seen: Seen,
    headers: HeaderMap,
    Query(mut query): Query<UsageQuery>,
) -> Result<Response, Problem> {
    let format = Format::of(&headers);
    query.user = seen.user(query.user)?;
    let after: Option<Vec<String>> = list::decode(query.cursor.as_deref())?;
    if after.as_ref().is_some_and(|after| after.len() != query.group_by.0.len()) {
        return Err(Problem::bad_field("cursor", "bad_cursor", "is a cursor of another grouping"));
    }
    let header = header(&query.group_by);
    let (reflects, page) = reading::of(&state, seen.account, query.at_least, move |connection, account| {
        Box::pin(load(connection, account, query, after))
    })
    .await?;
    answer::page(&reflects, &format, &header, page)
}

async fn load(
    connection: &mut PgConnection,
    account: &Account,
    query: UsageQuery,
    after: Option<Vec<String>>,
) -> Result<Page<Group>, Problem> {
    let filters = query.filters();
    let period = match query.period {
        Span::Current => Some(account.core.period.index),
        Span::Index(index) => Some(index),
        Span::All => None,
    };
    let sql = statement(&query.group_by, &filters);
    let mut bound = sqlx::query(AssertSqlSafe(sql))
        .bind(account.id())
        .bind(period)
        .bind(after)
        .bind(query.limit.rows_to_ask());
    for (_, value) in filters {
        bound = bound.bind(value);
    }
    let rows = bound.fetch_all(connection).await?;
    let groups: Result<Vec<Group>, sqlx::Error> =
        rows.iter().map(|row| group_of(row, &query.group_by)).collect();
    let mut groups = groups?;
    if groups.is_empty() && query.group_by.0.is_empty() {
        groups.push(Group {
            key: Vec::new(),
            credits: Credits::ZERO,
            events: 0,
            quantities: BTreeMap::new(),
        });
    }
    Ok(Page::cut(groups, query.limit, |group| {
        let values: Vec<&String> = group.key.iter().map(|(_, value)| value).collect();
        serde_json::json!(values)
    }))
}

/// Sums one page of groups, then the quantities of these groups alone. A group is known by its values as an array,
/// so that one statement serves every grouping, none too. What was all reversed is no group.
fn statement(group_by: &GroupBy, filters: &[(Dimension, String)]) -> String {
    let columns: Vec<&str> = group_by.0.iter().map(|dimension| dimension.column()).collect();
    let mut conditions = String::new();
    for (position, (dimension, _)) in filters.iter().enumerate() {
        let parameter = 5 + position;
        // Compared as its own type, so that an index can serve.
        let condition = match dimension {
            Dimension::Day => format!("\n               and day = ${parameter}::text::date"),
            other => format!("\n               and {} = ${parameter}", other.column()),
        };
        let _ = write!(conditions, "{condition}");
    }
    format!(
        r#"with picked as not materialized (
            select array[{columns}]::text[] collate "C" as key, credits, events, quantities
              from usage_rollup
             where account_id = $1
               and ($2::bigint is null or period_index = $2){conditions}
        ), page as materialized (
            select key, sum(credits) as credits, sum(events)::bigint as events
              from picked
             where $3::text[] is null or key > $3
             group by key
            having sum(events) > 0
             order by key
             limit $4
        ), amounts as (
            select key, name, sum(amount::numeric) as amount
              from picked
              join page using (key)
             cross join lateral jsonb_each_text(picked.quantities) as quantity (name, amount)
             group by key, name
        ), maps as (
            select key, jsonb_object_agg(name, trim_scale(amount)::text) as quantities
              from amounts
             where amount <> 0
             group by key
        )
        select key, credits::text, events, coalesce(quantities, '{{}}')::text as quantities
          from page
          left join maps using (key)
         order by key"#,
        columns = columns.join(", "),
    )
}

fn group_of(row: &PgRow, group_by: &GroupBy) -> Result<Group, sqlx::Error> {
    let values: Vec<String> = row.try_get("key")?;
    let quantities: BTreeMap<String, String> = columns::json_of(row, "quantities")?;
    let quantities: Result<_, sqlx::Error> =
        quantities.into_iter().map(|(name, amount)| Ok((name, runtime::pg::credits_of(&amount)?))).collect();
    Ok(Group {
        key: group_by.0.iter().copied().zip(values).collect(),
        credits: columns::amount(row, "credits")?,
        events: row.try_get("events")?,
        quantities: quantities?,
    })
}

#[cfg(test)]
mod tests {
    use serde::de::value::{Error as ValueError, StrDeserializer};

    use super::*;

    fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, String> {
        T::deserialize(StrDeserializer::<ValueError>::new(text)).map_err(|error| error.to_string())
    }

    #[test]
    fn usage_is_grouped_by_any_dimensions_once_each() {
        let all = read::<GroupBy>("category,tier,model,user,feature,org,day").expect("all seven");
        assert_eq!(all.0, Dimension::ALL);
        assert_eq!(
            read::<GroupBy>("model,category").expect("two").0,
            [Dimension::Model, Dimension::Category]
        );
        assert!(read::<GroupBy>("colour").is_err_and(|error| error.starts_with("unknown_dimension")));
        assert!(read::<GroupBy>("day,day").is_err_and(|error| error.starts_with("duplicate")));
    }

    #[test]
    fn a_period_is_the_open_one_one_by_index_or_all() {
        for (text, span) in [("current", Span::Current), ("-3", Span::Index(-3)), ("all", Span::All)] {
            assert_eq!(read(text), Ok(span));
        }
        assert!(read::<Span>("last").is_err_and(|error| error.starts_with("not_a_period")));
    }

    #[test]
    fn a_group_names_its_dimensions_and_null_where_usage_had_none() {
        let group = Group {
            key: vec![(Dimension::Category, "ai_usage".into()), (Dimension::User, String::new())],
            credits: Credits::whole(2),
            events: 3,
            quantities: BTreeMap::from([("seconds".into(), Credits::whole(60))]),
        };
        let json = serde_json::to_value(&group).expect("json");
        let expected = serde_json::json!({
            "category": "ai_usage", "user": null, "credits": "2", "events": 3, "quantities": {"seconds": "60"}
        });
        assert_eq!(json, expected);
        assert_eq!(group.values(), ["ai_usage", "", "2", "3", "seconds=60"]);
    }
}
