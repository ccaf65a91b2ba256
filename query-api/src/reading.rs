//! Reading: one snapshot of an account, with the position that it reflects.

use engine::load;
use engine::progress::Waiter;
use engine::tables::checkpoint;
use futures::future::BoxFuture;
use ledger_core::account::Core;
use ledger_core::value::id::AccountId;
use platform::pg;
use platform::pg::columns::undecodable;
use platform::position::{AtLeast, Position};
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
    wait_for(app, at_least).await?;
    snapshot(app, &app.waiter, account, at_least, work).await
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
    snapshot(app, &app.alerted, account, at_least, work).await
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
    snapshot(app, &app.alerted, account, None, work).await
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
    let account = account.to_string();
    pg::read(&app.pool, app.alerted.schema(), move |connection| {
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
    work: F,
) -> Result<(Reflects, T), Problem>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection, &'c Account) -> BoxFuture<'c, Result<T, Problem>>
        + Send
        + 'static,
{
    pg::read(&app.pool, model.schema(), move |connection| {
        Box::pin(async move {
            check_reached(connection, at_least).await?;
            let account = load_account(connection, &account).await?;
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

/// A row of `account` with how far its partition is folded, and whether records of it are in `parked`.
#[derive(FromRow)]
struct AccountRow {
    partition: i32,
    /// JSON.
    core: String,
    next_offset: i64,
    halted: bool,
}

async fn load_account(connection: &mut PgConnection, account: &AccountId) -> Result<Account, Problem> {
    // One row has the account and how far its partition has been folded.
    let row: Option<AccountRow> = sqlx::query_as(
        "select a.partition, a.core::text, c.next_offset,
                exists (select from parked as p where p.account_id = a.account_id) as halted
           from account as a
           join checkpoint as c on c.partition = a.partition
          where a.account_id = $1",
    )
    .bind(account.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Err(absent(connection, account).await?) };
    if row.halted {
        return Err(Problem::account_halted(account.as_str()));
    }
    let position = Position { partition: row.partition, offset: row.next_offset - 1 };
    let core = serde_json::from_str(&row.core).map_err(undecodable)?;
    Ok(Account { core, position })
}

/// An account may be halted before it is open: by an opening that only a newer program can read.
async fn absent(connection: &mut PgConnection, account: &AccountId) -> Result<Problem, sqlx::Error> {
    let halted: bool = sqlx::query_scalar("select exists (select from parked where account_id = $1)")
        .bind(account.as_str())
        .fetch_one(connection)
        .await?;
    let account = account.as_str();
    Ok(if halted { Problem::account_halted(account) } else { Problem::account_not_found(account) })
}

/// Loads an account with its open lots.
pub(crate) async fn whole(connection: &mut PgConnection, account: &Account) -> Result<Core, sqlx::Error> {
    let lots = load::lots_of(connection, &account.core.account).await?;
    Ok(account.core.clone().with_lots(lots))
}
