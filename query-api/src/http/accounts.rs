//! Accounts: their data, plan and settings.

use axum::extract::State;
use axum::response::Response;
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
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use web::auth::{Accounts, Action, Principal, Role};
use web::http::{ETag, Problem, Query};

use crate::access::Whole;
use crate::answer::{self, Reflects};
use crate::app::App;
use crate::http::limits::LimitsView;
use crate::http::plan::PlanView;
use crate::list::{self, Limit, Page};
use crate::reading::{self, HaltView};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneQuery {
    at_least: Option<AtLeast>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum AccountStatus {
    Open,
    Closed,
}

#[derive(Serialize)]
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

impl From<&Core> for AccountView {
    fn from(core: &Core) -> Self {
        Self {
            name: core.name.clone(),
            unit: core.unit,
            usd_per_unit: core.usd_per_unit,
            clock: core.clock,
            overdraft: core.overdraft_policy,
            low_balance_threshold: core.low_balance_threshold,
            limits: core.limits.as_ref().map(LimitsView::from),
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
#[derive(Serialize)]
struct Item {
    #[serde(flatten)]
    reflects: Reflects,
    #[serde(flatten)]
    account: AccountView,
}

/// An account read by itself.
#[derive(Serialize)]
struct One {
    #[serde(flatten)]
    account: AccountView,
    /// Set while the alert worker alone can't go on with it: its figures are right, its alerts stand still.
    alerts_halted: Option<HaltView>,
    /// Only for the operator, and only where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_customer: Option<String>,
}

/// `GET /v1/accounts/{account}`
pub(crate) async fn one(
    State(app): State<App>,
    Whole(account): Whole,
    caller: Principal,
    Query(query): Query<OneQuery>,
) -> Result<Response, Problem> {
    let (alerting, is_operator) = (app.alerted.schema(), caller.role == Role::Operator);
    let (reflects, (view, etag)) = reading::of(&app, account, query.at_least, move |connection, account| {
        Box::pin(async move {
            let alerts_halted = reading::halt_of(connection, alerting, &account.core.account).await?;
            let payment_customer =
                if is_operator { payment_customer(connection, account).await? } else { None };
            let etag = ETag::of(&Setting::Account.content(&account.core))?;
            let account = AccountView::from(&account.core);
            Ok((One { account, alerts_halted, payment_customer }, etag))
        })
    })
    .await?;
    let mut response = answer::object(&reflects, view)?;
    etag.mark(&mut response)?;
    Ok(response)
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
pub(crate) async fn list(
    State(app): State<App>,
    caller: Principal,
    query: Result<Query<ListQuery>, Problem>,
) -> Result<Response, Problem> {
    caller.require_role(Action::AccountRead)?;
    let Query(query) = query?;
    let after: Option<String> = list::decode(query.cursor.as_deref())?;
    reading::wait_for(&app, query.at_least).await?;
    let scope = scope_of(&caller.accounts)?;
    let page = pg::read_of(&app.pool, app.waiter.schema(), &scope, move |connection| {
        Box::pin(async move {
            reading::check_reached(connection, query.at_least).await?;
            load_page(connection, &caller.accounts, after, query.limit).await
        })
    })
    .await?;
    answer::unbound(&page)
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

async fn load_page(
    connection: &mut PgConnection,
    visible: &Accounts,
    after: Option<String>,
    limit: Limit,
) -> Result<Page<Item>, Problem> {
    let named = match visible {
        Accounts::All => None,
        Accounts::Named(names) => Some(names.to_vec()),
    };
    // Named accounts are read by key; a condition that may not apply would hide that from the planner.
    let of_names = if named.is_some() { "and a.account_id = any($2)" } else { "and $2::text[] is null" };
    // The list shows halted accounts in their state when they halted; a read of one reports the halt.
    let sql = format!(
        "select a.partition, a.core::text, c.next_offset
           from account as a
           join checkpoint as c on c.partition = a.partition
          where a.account_id > $1
            {of_names}
          order by a.account_id
          limit {}",
        limit.rows_to_ask()
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(after.unwrap_or_default())
        .bind(named)
        .fetch_all(connection)
        .await?;
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        let core: Core = columns::json_of(row, "core")?;
        let next_offset: i64 = row.try_get("next_offset")?;
        let position = Position { partition: row.try_get("partition")?, offset: next_offset - 1 };
        let reflects = Reflects { account_id: core.account.clone(), position, recorded_at: core.ledger_time };
        items.push(Item { reflects, account: AccountView::from(&core) });
    }
    Ok(Page::cut(items, limit, |item| item.reflects.account_id.clone()))
}
