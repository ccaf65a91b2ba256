//! Rate cards: the published versions.
//!
//! A version never changes, so its body is read once and cached; the number of the last version is read every time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ledger_core::policy::rate_card::RateCard;
use ledger_core::value::id::RateCardId;
use ledger_core::value::time::Time;
use platform::pg::{self, PgConnection, PgPool};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};
use web::http::{ETag, IfMatch, Problem};

/// Versions cached; beyond this the cache is cleared.
const CARDS_MAX: usize = 1_000;

#[derive(Debug, PartialEq)]
pub struct Card {
    pub name: RateCardId,
    /// Counts from 1.
    pub version: u32,
    pub prices: RateCard,
}

#[derive(Default)]
pub struct Cards {
    read: Mutex<HashMap<(RateCardId, i32), Arc<Card>>>,
}

impl Cards {
    /// Returns each requested version, from the cache or from the database.
    pub async fn get(
        &self,
        pool: &PgPool,
        mut wanted: Vec<(RateCardId, i32)>,
    ) -> Result<HashMap<(RateCardId, i32), Arc<Card>>, sqlx::Error> {
        wanted.sort();
        wanted.dedup();
        let mut found = self.known(&wanted);
        wanted.retain(|version| !found.contains_key(version));
        if !wanted.is_empty() {
            let read = read_versions(pool, &wanted).await?;
            self.keep(&read);
            found.extend(read);
        }
        Ok(found)
    }

    fn known(&self, wanted: &[(RateCardId, i32)]) -> HashMap<(RateCardId, i32), Arc<Card>> {
        let kept = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let known = wanted.iter().filter_map(|version| kept.get_key_value(version));
        known.map(|(version, card)| (version.clone(), Arc::clone(card))).collect()
    }

    fn keep(&self, read: &HashMap<(RateCardId, i32), Arc<Card>>) {
        let mut kept = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() + read.len() > CARDS_MAX {
            kept.clear();
        }
        kept.extend(read.iter().map(|(version, card)| (version.clone(), Arc::clone(card))));
    }
}

struct CardRow {
    card: String,
    version: i32,
    /// JSON.
    body: String,
}

async fn read_versions(
    pool: &PgPool,
    wanted: &[(RateCardId, i32)],
) -> Result<HashMap<(RateCardId, i32), Arc<Card>>, sqlx::Error> {
    let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    let versions: Vec<i32> = wanted.iter().map(|(_, version)| *version).collect();
    let rows = sqlx::query_as!(
        CardRow,
        r#"select published.card, published.version, published.body::text as "body!"
           from unnest($1::text[], $2::int[]) as wanted (card, version)
           join control.rate_card as published using (card, version)"#,
        names as _,
        &versions
    );
    rows.fetch_all(pg::bounded(pool)).await?.into_iter().map(card_of).collect()
}

fn card_of(row: CardRow) -> Result<((RateCardId, i32), Arc<Card>), sqlx::Error> {
    let CardRow { card, version, body } = row;
    let unreadable = |what: String| sqlx::Error::Decode(format!("rate card {card} {version}: {what}").into());
    let prices = serde_json::from_str(&body).map_err(|error| unreadable(error.to_string()))?;
    let name = RateCardId::new(&card).map_err(|error| unreadable(error.to_string()))?;
    let number = u32::try_from(version).map_err(|error| unreadable(error.to_string()))?;
    Ok(((name.clone(), version), Arc::new(Card { name, version: number, prices })))
}

/// Returns whether a version of the card is published.
pub async fn is_published(pool: &PgPool, card: &RateCardId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from control.rate_card where card = $1) as "is_published!""#,
        card.as_str()
    )
    .fetch_one(pg::bounded(pool))
    .await
}

/// Returns 422 if a plan names a card without a published version: none of its usage could be priced.
pub async fn require_published(pool: &PgPool, card: Option<&RateCardId>) -> Result<(), Problem> {
    let Some(card) = card else { return Ok(()) };
    if is_published(pool, card).await? {
        return Ok(());
    }
    let detail = format!("no version of rate card {card} is published");
    Err(Problem::bad_field("plan.rate_card", "unknown", detail))
}

/// What publishing prices came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// The version that has these prices: a new one, or the newest.
    Published(i32),
    /// An older version has these prices: a late repeat must not become the newest.
    Older { has: i32, newest: i32 },
}

/// A card with its last version.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "RateCardVersion")]
pub struct LastVersion {
    pub card: String,
    version: i32,
    published_at: Time,
}

/// Returns at most `limit` cards in the order of their names, after `after`.
pub async fn list(pool: &PgPool, after: Option<&str>, limit: i64) -> Result<Vec<LastVersion>, sqlx::Error> {
    let rows = sqlx::query!(
        "select distinct on (card) card, version, published_at
         from control.rate_card
         where card > $1
         order by card, version desc
         limit $2",
        after.unwrap_or_default(),
        limit
    );
    let rows = rows.fetch_all(pg::bounded(pool)).await?.into_iter();
    let item = |card, version, at| LastVersion { card, version, published_at: pg::time_of(at) };
    Ok(rows.map(|row| item(row.card, row.version, row.published_at)).collect())
}

/// One version of a card, as operators read it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "RateCard")]
pub struct CardView {
    card: String,
    version: i32,
    published_at: Time,
    /// Id of the key that published it.
    actor: String,
    #[serde(flatten)]
    prices: RateCard,
}

/// Returns a version of a card, the last one if none is named, with its number.
pub async fn one(
    pool: &PgPool,
    name: &RateCardId,
    version: Option<i32>,
) -> Result<Option<(i32, CardView)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select card, version, body::text as "body!", published_at, published_by
           from control.rate_card
           where card = $1 and version = coalesce($2, version)
           order by version desc
           limit 1"#,
        name.as_str(),
        version
    );
    let Some(row) = row.fetch_optional(pg::bounded(pool)).await? else { return Ok(None) };
    let prices = serde_json::from_str(&row.body).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let published_at = pg::time_of(row.published_at);
    let view =
        CardView { card: row.card, version: row.version, published_at, actor: row.published_by, prices };
    Ok(Some((row.version, view)))
}

/// Publishes prices as the card's next version; prices equal to the newest version add no version. Prices of an older
/// version are published again only by a caller who knows the newest one.
pub async fn publish(
    pool: &PgPool,
    name: &RateCardId,
    prices: &RateCard,
    by: &str,
    if_match: Option<IfMatch>,
) -> Result<Publication, Problem> {
    let body = serde_json::to_string(prices).map_err(Problem::internal)?;
    let content = Sha256::digest(body.as_bytes()).to_vec();
    let (name, by) = (name.to_string(), by.to_owned());
    pg::write(pool, move |connection| Box::pin(publish_in(connection, name, body, content, by, if_match)))
        .await
}

async fn publish_in(
    connection: &mut PgConnection,
    name: String,
    body: String,
    content: Vec<u8>,
    by: String,
    if_match: Option<IfMatch>,
) -> Result<Publication, Problem> {
    // One publication at a time per card, so that version numbers have no gap.
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('ledger.rate_card/' || $1, 0))", name)
        .execute(&mut *connection)
        .await?;
    let last = sqlx::query!(
        r#"select max(version) as newest, max(version) filter (where content = $2) as has
           from control.rate_card
           where card = $1"#,
        name,
        content
    );
    let last = last.fetch_one(&mut *connection).await?;
    let newest = last.newest.unwrap_or_default();
    match (last.has, if_match) {
        (Some(has), _) if has == newest => return Ok(Publication::Published(newest)),
        (_, Some(if_match)) => if_match.require(&ETag::of_version(newest))?,
        (Some(has), None) => return Ok(Publication::Older { has, newest }),
        (None, None) => {}
    }
    let next = newest + 1;
    sqlx::query!(
        "insert into control.rate_card (card, version, body, content, published_at, published_by)
         values ($1, $2, $3::text::json, $4, clock_timestamp(), $5)",
        name,
        next,
        body,
        content,
        by
    )
    .execute(connection)
    .await?;
    Ok(Publication::Published(next))
}
