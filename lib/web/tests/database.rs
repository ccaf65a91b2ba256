//! Keys and readiness on a real Postgres.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::HeaderMap;
use local_stack::TestSpace;
use platform::clock;
use platform::pg::{self, PgPool};
use sqlx::AssertSqlSafe;
use tokio::time::sleep;
use web::auth::{Auth, AuthConfig, NewKey, Principal, create_key, list_keys, revoke_key};
use web::http::ops::Readiness;

local_stack::shared_test_stack!();

/// A migrated database; dropped with the space.
struct Database {
    pool: PgPool,
    space: TestSpace,
}

async fn database() -> Result<Database> {
    let space = TestSpace::new().await?;
    let pool = pg::connect(&space.database_url, "test", 4).await?;
    pg::migrate(&pool).await?;
    Ok(Database { pool, space })
}

async fn principal_of(auth: &Auth, secret: &str) -> Result<Principal, u16> {
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {secret}").parse().map_err(|_| 0_u16)?;
    headers.insert("authorization", bearer);
    auth.principal(&headers).await.map_err(|problem| problem.status.as_u16())
}

fn new_key(body: &str) -> Result<NewKey> {
    Ok(serde_json::from_str(body)?)
}

#[tokio::test]
async fn a_key_lets_in_until_it_is_revoked() -> Result<()> {
    let database = database().await?;
    let pool = database.pool.clone();
    let auth = Auth::new(pool.clone(), &AuthConfig::default())?;
    let wanted = new_key(r#"{"role":"member","accounts":["acme"],"user_id":"ana","name":"Ana"}"#)?;
    let mut connection = pool.acquire().await?;
    let made = create_key(&mut connection, &wanted, "cli", clock::now()).await?;

    let member = principal_of(&auth, &made.secret).await.map_err(|status| anyhow::anyhow!("{status}"))?;
    assert_eq!(&*member.key_id, made.key.key_id.as_str());
    assert_eq!(member.only_user(), Some("ana"));
    let mut wrong = made.secret.clone();
    wrong.pop();
    wrong.push(if made.secret.ends_with('A') { 'B' } else { 'A' });
    assert_eq!(principal_of(&auth, &wrong).await.err(), Some(401));

    let listed = list_keys(&pool, None, 10).await?;
    assert_eq!(listed.as_slice(), std::slice::from_ref(&made.key));
    let kept: String = sqlx::query_scalar("select encode(hash, 'escape') || name from control.api_key")
        .fetch_one(&pool)
        .await?;
    assert!(!made.secret.contains(&kept) && !kept.contains(&made.secret), "the secret was kept");

    let revoked = revoke_key(&mut connection, &made.key.key_id, clock::now()).await?.context("known")?;
    let again = revoke_key(&mut connection, &made.key.key_id, clock::now()).await?.context("known")?;
    assert_eq!(revoked.revoked_at, again.revoked_at);
    assert!(revoke_key(&mut connection, "unknown", clock::now()).await?.is_none());
    sleep(Duration::from_millis(1_050)).await;
    assert_eq!(principal_of(&auth, &made.secret).await.err(), Some(401));
    Ok(())
}

#[tokio::test]
async fn a_key_stops_at_its_expiry_without_being_read_again() -> Result<()> {
    let database = database().await?;
    let pool = database.pool.clone();
    let auth = Auth::new(pool.clone(), &AuthConfig::default())?;
    let mut wanted = new_key(r#"{"role":"auditor"}"#)?;
    let mut connection = pool.acquire().await?;
    // A machine that stalls may find it ended before it was read once: then a longer one.
    for lives in [400, 1_000, 3_000, 10_000] {
        wanted.expires_at = Some(clock::now().plus_micros(lives * 1_000));
        let made = create_key(&mut connection, &wanted, "cli", clock::now()).await?;
        if principal_of(&auth, &made.secret).await.is_ok() {
            sleep(Duration::from_millis(u64::try_from(lives)? + 50)).await;
            assert_eq!(principal_of(&auth, &made.secret).await.err(), Some(401));
            return Ok(());
        }
    }
    anyhow::bail!("no key was taken before its end")
}

/// Fault 41, as far as the settings of one database show it.
#[tokio::test]
async fn a_database_that_may_lose_what_it_acknowledged_is_not_ready() -> Result<()> {
    let database = database().await?;
    let failed = async |pool: &PgPool| -> Vec<String> {
        let findings = Readiness::new().with_database(pool).findings().await;
        findings.into_iter().filter_map(|(name, found)| Some(format!("{name}: {}", found.err()?))).collect()
    };
    assert_eq!(failed(&database.pool).await, Vec::<String>::new());
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&database.pool).await?;
    let unsafe_now = format!("alter database {name} set synchronous_commit = off");
    sqlx::query(AssertSqlSafe(unsafe_now)).execute(&database.pool).await?;
    let later = pg::connect(&database.space.database_url, "test", 2).await?;
    assert_eq!(failed(&later).await, ["database_settings: unsafe: synchronous_commit is off"]);
    Ok(())
}
