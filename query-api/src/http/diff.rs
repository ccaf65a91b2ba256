//! Diff: what changed in an account between two instants, and the events that did it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use ledger_core::account::Core;
use ledger_core::account::limit::Limits;
use ledger_core::event::{Limit as UserLimit, SetLimits};
use ledger_core::fold::Outcome;
use ledger_core::policy::balance::{Balance, Status};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AlertId, EventId, GrantId, UserId};
use ledger_core::value::time::Time;
use platform::pg::{self, columns};
use platform::position::{AtLeast, Position};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use web::http::{Problem, Query};
use web::openapi::{Route, get};

use crate::access::Whole;
use crate::answer::{self, Answer, Now};
use crate::app::App;
use crate::as_of::{self, At};
use crate::http::limits::LimitsView;
use crate::http::plan::PlanView;
use crate::list::{self, Limit, Page};
use crate::past_rows;
use crate::reading::{self, Account};

/// Most users whose own limits are shown as changed.
const USER_LIMITS_MAX: usize = 50;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiffQuery {
    /// The state before: all that happened up to this ledger time, included.
    from: Time,
    /// The state after. A time beyond the account's ledger time means the present.
    to: Time,
    /// Most events of the answer.
    #[serde(default)]
    limit: Limit,
    /// The `next_cursor` of the events before.
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "{T}Change")]
struct Change<T> {
    /// At `from`.
    before: T,
    /// At `to`.
    after: T,
}

/// The figures of the balance at both instants, those that are equal too.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "FigureChanges")]
struct Figures {
    settled: Change<Credits>,
    held: Change<Credits>,
    available: Change<Credits>,
    credit_balance: Change<Credits>,
    overdraft: Change<Credits>,
    allowance: Change<Credits>,
    rollover: Change<Credits>,
    period_maximum: Change<Credits>,
    used: Change<Credits>,
    percent_used: Change<Option<Credits>>,
    percent_remaining: Change<Option<Credits>>,
    status: Change<Status>,
    lifetime_added: Change<Credits>,
    lifetime_spent: Change<Credits>,
}

impl Figures {
    fn between(a: &Balance, b: &Balance) -> Self {
        fn change<T: Clone>(a: &Balance, b: &Balance, of: impl Fn(&Balance) -> &T) -> Change<T> {
            Change { before: of(a).clone(), after: of(b).clone() }
        }
        Self {
            settled: change(a, b, |it| &it.settled),
            held: change(a, b, |it| &it.held),
            available: change(a, b, |it| &it.available),
            credit_balance: change(a, b, |it| &it.credit_balance),
            overdraft: change(a, b, |it| &it.overdraft),
            allowance: change(a, b, |it| &it.allowance),
            rollover: change(a, b, |it| &it.rollover),
            period_maximum: change(a, b, |it| &it.period_maximum),
            used: change(a, b, |it| &it.used),
            percent_used: change(a, b, |it| &it.percent_used),
            percent_remaining: change(a, b, |it| &it.percent_remaining),
            status: change(a, b, |it| &it.status),
            lifetime_added: change(a, b, |it| &it.lifetime_added),
            lifetime_spent: change(a, b, |it| &it.lifetime_spent),
        }
    }
}

/// A lot of which another amount is left; 0 where there is no such lot yet, or no more.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "LotDifference")]
struct LotChange {
    grant_id: GrantId,
    before: Credits,
    after: Credits,
}

/// A record of the account, whatever became of it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventBetween")]
struct Between {
    event_id: EventId,
    #[serde(rename = "type")]
    event_type: String,
    #[schemars(with = "Outcome")]
    outcome: String,
    position: Position,
    /// Ledger time of the record.
    recorded_at: Time,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Difference")]
struct Diff {
    from: Time,
    to: Time,
    figures: Figures,
    lots: Vec<LotChange>,
    /// The settings that differ, by name.
    #[schemars(with = "SettingChanges")]
    settings: BTreeMap<&'static str, Change<Value>>,
    /// What happened after `from`, up to `to`, included; oldest first.
    events: Page<Between>,
}

/// Stands for the settings that differ where a schema is made: every object of the documents has a name.
struct SettingChanges;

impl JsonSchema for SettingChanges {
    fn schema_name() -> Cow<'static, str> {
        "SettingChanges".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let change = generator.subschema_for::<Change<Value>>();
        json_schema!({"type": "object", "description": "Settings that differ, by name.", "additionalProperties": change})
    }
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/diff", diff)
            .named("getDiff", "Returns what changed between two instants, and the events that did it.")
            .says("Figures and lots are those of the balance with `as_of` at both ends.")
            .refuses(&["history_too_long"]),
    ]
}

/// `GET /v1/accounts/{account}/diff`
async fn diff(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<DiffQuery>,
) -> Result<Answer<Now<Diff>>, Problem> {
    if query.to < query.from {
        return Err(Problem::bad_field("to", "not_after", "must not be before from"));
    }
    let after: Option<i64> = list::decode(query.cursor.as_deref())?;
    let (reflects, diff) = reading::of(&app, account, query.at_least, move |connection, account| {
        Box::pin(async move {
            let before = End::at(connection, account, query.from).await?;
            let later = End::at(connection, account, query.to).await?;
            let events = events(connection, account, &query, after).await?;
            Ok(Diff {
                from: query.from,
                to: query.to,
                figures: Figures::between(&before.balance, &later.balance),
                lots: lots_between(&before.balance, &later.balance),
                settings: settings_between(&before, &later),
                events,
            })
        })
    })
    .await?;
    answer::object(&reflects, diff)
}

/// An account at one end.
struct End {
    core: Core,
    balance: Balance,
    own_limits: BTreeMap<UserId, UserLimit>,
}

impl End {
    async fn at(connection: &mut PgConnection, account: &Account, instant: Time) -> Result<Self, Problem> {
        let asked = At::asked(account, Some(instant))?;
        let at = asked.unwrap_or(At::instant(account.core.ledger_time));
        let core = match asked {
            Some(at) => as_of::core_at(connection, account, at).await?,
            None => reading::whole(connection, account).await?,
        };
        let balance = Balance::of(&core, Credits::ZERO);
        let own_limits = past_rows::own_limits(connection, account, &core, at).await?;
        Ok(Self { core, balance, own_limits })
    }

    /// Returns the settings by name, without users' own limits.
    fn settings(&self) -> BTreeMap<&'static str, Value> {
        let core = &self.core;
        let own_limits = i64::try_from(self.own_limits.len()).unwrap_or(i64::MAX);
        let never_set = || Limits::of(&SetLimits::default(), None);
        let limits = core.limits.clone().unwrap_or_else(never_set);
        BTreeMap::from([
            ("name", json!(core.name)),
            ("overdraft", json!(core.overdraft_policy)),
            ("low_balance_threshold", json!(core.low_balance_threshold)),
            ("plan", json!(PlanView::from(&core.plan))),
            ("next_plan", json!(core.next_plan.as_ref().map(PlanView::from))),
            ("limits", json!(LimitsView::of(&limits, own_limits))),
            ("user_alert", json!(core.user_alert)),
            ("auto_top_up", json!(core.top_ups.settings)),
            ("closed_at", json!(core.closed.as_ref().map(|closing| closing.at))),
        ])
    }
}

fn lots_between(before: &Balance, after: &Balance) -> Vec<LotChange> {
    let mut lots: BTreeMap<&GrantId, (Credits, Credits)> = BTreeMap::new();
    for lot in &before.lots {
        lots.entry(&lot.grant_id).or_default().0 = lot.remaining;
    }
    for lot in &after.lots {
        lots.entry(&lot.grant_id).or_default().1 = lot.remaining;
    }
    let changed = lots.into_iter().filter(|(_, (before, after))| before != after);
    changed.map(|(id, (before, after))| LotChange { grant_id: id.clone(), before, after }).collect()
}

fn settings_between(before: &End, after: &End) -> BTreeMap<&'static str, Change<Value>> {
    let mut changed = BTreeMap::new();
    let mut later = after.settings();
    for (name, before) in before.settings() {
        let after = later.remove(name).unwrap_or_default();
        if before != after {
            changed.insert(name, Change { before, after });
        }
    }
    if let Some(change) = between(&before.own_limits, &after.own_limits) {
        changed.insert("user_limits", change);
    }
    let alerts: (&BTreeMap<AlertId, _>, &BTreeMap<AlertId, _>) =
        (&before.core.org_alerts, &after.core.org_alerts);
    if let Some(change) = between(alerts.0, alerts.1) {
        changed.insert("alerts", change);
    }
    changed
}

/// Returns the entries of a map that differ, the first of them: on each side those that it has.
fn between<K, V>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> Option<Change<Value>>
where
    K: Ord + ToString,
    V: PartialEq + Serialize,
{
    let names: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    let differing: Vec<&K> =
        names.into_iter().filter(|name| before.get(name) != after.get(name)).take(USER_LIMITS_MAX).collect();
    let side = |of: &BTreeMap<K, V>| -> Value {
        differing.iter().filter_map(|name| Some((name.to_string(), json!(of.get(name)?)))).collect()
    };
    (!differing.is_empty()).then(|| Change { before: side(before), after: side(after) })
}

async fn events(
    connection: &mut PgConnection,
    account: &Account,
    query: &DiffQuery,
    after: Option<i64>,
) -> Result<Page<Between>, Problem> {
    let bounds = past_rows::bounds(connection, account, query.from, At::instant(query.to)).await?;
    let rows = query.limit.rows_to_ask();
    let sql = format!(
        r#"(select "offset", event_id, type, outcome, ledger_time as recorded_at
              from event
             where account_id = $1
               and "offset" > $2
               and "offset" <= $3
               and ledger_time > $4
               and ledger_time <= $5
             order by "offset"
             limit {rows})
            union all
           (select "offset", event_id, type, outcome, recorded_at
              from refused
             where account_id = $1
               and "offset" > $2
               and "offset" <= $3
               and recorded_at > $4
               and recorded_at <= $5
             order by "offset"
             limit {rows})
            order by "offset"
            limit {rows}"#
    );
    let found = sqlx::query(AssertSqlSafe(sql))
        .bind(account.id())
        .bind(after.unwrap_or(bounds.after).max(bounds.after))
        .bind(bounds.last)
        .bind(pg::timestamp(query.from))
        .bind(pg::timestamp(query.to))
        .fetch_all(connection)
        .await?;
    let partition = account.position.partition;
    let items: Result<Vec<Between>, sqlx::Error> =
        found.iter().map(|row| between_of(row, partition)).collect();
    Ok(Page::cut(items?, query.limit, |event| event.position.offset))
}

fn between_of(row: &PgRow, partition: i32) -> Result<Between, sqlx::Error> {
    Ok(Between {
        event_id: columns::name(row, "event_id")?,
        event_type: row.try_get("type")?,
        outcome: row.try_get("outcome")?,
        position: Position { partition, offset: row.try_get("offset")? },
        recorded_at: columns::time(row, "recorded_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_maps_those_entries_are_shown_that_differ() {
        let before = BTreeMap::from([("a", 1), ("b", 2), ("c", 3)]);
        let after = BTreeMap::from([("b", 2), ("c", 4), ("d", 5)]);
        let change = between(&before, &after).expect("a change");
        assert_eq!(change.before, json!({"a": 1, "c": 3}));
        assert_eq!(change.after, json!({"c": 4, "d": 5}));
        assert_eq!(between(&before, &before), None);
    }
}
