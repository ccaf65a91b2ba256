//! Rate cards: the published versions.
//!
//! A version never changes, so its body is read once and cached; the number of the last version is read every time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ledger_core::policy::rate_card::RateCard;
use ledger_core::value::id::RateCardId;
use platform::pg::{self, PgConnection, PgPool};
use sha2::{Digest, Sha256};

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
    rows.fetch_all(pool).await?.into_iter().map(card_of).collect()
}

fn card_of(row: CardRow) -> Result<((RateCardId, i32), Arc<Card>), sqlx::Error> {
    let CardRow { card, version, body } = row;
    let unreadable = |what: String| sqlx::Error::Decode(format!("rate card {card} {version}: {what}").into());
    let prices = serde_json::from_str(&body).map_err(|error| unreadable(error.to_string()))?;
    let name = RateCardId::new(&card).map_err(|error| unreadable(error.to_string()))?;
    let number = u32::try_from(version).map_err(|error| unreadable(error.to_string()))?;
    Ok(((name.clone(), version), Arc::new(Card { name, version: number, prices })))
}

/// Publishes prices as the card's next version and returns it; prices equal to the last version add no version.
pub async fn publish(
    pool: &PgPool,
    name: &RateCardId,
    prices: &RateCard,
    by: &str,
) -> Result<i32, sqlx::Error> {
    let body = serde_json::to_string(prices).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let content = Sha256::digest(body.as_bytes()).to_vec();
    let (name, by) = (name.to_string(), by.to_owned());
    pg::write(pool, |connection| Box::pin(publish_in(connection, name, body, content, by))).await
}

async fn publish_in(
    connection: &mut PgConnection,
    name: String,
    body: String,
    content: Vec<u8>,
    by: String,
) -> Result<i32, sqlx::Error> {
    // One publication at a time per card, so that version numbers have no gap.
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('ledger.rate_card/' || $1, 0))", name)
        .execute(&mut *connection)
        .await?;
    let last = sqlx::query!(
        "select version, content
         from control.rate_card
         where card = $1
         order by version desc
         limit 1",
        name
    );
    let next = match last.fetch_optional(&mut *connection).await? {
        Some(last) if last.content == content => return Ok(last.version),
        Some(last) => last.version + 1,
        None => 1,
    };
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
    Ok(next)
}
