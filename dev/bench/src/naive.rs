//! Naive: holds as they are often built, one transaction a request, on the same database and behind the same HTTP.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use platform::pg::PgPool;
use serde::Deserialize;

/// The balance of every account.
const BALANCE: i64 = 1_000_000_000;

const TABLES: &str = "
    create table public.naive_account (
        account_id text primary key,
        balance    numeric(38,9) not null,
        held       numeric(38,9) not null
    );
    create table public.naive_hold (
        account_id     text not null,
        reservation_id text not null,
        amount         numeric(38,9) not null,
        state          text not null,
        expires_at     timestamptz not null,
        primary key (account_id, reservation_id)
    )";

/// Makes the tables and the accounts.
pub async fn prepare(pool: &PgPool, accounts: usize) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(TABLES).execute(pool).await?;
    let names: Vec<String> = (0..accounts).map(|number| crate::load::account(number).to_string()).collect();
    sqlx::query("insert into public.naive_account select unnest($1::text[]), $2, 0")
        .bind(names)
        .bind(BALANCE)
        .execute(pool)
        .await
        .map(drop)
}

pub fn router(pool: PgPool) -> Router {
    Router::new()
        .route("/v1/accounts/{account}/reservations", post(reserve))
        .route("/v1/accounts/{account}/reservations/{reservation}/release", post(release))
        .with_state(pool)
}

#[derive(Deserialize)]
struct Reserve {
    reservation_id: String,
    amount: String,
    #[serde(rename = "user_id")]
    _user_id: String,
}

async fn reserve(
    State(pool): State<PgPool>,
    Path(account): Path<String>,
    Json(body): Json<Reserve>,
) -> Result<StatusCode, StatusCode> {
    let work = async {
        let mut tx = pool.begin().await?;
        let covered: bool = sqlx::query_scalar(
            "select balance - held >= $2::text::numeric
             from public.naive_account
             where account_id = $1
             for update",
        )
        .bind(&account)
        .bind(&body.amount)
        .fetch_one(&mut *tx)
        .await?;
        if covered {
            sqlx::query(
                "update public.naive_account set held = held + $2::text::numeric where account_id = $1",
            )
            .bind(&account)
            .bind(&body.amount)
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "insert into public.naive_hold
                 values ($1, $2, $3::text::numeric, 'held', clock_timestamp() + interval '15 minutes')",
            )
            .bind(&account)
            .bind(&body.reservation_id)
            .bind(&body.amount)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(covered)
    };
    answered(work.await)
}

async fn release(
    State(pool): State<PgPool>,
    Path((account, reservation)): Path<(String, String)>,
) -> Result<StatusCode, StatusCode> {
    let work = async {
        let mut tx = pool.begin().await?;
        // Locks the account first, as reserving does.
        sqlx::query("select from public.naive_account where account_id = $1 for update")
            .bind(&account)
            .execute(&mut *tx)
            .await?;
        let released = sqlx::query(
            "with released as (
                 update public.naive_hold
                 set state = 'released'
                 where account_id = $1 and reservation_id = $2 and state = 'held'
                 returning amount
             )
             update public.naive_account
             set held = held - released.amount
             from released
             where account_id = $1",
        )
        .bind(&account)
        .bind(&reservation)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(released.rows_affected() == 1)
    };
    answered(work.await)
}

fn answered(done: Result<bool, sqlx::Error>) -> Result<StatusCode, StatusCode> {
    match done {
        Ok(true) => Ok(StatusCode::CREATED),
        Ok(false) => Err(StatusCode::PAYMENT_REQUIRED),
        Err(_) => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}
