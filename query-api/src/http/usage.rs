//! Usage: sums of credits, events and quantities, grouped and filtered by any dimension.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use axum::extract::State;
use axum::http::HeaderMap;
use engine::tables::user_total;
use ledger_core::account::Core;
use ledger_core::event::Usage;
use ledger_core::value::credits::{Credits, OutOfRange};
use ledger_core::value::id::{Label, OrgId, OutsideName, Slug, UserId};
use ledger_core::value::schema::Amounts;
use ledger_core::value::time::{Day, Time};
use platform::pg::columns;
use platform::position::AtLeast;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use web::http::{Problem, Query};
use web::openapi::{Route, get};

use crate::access::Seen;
use crate::answer::{self, Answer, Format, Now, Record};
use crate::app::App;
use crate::as_of::{self, At};
use crate::http::ranking::{Place, Walk, keep_first};
use crate::list::{self, Limit, Page};
use crate::past_rows::{self, Used};
use crate::reading::{self, Account};

/// The dimensions that group and filter usage.
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

    const fn column(self) -> &'static str {
        match self {
            Dimension::Category => "category",
            Dimension::Tier => "tier",
            Dimension::Model => "model",
            Dimension::User => "user_id",
            Dimension::Feature => "feature",
            Dimension::Org => "org_id",
            Dimension::Day => "day",
        }
    }

    /// Returns the column formatted as in the contract, whatever the session's date style.
    fn as_text(self) -> String {
        if self == Dimension::Day {
            "to_char(day, 'YYYY-MM-DD') as day".to_owned()
        } else {
            self.column().to_owned()
        }
    }

    /// Returns a usage's value; empty if it has none.
    fn value(self, usage: &Usage, day: Option<Day>) -> String {
        let value = match self {
            Dimension::Category => usage.category.as_ref().map(ToString::to_string),
            Dimension::Tier => usage.tier.as_ref().map(ToString::to_string),
            Dimension::Model => usage.model.as_ref().map(ToString::to_string),
            Dimension::User => usage.user_id.as_ref().map(ToString::to_string),
            Dimension::Feature => usage.feature.as_ref().map(ToString::to_string),
            Dimension::Org => usage.org_id.as_ref().map(ToString::to_string),
            Dimension::Day => day.map(|day| day.to_string()),
        };
        value.unwrap_or_default()
    }

    /// Returns the type that a parameter must be cast to for a comparison with the column.
    const fn cast(self) -> &'static str {
        if matches!(self, Dimension::Day) { "::text::date" } else { "::text" }
    }
}

/// The dimensions of `group_by`, in the caller's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct GroupBy(Vec<Dimension>);

impl GroupBy {
    /// Returns whether these can be the values of a group.
    fn is_place(&self, values: &[String]) -> bool {
        let fits = |(dimension, value): (&Dimension, &String)| {
            *dimension != Dimension::Day || value.parse::<Day>().is_ok()
        };
        self.0.len() == values.len() && self.0.iter().zip(values).all(fits)
    }
}

impl JsonSchema for GroupBy {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "GroupBy".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Dimensions, separated by commas: category, tier, model, user, feature, org, day. Each group is an item, in their order; without any, there is one item.",
            "type": "string",
            "examples": ["category,model"],
        })
    }
}

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

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Span {
    #[default]
    Current,
    Index(i64),
    All,
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The open period (current), all of them (all), or one by its index.",
            "type": "string",
            "pattern": "^(current|all|-?[0-9]+)$",
            "examples": ["current"],
        })
    }
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

/// The order of groups, other than by their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "UsageSort")]
enum Sort {
    /// The largest first; one page of them.
    #[serde(rename = "-credits")]
    LargestFirst,
}

/// The required value of a dimension; empty selects usage without it.
#[derive(Debug, Clone)]
struct Value(String);

impl JsonSchema for Value {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Value".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let said = "Only usage with this value; an empty one selects usage without any.";
        json_schema!({"type": "string", "description": said})
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.chars().any(char::is_control) {
            return Err(D::Error::custom("control_character: no name has control characters"));
        }
        Ok(Self(text))
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsageQuery {
    period: Option<Span>,
    /// The first day, instead of a period.
    from: Option<Day>,
    /// The day after the last one.
    to: Option<Day>,
    #[serde(default)]
    group_by: GroupBy,
    sort: Option<Sort>,
    category: Option<Value>,
    tier: Option<Value>,
    model: Option<Value>,
    user: Option<Value>,
    feature: Option<Value>,
    org: Option<Value>,
    /// Only usage that occurred on this day of the plan's time zone.
    day: Option<Day>,
    #[serde(default)]
    limit: Limit,
    /// Whether groups have their quantities, as they do by default. Without them, sums over many users are read several
    /// times faster.
    quantities: Option<bool>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Shows the sums as they stood at this ledger time, from at most 1,000,000 events.
    as_of: Option<Time>,
    at_least: Option<AtLeast>,
}

impl UsageQuery {
    /// 422 where parameters exclude each other.
    fn check(&self) -> Result<(), Problem> {
        let ranges = self.from.is_some() || self.to.is_some();
        if ranges && self.period.is_some() {
            return Err(Problem::bad_field("period", "not_allowed", "is instead of from and to"));
        }
        if self.from.zip(self.to).is_some_and(|(from, to)| to <= from) {
            return Err(Problem::bad_field("to", "not_after", "must be after from"));
        }
        if self.sort.is_some() && self.cursor.is_some() {
            return Err(Problem::bad_field("cursor", "not_allowed", "the largest groups are one page"));
        }
        Ok(())
    }

    fn span(&self) -> Span {
        let ranges = self.from.is_some() || self.to.is_some();
        self.period.unwrap_or(if ranges { Span::All } else { Span::Current })
    }

    /// Returns the conditions on dimensions; an empty value selects usage without one.
    fn filters(&self) -> Vec<(Dimension, String)> {
        let day = self.day.map(|day| Value(day.to_string()));
        let given = [
            (Dimension::Category, &self.category),
            (Dimension::Tier, &self.tier),
            (Dimension::Model, &self.model),
            (Dimension::User, &self.user),
            (Dimension::Feature, &self.feature),
            (Dimension::Org, &self.org),
            (Dimension::Day, &day),
        ];
        given.into_iter().filter_map(|(dimension, value)| Some((dimension, value.clone()?.0))).collect()
    }
}

#[derive(Debug)]
struct Group {
    /// The dimensions with their values, in the caller's order; '' = absent.
    key: Vec<(Dimension, String)>,
    credits: Credits,
    events: i64,
    /// Without zeros.
    quantities: BTreeMap<String, Credits>,
}

impl Group {
    fn new(key: Vec<(Dimension, String)>) -> Self {
        Self { key, credits: Credits::ZERO, events: 0, quantities: BTreeMap::new() }
    }

    fn add(&mut self, used: &Used) -> Result<(), OutOfRange> {
        self.credits = self.credits.plus(used.credits)?;
        self.events += 1;
        for (name, quantity) in used.usage.quantities.iter().flatten() {
            if !quantity.amount().is_zero() {
                let sum = self.quantities.entry(name.to_string()).or_default();
                *sum = sum.plus(quantity.amount())?;
            }
        }
        Ok(())
    }
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

/// Sums of one group. Of the dimensions it has those of `group_by`, null where usage had none.
#[derive(JsonSchema)]
#[schemars(rename = "UsageGroup")]
#[allow(dead_code, reason = "stands for the schema of a group")]
struct GroupFields {
    #[schemars(extend("nullable" = true))]
    category: Option<Slug>,
    #[schemars(extend("nullable" = true))]
    tier: Option<Label>,
    #[schemars(extend("nullable" = true))]
    model: Option<OutsideName>,
    #[schemars(extend("nullable" = true))]
    user: Option<UserId>,
    #[schemars(extend("nullable" = true))]
    feature: Option<Label>,
    #[schemars(extend("nullable" = true))]
    org: Option<OrgId>,
    day: Option<Day>,
    credits: Credits,
    events: i64,
    quantities: Amounts,
}

impl JsonSchema for Group {
    fn schema_name() -> Cow<'static, str> {
        "UsageGroup".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = GroupFields::json_schema(generator);
        schema.insert("required".to_owned(), serde_json::json!(["credits", "events", "quantities"]));
        schema
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

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/usage", usage)
            .named("getUsage", "Returns sums of usage, grouped and filtered.")
            .says(
                "Groups of which all usage was reversed are left out, and so are quantities of 0. Members see their \
                 own usage. Answers with CSV if `Accept` prefers `text/csv`.",
            )
            .refuses(&["history_too_long"]),
        answer::csv(get("/v1/accounts/{account}/usage.csv", usage))
            .named("exportUsage", "Returns sums of usage as CSV, grouped and filtered.")
            .says("The quantities of a group read `input_tokens=1200 output_tokens=80`."),
    ]
}

/// `GET /v1/accounts/{account}/usage`
async fn usage(
    State(app): State<App>,
    seen: Seen,
    headers: HeaderMap,
    Query(mut query): Query<UsageQuery>,
) -> Result<Answer<Now<Page<Group>>>, Problem> {
    let format = Format::of(&headers);
    query.check()?;
    query.user = seen.user(query.user.map(|user| user.0))?.map(Value);
    let after: Option<Vec<String>> = list::decode(query.cursor.as_deref())?;
    if after.as_ref().is_some_and(|after| !query.group_by.is_place(after)) {
        return Err(Problem::bad_field("cursor", "bad_cursor", "is a cursor of another grouping"));
    }
    let header = header(&query.group_by);
    let (reflects, page) = reading::of(&app, seen.account, query.at_least, move |connection, account| {
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
    let (limit, only_sum, sort) = (query.limit, query.group_by.0.is_empty(), query.sort);
    let has_quantities = query.quantities != Some(false);
    let at = At::asked(account, query.as_of)?;
    let past = match at {
        Some(at) => Some(as_of::core_at(connection, account, at).await?),
        None => None,
    };
    let open = past.as_ref().unwrap_or(&account.core);
    let picked = Picked::by(query, open.period.index);
    let period = match picked.period {
        Some(index) => Some((index, require_period(connection, account, open, index).await?)),
        None => None,
    };
    let groups = match at {
        Some(at) => picked.sums_at(connection, account, (period, at), after).await?,
        None => {
            let among = picked.largest_users(connection, account, limit.rows_to_ask()).await?;
            picked.sums(connection, account, Part { after, among, rows: limit.rows_to_ask() }).await?
        }
    };
    let mut page = Page::cut(groups, limit, |group| {
        let values: Vec<&String> = group.key.iter().map(|(_, value)| value).collect();
        serde_json::json!(values)
    });
    if sort.is_some() {
        page.next_cursor = None;
    }
    if !has_quantities {
        page.items.iter_mut().for_each(|group| group.quantities.clear());
    } else if at.is_none() {
        picked.add_quantities(connection, account, &mut page.items).await?;
    }
    if page.items.is_empty() && only_sum {
        page.items.push(Group::new(Vec::new()));
    }
    Ok(page)
}

/// Returns when a period began; 404 unless the account has had it.
async fn require_period(
    connection: &mut PgConnection,
    account: &Account,
    open: &Core,
    index: i64,
) -> Result<Time, Problem> {
    let starts_at = past_rows::period_start(connection, account, open, index).await?;
    starts_at.ok_or_else(|| {
        let detail = format!("account {} has no period {index}", account.id());
        Problem::not_found("period_not_found", detail)
    })
}

/// A part of the groups.
struct Part {
    /// Only groups behind this one.
    after: Option<Vec<String>>,
    /// Only these users, who have the most usage.
    among: Option<Vec<String>>,
    rows: i64,
}

/// The rollups to sum, and their grouping.
struct Picked {
    period: Option<i64>,
    from: Option<Day>,
    to: Option<Day>,
    sort: Option<Sort>,
    filters: Vec<(Dimension, String)>,
    group_by: Vec<Dimension>,
}

impl Picked {
    fn by(query: UsageQuery, open_period: i64) -> Self {
        let period = match query.span() {
            Span::Current => Some(open_period),
            Span::Index(index) => Some(index),
            Span::All => None,
        };
        let UsageQuery { from, to, sort, .. } = query;
        Self { period, from, to, sort, filters: query.filters(), group_by: query.group_by.0 }
    }

    /// Starts the parameters with the account, and writes the conditions of the selection. Only conditions that apply
    /// are written, and columns are compared in their own types, so that the planner can use an index.
    fn conditions(&self, account: &Account, parameters: &mut Parameters) -> String {
        let mut conditions = format!("account_id = {}", parameters.add(account.id().to_owned(), "::text"));
        if let Some(period) = self.period {
            let period = parameters.add(period.to_string(), "::text::bigint");
            let _ = write!(conditions, "\n and period_index = {period}");
        }
        for (day, compared) in [(self.from, ">="), (self.to, "<")] {
            if let Some(day) = day {
                let day = parameters.add(day.to_string(), Dimension::Day.cast());
                let _ = write!(conditions, "\n and day {compared} {day}");
            }
        }
        for (dimension, value) in &self.filters {
            let value = parameters.add(value.clone(), dimension.cast());
            let _ = write!(conditions, "\n and {} = {value}", dimension.column());
        }
        conditions
    }

    /// Returns the table of sums to add up: that of users only where users matter.
    fn table(&self) -> &'static str {
        let of_users = self.group_by.contains(&Dimension::User)
            || self.filters.iter().any(|(dimension, _)| *dimension == Dimension::User);
        if of_users { "usage_rollup" } else { "daily_usage" }
    }

    fn columns(&self) -> Vec<&'static str> {
        self.group_by.iter().map(|dimension| dimension.column()).collect()
    }

    /// Returns the users with the most usage of a period, where all of their usage is asked for and the period has too
    /// many users to add them all up.
    async fn largest_users(
        &self,
        connection: &mut PgConnection,
        account: &Account,
        rows: i64,
    ) -> Result<Option<Vec<String>>, sqlx::Error> {
        let is_of_all = self.group_by == [Dimension::User] && self.filters.is_empty();
        let (Some(period), Some(Sort::LargestFirst), true) = (self.period, self.sort, is_of_all) else {
            return Ok(None);
        };
        if (self.from, self.to) != (None, None)
            || !user_total::has_totals(connection, account.id(), period).await?
        {
            return Ok(None);
        }
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        let mut walk = Walk::new(period, None, rows);
        let mut first: Vec<Place> = Vec::new();
        while !(first.len() == rows && first.last().is_some_and(|last| walk.is_past(last))) {
            let Some(more) = walk.next(connection, account).await? else { break };
            keep_first(&mut first, more, rows);
        }
        // Of those who have used 0, some have no group: all their usage was reversed.
        if first.last().is_none_or(|last| !last.used().is_positive()) {
            return Ok(None);
        }
        let unnamed = std::iter::once(String::new());
        Ok(Some(first.into_iter().map(|place| place.user_id).chain(unnamed).collect()))
    }

    /// Sums a page of groups, in the order of their values. Within a period and by user first, that is the order of the
    /// table's key, so only the rows of the page are read.
    async fn sums(
        &self,
        connection: &mut PgConnection,
        account: &Account,
        part: Part,
    ) -> Result<Vec<Group>, sqlx::Error> {
        let Part { after, among, rows } = part;
        let mut parameters = Parameters::default();
        let mut conditions = self.conditions(account, &mut parameters);
        if let Some(users) = among {
            let users = parameters.add_list(&users, Dimension::User.cast());
            let _ = write!(conditions, "\n and user_id = any({users})");
        }
        let columns = self.columns().join(", ");
        if let (Some(after), false) = (after, self.group_by.is_empty()) {
            let named = self.group_by.iter().zip(after);
            let values: Vec<String> =
                named.map(|(dimension, value)| parameters.add(value, dimension.cast())).collect();
            let _ = write!(conditions, "\n and ({columns}) > ({})", values.join(", "));
        }
        let texts: String = self.group_by.iter().map(|dimension| dimension.as_text() + ", ").collect();
        let (group_by, order_by) = match columns.as_str() {
            "" => (String::new(), String::new()),
            columns => (format!("group by {columns}"), format!("order by {columns}")),
        };
        let order_by = match self.sort {
            Some(Sort::LargestFirst) if !columns.is_empty() => {
                order_by.replacen("order by ", "order by sum(summed.credits) desc, ", 1)
            }
            Some(Sort::LargestFirst) | None => order_by,
        };
        let sql = format!(
            "select {texts}sum(credits)::text as credits, sum(events)::bigint as events
               from {} as summed
              where {conditions}
              {group_by}
             having sum(events) > 0
              {}
              limit {rows}",
            self.table(),
            order_by.replace("day", "summed.day"),
        );
        let rows = parameters.fetch_all(connection, sql).await?;
        rows.iter().map(|row| self.group_of(row)).collect()
    }

    /// Sums all groups after a place as they stood at an instant, with their quantities, from the events themselves.
    async fn sums_at(
        &self,
        connection: &mut PgConnection,
        account: &Account,
        (period, at): (Option<(i64, Time)>, At),
        after: Option<Vec<String>>,
    ) -> Result<Vec<Group>, Problem> {
        let of_user =
            |(dimension, value): &&(Dimension, String)| *dimension == Dimension::User && !value.is_empty();
        let user = self.filters.iter().find(of_user).map(|(_, user)| user.as_str());
        let zones = match self.asks_for_days() {
            true => past_rows::zones(connection, account).await?,
            false => BTreeMap::new(),
        };
        let mut groups: BTreeMap<Vec<String>, Group> = BTreeMap::new();
        past_rows::each_usage(connection, account, past_rows::Wanted { period, user, at }, |used| {
            let zone = zones.get(&used.period_index);
            let day = zone.map(|zone| zone.local_day(used.occurred_at));
            if used.is_reversed || !self.picks(&used.usage, day) {
                return Ok(());
            }
            let key: Vec<(Dimension, String)> =
                self.group_by.iter().map(|named| (*named, named.value(&used.usage, day))).collect();
            let group = groups.entry(values_of(&key)).or_insert_with(|| Group::new(key));
            group.add(&used).map_err(Problem::internal)
        })
        .await?;
        let is_after = |values: &Vec<String>| after.as_ref().is_none_or(|after| values > after);
        let mut groups: Vec<Group> =
            groups.into_iter().filter(|(values, _)| is_after(values)).map(|(_, group)| group).collect();
        if self.sort.is_some() {
            // Stable: equal ones stay in the order of their values.
            groups.sort_by_key(|group| Reverse(group.credits));
        }
        Ok(groups)
    }

    fn asks_for_days(&self) -> bool {
        let is_filter = self.filters.iter().any(|(dimension, _)| *dimension == Dimension::Day);
        is_filter || self.from.is_some() || self.to.is_some() || self.group_by.contains(&Dimension::Day)
    }

    /// Returns whether a usage is selected, within the periods that were read.
    fn picks(&self, usage: &Usage, day: Option<Day>) -> bool {
        let fits = |(dimension, value): &(Dimension, String)| dimension.value(usage, day) == *value;
        self.filters.iter().all(fits)
            && self.from.is_none_or(|from| day >= Some(from))
            && self.to.is_none_or(|to| day < Some(to))
    }

    fn group_of(&self, row: &PgRow) -> Result<Group, sqlx::Error> {
        Ok(Group {
            key: self.key_of(row)?,
            credits: columns::amount(row, "credits")?,
            events: row.try_get("events")?,
            quantities: BTreeMap::new(),
        })
    }

    fn key_of(&self, row: &PgRow) -> Result<Vec<(Dimension, String)>, sqlx::Error> {
        let named = self.group_by.iter().enumerate();
        named.map(|(place, dimension)| Ok((*dimension, row.try_get(place)?))).collect()
    }

    /// Sums the quantities of these groups only.
    async fn add_quantities(
        &self,
        connection: &mut PgConnection,
        account: &Account,
        groups: &mut [Group],
    ) -> Result<(), sqlx::Error> {
        if groups.is_empty() {
            return Ok(());
        }
        let mut parameters = Parameters::default();
        let mut conditions = self.conditions(account, &mut parameters);
        for (place, dimension) in self.group_by.iter().enumerate() {
            let mut values: Vec<&String> = groups.iter().map(|group| &group.key[place].1).collect();
            values.sort_unstable();
            values.dedup();
            let values = parameters.add_list(&values, dimension.cast());
            let _ = write!(conditions, "\n and {} = any({values})", dimension.column());
        }
        let texts: String = self.group_by.iter().map(|dimension| dimension.as_text() + ", ").collect();
        let keys: String = self.columns().iter().map(|column| format!("summed.{column}, ")).collect();
        let sql = format!(
            "select {texts}name, sum(amount::numeric)::text as amount
               from {} as summed
              cross join lateral jsonb_each_text(quantities) as quantity (name, amount)
              where {conditions}
              group by {keys}name
             having sum(amount::numeric) <> 0",
            self.table(),
        );
        let rows = parameters.fetch_all(connection, sql).await?;
        let mut places: HashMap<Vec<String>, usize> = HashMap::with_capacity(groups.len());
        for (place, group) in groups.iter().enumerate() {
            places.insert(values_of(&group.key), place);
        }
        for row in &rows {
            if let Some(place) = places.get(&values_of(&self.key_of(row)?)) {
                let amount = columns::amount(row, "amount")?;
                groups[*place].quantities.insert(row.try_get("name")?, amount);
            }
        }
        Ok(())
    }
}

fn values_of(key: &[(Dimension, String)]) -> Vec<String> {
    key.iter().map(|(_, value)| value.clone()).collect()
}

/// Parameters of a statement, all bound as text.
#[derive(Default)]
struct Parameters(Vec<String>);

impl Parameters {
    /// Adds a value and returns its placeholder.
    fn add(&mut self, value: String, cast: &str) -> String {
        self.0.push(value);
        format!("${}{cast}", self.0.len())
    }

    /// Adds values and returns an array of them.
    fn add_list(&mut self, values: &[impl Serialize], cast: &str) -> String {
        let values = self.add(serde_json::json!(values).to_string(), "::text::jsonb");
        format!("array(select value{cast} from jsonb_array_elements_text({values}))")
    }

    async fn fetch_all(self, connection: &mut PgConnection, sql: String) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for value in self.0 {
            query = query.bind(value);
        }
        query.fetch_all(connection).await
    }
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
