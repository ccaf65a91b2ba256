//! What the audit log has signed: the tables that keep it from ever signing a second history.

use std::collections::BTreeMap;

use engine::tables::{log_size, log_tile};
use platform::pg::{self, Model, column};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Postgres, Row, Transaction};
use transparency_log::hash::Hash;
use transparency_log::name::KeyName;
use transparency_log::tile::Tile;
use transparency_log::tree::Head;

use super::keys::LogSigner;

/// A signing that is stuck must not hold a head's row for long.
const LIMITS: &str = "
    set local statement_timeout = '10s';
    set local lock_timeout = '5s';
    set local idle_in_transaction_session_timeout = '30s'";

/// One transaction on the tables.
pub(super) struct History(Transaction<'static, Postgres>);

/// A log as the live generation has it, with the tiles at its edge and at that of the head that was signed.
pub(super) struct Grown {
    pub size: u64,
    pub next_offset: i64,
    pub tiles: BTreeMap<(u8, u64), Vec<u8>>,
}

impl History {
    /// Opens one that sees a log as it is at one instant.
    pub async fn open(pool: &pg::PgPool) -> Result<History, sqlx::Error> {
        let begin = format!("begin isolation level repeatable read; {LIMITS}");
        Ok(History(pool.begin_with(AssertSqlSafe(begin)).await?))
    }

    /// Opens one that waits for what others write at the same time, as processes do that start together.
    pub async fn open_beside_others(pool: &pg::PgPool) -> Result<History, sqlx::Error> {
        let begin = format!("begin; {LIMITS}");
        Ok(History(pool.begin_with(AssertSqlSafe(begin)).await?))
    }

    pub async fn keep(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }

    /// Returns what the origins begin with, and notes it if nobody has yet.
    pub async fn pin_origin(&mut self, base: &str) -> Result<String, sqlx::Error> {
        let pin = "insert into control.log_origin (base) values ($1) on conflict (single) do nothing";
        sqlx::query(pin).bind(base).execute(&mut *self.0).await?;
        sqlx::query_scalar("select base from control.log_origin").fetch_one(&mut *self.0).await
    }

    /// Notes the keys that sign from now on; those of these logs that are not among them sign no more.
    pub async fn note_keys(&mut self, signers: &[LogSigner]) -> Result<(), sqlx::Error> {
        let mut keys: Vec<(i32, &str, String)> = signers
            .iter()
            .flat_map(|signer| {
                let (partition, origin) = (signer.partition, signer.origin.as_str());
                signer.vkeys().into_iter().map(move |vkey| (partition, origin, vkey))
            })
            .collect();
        // Processes that start together lock the rows in one order.
        keys.sort_by(|(.., first), (.., second)| first.cmp(second));
        let note = "
            insert into control.log_key (vkey, partition, origin, since)
            select *, clock_timestamp()
            from unnest($1::text[], $2::int[], $3::text[])
            on conflict (vkey) do update
            set until = null
            where log_key.until is not null";
        let vkeys = column(&keys, |(_, _, vkey)| vkey.as_str());
        sqlx::query(note)
            .bind(&vkeys)
            .bind(column(&keys, |(partition, ..)| *partition))
            .bind(column(&keys, |(_, origin, _)| *origin))
            .execute(&mut *self.0)
            .await?;
        let end = "
            with ended as (
                select vkey from control.log_key
                where until is null
                  and vkey <> all($1)
                order by vkey
                for update
            )
            update control.log_key
            set until = clock_timestamp()
            from ended
            where log_key.vkey = ended.vkey";
        sqlx::query(end).bind(vkeys).execute(&mut *self.0).await.map(drop)
    }

    /// Returns all public keys that have ever signed, those of now among them.
    pub async fn vkeys(&mut self) -> Result<Vec<String>, sqlx::Error> {
        sqlx::query_scalar("select vkey from control.log_key").fetch_all(&mut *self.0).await
    }

    /// Returns the greatest head that a log has signed, and keeps others from signing until the transaction ends.
    pub async fn head(&mut self, origin: &KeyName) -> Result<Option<Head>, sqlx::Error> {
        // Nobody else may be the first either.
        let begin = "
            insert into control.log_head (origin, size, root) values ($1, 0, '')
            on conflict (origin) do nothing";
        sqlx::query(begin).bind(origin.as_str()).execute(&mut *self.0).await?;
        let read = "select size, root from control.log_head where origin = $1 for update";
        let row = sqlx::query(read).bind(origin.as_str()).fetch_one(&mut *self.0).await?;
        head(&row)
    }

    pub async fn set_head(&mut self, origin: &KeyName, head: Head) -> Result<(), sqlx::Error> {
        let set = "update control.log_head set size = $2, root = $3 where origin = $1";
        let set = sqlx::query(set).bind(origin.as_str()).bind(head.size.cast_signed());
        set.bind(head.root.0.as_slice()).execute(&mut *self.0).await.map(drop)
    }

    /// Returns a partition's log in the live generation; `None` where it has none.
    pub async fn grown(
        &mut self,
        partition: i32,
        signed: Option<Head>,
    ) -> Result<Option<Grown>, sqlx::Error> {
        let Some(live) = pg::live_generation(&mut *self.0, Model::ReadModel).await? else { return Ok(None) };
        let enter = format!("set local search_path = {live}");
        sqlx::query(AssertSqlSafe(enter)).execute(&mut *self.0).await?;
        let Some(log) = log_size::read(&mut self.0, &[partition]).await?.pop() else { return Ok(None) };
        let size = log.size.cast_unsigned();
        let mut edges: Vec<Tile> = Tile::edge(size).collect();
        if let Some(signed) = signed.filter(|signed| signed.size <= size) {
            edges.extend(Tile::edge(signed.size));
        }
        let tiles = log_tile::hashes(&mut self.0, partition, &edges).await?;
        Ok(Some(Grown { size, next_offset: log.next_offset, tiles }))
    }

    /// Returns the size of the last published checkpoint of each log.
    pub async fn published(&mut self) -> Result<BTreeMap<i32, u64>, sqlx::Error> {
        let read = "select partition, max(size) as size from control.log_checkpoint group by partition";
        let rows = sqlx::query(read).fetch_all(&mut *self.0).await?;
        let size =
            |row: &PgRow| Ok((row.try_get("partition")?, row.try_get::<i64, _>("size")?.cast_unsigned()));
        rows.iter().map(size).collect()
    }

    /// Keeps a checkpoint that its topic has: from now on it may be served.
    pub async fn publish(&mut self, partition: i32, size: u64, note: &str) -> Result<(), sqlx::Error> {
        let publish = "
            insert into control.log_checkpoint (partition, size, note, published_at)
            values ($1, $2, $3, clock_timestamp())
            on conflict (partition, size) do update
            set note = excluded.note";
        let publish = sqlx::query(publish).bind(partition).bind(size.cast_signed()).bind(note);
        publish.execute(&mut *self.0).await.map(drop)
    }

    /// Returns the sizes of these partitions' logs in the live generation.
    pub async fn sizes(&mut self, partitions: &[i32]) -> Result<Vec<(i32, u64)>, sqlx::Error> {
        let Some(live) = pg::live_generation(&mut *self.0, Model::ReadModel).await? else {
            return Ok(Vec::new());
        };
        let logs = log_size::read_in(&mut self.0, live, partitions).await?;
        Ok(logs.iter().map(|log| (log.partition, log.size.cast_unsigned())).collect())
    }
}

fn head(row: &PgRow) -> Result<Option<Head>, sqlx::Error> {
    let size: i64 = row.try_get("size")?;
    if size == 0 {
        return Ok(None);
    }
    let root: Vec<u8> = row.try_get("root")?;
    let root = Hash::from_slice(&root);
    let root = root.ok_or_else(|| sqlx::Error::Decode("a root has 32 bytes".into()))?;
    Ok(Some(Head { size: size.cast_unsigned(), root }))
}
