//! Accounts: their data, plan and settings.

use axum::extract::State;
use engine::tables::account::name_key;
use engine::tables::own_limit;
use ledger_core::account::Core;
use ledger_core::account::alert::UserAlert;
use ledger_core::account::setting::Setting;
use ledger_core::account::top_up::AutoTopUp;
use ledger_core::event::{Clock, OverdraftPolicy, Unit};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, ReferrerId, Text};
use ledger_core::value::money::Usd;
use ledger_core::value::period::Period;
use ledger_core::value::time::Time;
use platform::pg::{self, Scope, columns};
use platform::position::{AtLeast, Position};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use web::auth::{Accounts, Action, Principal, Role};
use web::http::{ETag, Problem, Query};
use web::openapi::{Route, get};

use crate::access::Whole;
use crate::answer::{self, Now, Reflects, Tagged, Unbound};
use crate::app::App;
use crate::http::limits::LimitsView;
use crate::http::plan::PlanView;
use crate::list::{self, Beginning, Limit, Page};
use crate::reading::{self, HaltView};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    #[serde(default)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Only accounts whose id begins so, or whose name does in any case; every character stands for itself.
    q: Option<Beginning>,
    /// Only open accounts, or only closed ones.
    status: Option<AccountStatus>,
    at_least: Option<AtLeast>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneQuery {
    at_least: Option<AtLeast>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AccountStatus {
    Open,
    Closed,
}

#[derive(Serialize, JsonSchema)]
struct AccountView {
    name: Option<Text>,
    unit: Unit,
    usd_per_unit: Option<Usd>,
    clock: Clock,
    overdraft: OverdraftPolicy,
    low_balance_threshold: Option<Credits>,
    limits: Option<LimitsView>,
    user_alert: Option<UserAlert>,
    auto_top_up: Option<AutoTopUp>,
    referred_by: Option<ReferrerId>,
    opened_at: Time,
    status: AccountStatus,
    closed_at: Option<Time>,
    plan: PlanView,
    /// In force from `next_at`, the next boundary.
    next_plan: Option<PlanView>,
    next_at: Option<Time>,
    period: Period,
}

impl AccountView {
    fn of(core: &Core, own_limits: i64) -> Self {
        Self {
            name: core.name.clone(),
            unit: core.unit,
            usd_per_unit: core.usd_per_unit,
            clock: core.clock,
            overdraft: core.overdraft_policy,
            low_balance_threshold: core.low_balance_threshold,
            limits: core.limits.as_ref().map(|limits| LimitsView::of(limits, own_limits)),
            user_alert: core.user_alert.clone(),
            auto_top_up: core.top_ups.settings.clone(),
            referred_by: core.referred_by.clone(),
            opened_at: core.opened_at,
            status: if core.closed.is_some() { AccountStatus::Closed } else { AccountStatus::Open },
            closed_at: core.closed.as_ref().map(|closing| closing.at),
            plan: PlanView::from(&core.plan),
            next_plan: core.next_plan.as_ref().map(PlanView::from),
            next_at: core.next_plan_at(),
            period: core.period,
        }
    }
}

/// A row of the list: an account with the state that it reflects, because accounts have different positions.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Account")]
struct Item {
    #[serde(flatten)]
    reflects: Reflects,
    #[serde(flatten)]
    account: AccountView,
}

/// An account read by itself.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AccountDetails")]
struct One {
    #[serde(flatten)]
    account: AccountView,
    /// Set while the alert worker alone can't go on with it: its figures are right, its alerts stand still.
    alerts_halted: Option<HaltView>,
    /// Only for the operator, and only where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_customer: Option<String>,
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts", list)
            .named("listAccounts", "Lists the accounts that the key may see, by id.")
            .says("Filters combine with each other and with the accounts of the key."),
        get("/v1/accounts/{account}", one)
            .named("getAccount", "Returns an account with its plan and settings."),
    ]
}

/// `GET /v1/accounts/{account}`
async fn one(
    State(app): State<App>,
    Whole(account): Whole,
    caller: Principal,
    Query(query): Query<OneQuery>,
) -> Result<Tagged<Now<One>>, Problem> {
    let (alerting, is_operator) = (app.alerted.schema(), caller.role == Role::Operator);
    let (reflects, (view, etag)) = reading::of(&app, account, query.at_least, move |connection, account| {
        Box::pin(async move {
            let alerts_halted = reading::halt_of(connection, alerting, &account.core.account).await?;
            let payment_customer =
                if is_operator { payment_customer(connection, account).await? } else { None };
            let own_limits = own_limit::count(connection, &account.core.account).await?;
            let etag = ETag::of(&Setting::Account.content(&account.core, None))?;
            let account = AccountView::of(&account.core, own_limits);
            Ok((One { account, alerts_halted, payment_customer }, etag))
        })
    })
    .await?;
    answer::tagged(&reflects, view, etag)
}

/// Reads the provider's customer whose payment methods may be charged for an account.
async fn payment_customer(
    connection: &mut PgConnection,
    account: &reading::Account,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("select customer_id from control.payment_customer where account_id = $1")
        .bind(account.id())
        .fetch_optional(connection)
        .await
}

/// `GET /v1/accounts`
async fn list(
    State(app): State<App>,
    caller: Principal,
    query: Result<Query<ListQuery>, Problem>,
) -> Result<Unbound<Page<Item>>, Problem> {
    caller.require_role(Action::AccountRead)?;
    let Query(query) = query?;
    let after: Option<String> = list::decode(query.cursor.as_deref())?;
    reading::wait_for(&app, query.at_least).await?;
    let scope = scope_of(&caller.accounts)?;
    let named = match &caller.accounts {
        Accounts::All => None,
        Accounts::Named(names) => Some(names.to_vec()),
    };
    let (limit, at_least) = (query.limit, query.at_least);
    let wanted = Wanted { named, after: after.unwrap_or_default(), q: query.q, status: query.status, limit };
    let page = pg::read_of(&app.pool, app.waiter.schema(), &scope, move |connection| {
        Box::pin(async move {
            reading::check_reached(connection, at_least).await?;
            load_page(connection, &wanted).await
        })
    })
    .await?;
    answer::unbound(page)
}

/// Returns the accounts that a key may see.
fn scope_of(visible: &Accounts) -> Result<Scope, Problem> {
    Ok(match visible {
        Accounts::All => Scope::All,
        Accounts::Named(names) => {
            let ids = names.iter().map(|name| AccountId::new(name));
            Scope::Accounts(ids.collect::<Result<_, _>>().map_err(Problem::internal)?)
        }
    })
}

struct Wanted {
    /// The accounts of a key that names them.
    named: Option<Vec<String>>,
    after: String,
    q: Option<Beginning>,
    status: Option<AccountStatus>,
    limit: Limit,
}

/// Rows of the list that are looked at for a beginning, in their order. Where these do not fill a page, few accounts
/// begin so, and all of them are looked up.
const LOOKED_AT: usize = 1_000;

async fn load_page(connection: &mut PgConnection, wanted: &Wanted) -> Result<Page<Item>, Problem> {
    let mut rows = found(connection, wanted, &wanted.first_ids()).await?;
    let full = i64::try_from(rows.len()).is_ok_and(|rows| rows == wanted.limit.rows_to_ask());
    if wanted.q.is_some() && wanted.named.is_none() && !full {
        rows = found(connection, wanted, &wanted.ids_by_index()).await?;
    }
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        let core: Core = columns::json_of(row, "core")?;
        let next_offset: i64 = row.try_get("next_offset")?;
        let position = Position { partition: row.try_get("partition")?, offset: next_offset - 1 };
        let reflects = Reflects { account_id: core.account.clone(), position, recorded_at: core.ledger_time };
        let account = AccountView::of(&core, row.try_get("own_limits")?);
        items.push(Item { reflects, account });
    }
    Ok(Page::cut(items, wanted.limit, |item| item.reflects.account_id.clone()))
}

/// Reads the accounts of a statement of ids.
async fn found(connection: &mut PgConnection, wanted: &Wanted, ids: &str) -> Result<Vec<PgRow>, sqlx::Error> {
    // The list shows halted accounts in their state when they halted; a read of one reports the halt.
    let sql = format!(
        "with found as materialized ({ids})
         select a.partition, a.core::text, a.own_limits, c.next_offset
           from found
           join account as a using (account_id)
           join checkpoint as c on c.partition = a.partition
          order by a.account_id"
    );
    let name = wanted.q.as_ref().map(|q| Beginning(name_key(&q.0)));
    sqlx::query(AssertSqlSafe(sql))
        .bind(&wanted.after)
        .bind(&wanted.named)
        .bind(wanted.q.as_ref().map(|q| q.0.as_str()))
        .bind(wanted.q.as_ref().map(Beginning::end))
        .bind(name.as_ref().map(|name| name.0.as_str()))
        .bind(name.as_ref().map(Beginning::end))
        .fetch_all(connection)
        .await
}

/// How an account's id and its name begin. All parameters are in each statement, so that they have a type.
const BY_ID: &str = "account_id >= $3::text and account_id < $4::text";
const BY_NAME: &str = "name_key >= $5::text and name_key < $6::text";

/// Conditions are present only if they apply: one that may not apply would hide the index from the planner.
impl Wanted {
    /// Returns the statement that goes through the list by id, to the end of the page, or as far as rows are looked at.
    fn first_ids(&self) -> String {
        let (conditions, rows) = (self.conditions(), self.limit.rows_to_ask());
        let none = "and $3::text is null and $4::text is null and $5::text is null and $6::text is null";
        match (&self.q, &self.named) {
            (None, _) => {
                format!(
                    "select account_id from account where {conditions} {none} order by account_id limit {rows}"
                )
            }
            // Named accounts are read by their key, all of them.
            (Some(_), Some(_)) => format!(
                "select account_id from account
                  where {conditions} and ({BY_ID} or {BY_NAME}) order by account_id limit {rows}"
            ),
            (Some(_), None) => format!(
                "select account_id
                   from (select account_id, name_key from account where {conditions} order by account_id
                         limit {LOOKED_AT}) as looked_at
                  where {BY_ID} or {BY_NAME}
                  order by account_id
                  limit {rows}"
            ),
        }
    }

    /// Returns the statement that looks up who begins so: by id in its order, by name all of them.
    fn ids_by_index(&self) -> String {
        let (conditions, rows) = (self.conditions(), self.limit.rows_to_ask());
        format!(
            "with by_name as materialized (select account_id from account where {conditions} and {BY_NAME})
             select account_id
               from ((select account_id from account where {conditions} and {BY_ID} order by account_id limit {rows})
                     union
                     (select account_id from by_name order by account_id limit {rows})) as both_ways
              order by account_id
              limit {rows}"
        )
    }

    fn conditions(&self) -> String {
        let named = match &self.named {
            Some(_) => "account_id = any($2)",
            None => "$2::text[] is null",
        };
        let status = match self.status {
            Some(AccountStatus::Open) => "and closed_at is null",
            Some(AccountStatus::Closed) => "and closed_at is not null",
            None => "",
        };
        format!("account_id > $1::text and {named} {status}")
    }
}
