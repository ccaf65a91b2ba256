//! Reading: one snapshot of an account, with the position that it reflects.

use std::time::Duration;

use engine::load;
use engine::progress::Waiter;
use engine::tables::halted::Kind;
use engine::tables::{checkpoint, halted};
use futures::future::BoxFuture;
use ledger_core::account::Core;
use ledger_core::value::id::AccountId;
use ledger_core::value::time::Time;
use platform::pg::columns::undecodable;
use platform::pg::{self, Model, Schema, Scope};
use platform::position::{AtLeast, Position};
use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{FromRow, PgConnection};
use web::http::Problem;

use crate::answer::Reflects;
use crate::app::App;

/// An account as one snapshot shows it.
#[derive(Debug)]
pub(crate) struct Account {
    /// Its state, without its lots.
    pub core: Core,
    /// The last record of its partition that has been folded.
    pub position: Position,
}

impl Account {
    pub fn id(&self) -> &str {
        self.core.account.as_str()
    }

    /// Returns what a read of it reflects.
    pub fn reflects(&self) -> Reflects {
        Reflects {
            account_id: self.core.account.clone(),
            position: self.position,
            recorded_at: self.core.ledger_time,
        }
    }
}

/// Runs `work` on one snapshot of an account that is at least as new as requested.
///
/// Problems: 404 where it was never opened, 503 where it is halted or the projection is behind.
pub(crate) async fn of<T, F>(
    app: &App,
    account: AccountId,
    at_least: Option<AtLeast>,
    work: F,
) -> Result<(Reflects, T), Problem>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection, &'c Account) -> BoxFuture<'c, Result<T, Problem>>
        + Send
        + 'static,
{
    of_within(app, account, at_least, pg::READ_MAX, work).await
}

/// The same for work that takes up to this long.
pub(crate) async fn of_within<T, F>(
    app: &App,
    account: AccountId,
    at_least: Option<AtLeast>,
    longest: Duration,
    work: F,
) -> Result<(Reflects, T), Problem>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection, &'c Account) -> BoxFuture<'c, Result<T, Problem>>
        + Send
        + 'static,
{
    wait_for(app, at_least).await?;
    snapshot(app, &app.waiter, account, at_least, longest, work).await
}

/// The same of the alert worker's own fold. Where it lags behind the balances it is waited for, 2 s at most: who has
/// read a balance, or set an alert, finds what follows from it.
pub(crate) async fn of_alerts<T, F>(
    app: &App,
    account: AccountId,
    at_least: Option<AtLeast>,
    work: F,
) -> Result<(Reflects, T), Problem>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection, &'c Account) -> BoxFuture<'c, Result<T, Problem>>
        + Send
        + 'static,
{
    wait_in(app, &app.alerted, at_least).await?;
    catch_up(app, &account).await?;
    snapshot(app, &app.alerted, account, at_least, pg::READ_MAX, work).await
}

/// The same without waiting for the balances.
pub(crate) async fn of_alerts_now<T, F>(
    app: &App,
    account: AccountId,
    work: F,
) -> Result<(Reflects, T), Problem>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection, &'c Account) -> BoxFuture<'c, Result<T, Problem>>
        + Send
        + 'static,
{
    snapshot(app, &app.alerted, account, None, pg::READ_MAX, work).await
}

/// Waits for the alert worker to come to where the balances are. What it has is shown where it takes too long: 503 only
/// where it does not know the account yet.
async fn catch_up(app: &App, account: &AccountId) -> Result<(), Problem> {
    let (reflects, ()) = of(app, account.clone(), None, |_, _| Box::pin(async { Ok(()) })).await?;
    if app.alerted.wait_for(reflects.position, app.alerted.deadline()).await
        || is_evaluated(app, account).await?
    {
        return Ok(());
    }
    Err(behind(reflects.position))
}

async fn is_evaluated(app: &App, account: &AccountId) -> Result<bool, Problem> {
    let (scope, account) = (Scope::Account(account.clone()), account.to_string());
    pg::read_of(&app.pool, app.alerted.schema(), &scope, move |connection| {
        Box::pin(async move {
            let known = sqlx::query_scalar("select exists (select from account where account_id = $1)");
            Ok(known.bind(account).fetch_one(connection).await?)
        })
    })
    .await
}

async fn snapshot<T, F>(
    app: &App,
    model: &Waiter,
    account: AccountId,
    at_least: Option<AtLeast>,
    longest: Duration,
    work: F,
) -> Result<(Reflects, T), Problem>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection, &'c Account) -> BoxFuture<'c, Result<T, Problem>>
        + Send
        + 'static,
{
    let (schema, scope) = (model.schema(), Scope::Account(account.clone()));
    pg::read_of_within(&app.pool, schema, &scope, longest, move |connection| {
        Box::pin(async move {
            check_reached(connection, at_least).await?;
            let account = load_account(connection, schema, &account).await?;
            let found = work(connection, &account).await?;
            Ok((account.reflects(), found))
        })
    })
    .await
}

/// Waits until the projection has come to a position, for as long as it is set to at most.
pub(crate) async fn wait_for(app: &App, at_least: Option<AtLeast>) -> Result<(), Problem> {
    wait_in(app, &app.waiter, at_least).await
}

async fn wait_in(app: &App, model: &Waiter, at_least: Option<AtLeast>) -> Result<(), Problem> {
    let Some(AtLeast(position)) = at_least else { return Ok(()) };
    if position.partition >= app.identity.partitions {
        let detail = format!("the journal has {} partitions", app.identity.partitions);
        return Err(Problem::bad_field("at_least", "no_such_partition", detail));
    }
    if model.wait_for(position, model.deadline()).await { Ok(()) } else { Err(behind(position)) }
}

/// The snapshot itself must have the position: another generation may have become live since the wait.
pub(crate) async fn check_reached(
    connection: &mut PgConnection,
    at_least: Option<AtLeast>,
) -> Result<(), Problem> {
    let Some(AtLeast(position)) = at_least else { return Ok(()) };
    let next_offset = checkpoint::next_offset(connection, position.partition).await?;
    if next_offset.is_some_and(|next| next > position.offset) { Ok(()) } else { Err(behind(position)) }
}

fn behind(position: Position) -> Problem {
    Problem::behind(format!("position {position} is not projected yet"))
}

/// A row of `account` with how far its partition is folded, and whether it is halted.
#[derive(FromRow)]
struct AccountRow {
    partition: i32,
    /// JSON.
    core: String,
    next_offset: i64,
    halted: bool,
}

async fn load_account(
    connection: &mut PgConnection,
    schema: Schema,
    account: &AccountId,
) -> Result<Account, Problem> {
    // One row has the account and how far its partition has been folded.
    let row: Option<AccountRow> = sqlx::query_as(
        "select a.partition, a.core::text, c.next_offset,
                exists (select from halted as h where h.account_id = a.account_id) as halted
           from account as a
           join checkpoint as c on c.partition = a.partition
          where a.account_id = $1",
    )
    .bind(account.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row.filter(|row| !row.halted) else {
        return Err(unread(connection, schema, account).await?);
    };
    let position = Position { partition: row.partition, offset: row.next_offset - 1 };
    let core = serde_json::from_str(&row.core).map_err(undecodable)?;
    Ok(Account { core, position })
}

/// Returns why an account can't be read. It may be halted before it is open: by its opening.
async fn unread(
    connection: &mut PgConnection,
    schema: Schema,
    account: &AccountId,
) -> Result<Problem, sqlx::Error> {
    let Some(halt) = halt_of(connection, schema, account).await? else {
        return Ok(Problem::account_not_found(account.as_str()));
    };
    Ok(Problem::account_halted(account.as_str())
        .with("halted_by", halt.halted_by)
        .with("reason", halt.reason)
        .with("position", halt.position)
        .with("since", halt.since))
}

/// A worker that folds the journal, as an answer names it.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[allow(dead_code, reason = "stands for its schema")]
enum Worker {
    Projector,
    AlertWorker,
}

/// Why one of the two folds can't go on with an account.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Halt")]
pub(crate) struct HaltView {
    /// The worker that can't.
    #[schemars(with = "Worker")]
    halted_by: &'static str,
    /// A sentence: an event of a type that only a newer program knows, or how folding the event fails.
    reason: String,
    /// The event that halts it.
    position: Position,
    /// When that event was recorded; nothing since then is in the account's figures.
    since: Time,
}

pub(crate) async fn halt_of(
    connection: &mut PgConnection,
    schema: Schema,
    account: &AccountId,
) -> Result<Option<HaltView>, sqlx::Error> {
    let halt = halted::of(connection, schema, account).await?;
    Ok(halt.map(|halt| HaltView {
        halted_by: match schema.model {
            Model::ReadModel => "projector",
            Model::Alerting => "alert-worker",
        },
        reason: match halt.kind {
            Kind::UnknownType => format!("only a newer program knows the type {}", halt.reason),
            Kind::Failed => halt.reason,
        },
        position: halt.position,
        since: halt.since,
    }))
}

/// Loads an account with its open lots.
pub(crate) async fn whole(connection: &mut PgConnection, account: &Account) -> Result<Core, sqlx::Error> {
    let lots = load::lots_of(connection, &account.core.account).await?;
    Ok(account.core.clone().with_lots(lots))
}
