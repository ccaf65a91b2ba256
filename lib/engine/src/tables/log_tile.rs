//! Table `log_tile`: full tiles and entry bundles of each log, and its unfinished tiles above level 0. The fold writes it.

use std::collections::BTreeMap;

use platform::pg::column;
use sqlx::{PgConnection, Row};
use transparency_log::tile::{Kind, Tile, TileData};

use super::log_tail;

/// The level under which entry bundles stand.
const ENTRIES: i16 = -1;
const LEAVES: Kind = Kind::Hashes { level: 0 };

fn level(kind: Kind) -> i16 {
    match kind {
        Kind::Hashes { level } => level.into(),
        Kind::Entries => ENTRIES,
    }
}

fn index(tile: &Tile) -> i64 {
    tile.index.cast_signed()
}

/// A tile to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewTile<'a> {
    pub partition: i32,
    pub data: &'a TileData,
}

/// Writes tiles and bundles. One that was unfinished is replaced.
pub(crate) async fn upsert(tx: &mut PgConnection, tiles: &[NewTile<'_>]) -> Result<(), sqlx::Error> {
    let upsert = "
        insert into log_tile (partition, level, index, bytes)
        select *
        from unnest($1::int[], $2::smallint[], $3::bigint[], $4::bytea[])
        on conflict (partition, level, index) do update
        set bytes = excluded.bytes";
    let upsert = sqlx::query(upsert)
        .bind(column(tiles, |tile| tile.partition))
        .bind(column(tiles, |tile| level(tile.data.tile.kind)))
        .bind(column(tiles, |tile| index(&tile.data.tile)))
        .bind(column(tiles, |tile| tile.data.bytes.as_slice()));
    upsert.execute(tx).await.map(drop)
}

/// Reads tiles of hashes, by level and index, at least as wide as the log has them in the caller's generation. Those that
/// aren't there are left out.
pub async fn hashes(
    connection: &mut PgConnection,
    partition: i32,
    tiles: &[Tile],
) -> Result<BTreeMap<(u8, u64), Vec<u8>>, sqlx::Error> {
    let mut found = BTreeMap::new();
    for (tile, bytes) in stored(connection, partition, tiles).await? {
        if let Kind::Hashes { level } = tile.kind {
            found.insert((level, tile.index), bytes);
        }
    }
    // Not stored: the unfinished tile, which the tail has.
    let is_missing = |tile: &&Tile| tile.kind == LEAVES && !found.contains_key(&(0, tile.index));
    if let Some(last) = tiles.iter().filter(is_missing).max() {
        let tail = log_tail::read(connection, partition).await?;
        if tail.is_of(last.index) {
            found.insert((0, last.index), tail.hashes());
        }
    }
    Ok(found)
}

/// Reads one tile or bundle with the bytes that it has at this width; `None` where the log isn't as long in the caller's
/// generation.
pub async fn read(
    connection: &mut PgConnection,
    partition: i32,
    tile: Tile,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    if let Some((_, bytes)) = stored(connection, partition, &[tile]).await?.into_iter().next() {
        return Ok(tile.cut(&bytes).map(<[u8]>::to_vec));
    }
    let tail = log_tail::read(connection, partition).await?;
    let bytes = match tile.kind {
        LEAVES if tail.is_of(tile.index) => tail.hashes(),
        Kind::Entries if tail.is_of(tile.index) => tail.bundle(),
        Kind::Hashes { .. } | Kind::Entries => return Ok(None),
    };
    Ok(tile.cut(&bytes).map(<[u8]>::to_vec))
}

async fn stored(
    connection: &mut PgConnection,
    partition: i32,
    tiles: &[Tile],
) -> Result<Vec<(Tile, Vec<u8>)>, sqlx::Error> {
    let stored = "
        select at, bytes
        from unnest($2::smallint[], $3::bigint[]) with ordinality as wanted (level, index, at)
        join log_tile using (level, index)
        where partition = $1";
    let stored = sqlx::query(stored)
        .bind(partition)
        .bind(column(tiles, |tile| level(tile.kind)))
        .bind(column(tiles, index));
    let rows = stored.fetch_all(connection).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let at: i64 = row.try_get("at")?;
        if let Some(tile) = usize::try_from(at - 1).ok().and_then(|at| tiles.get(at)) {
            found.push((*tile, row.try_get("bytes")?));
        }
    }
    Ok(found)
}

/// Returns the offset of a full bundle's first entry; `None` where the bundle isn't full.
pub async fn first_offset(
    connection: &mut PgConnection,
    partition: i32,
    bundle: u64,
) -> Result<Option<u64>, sqlx::Error> {
    // Behind two bytes of length. Bytes that aren't compressed are read in part.
    let first = "
        select substring(bytes from 3 for 8)
        from log_tile
        where partition = $1
          and level     = $2
          and index     = $3";
    let first = sqlx::query_scalar(first).bind(partition).bind(ENTRIES).bind(bundle.cast_signed());
    let first: Option<Vec<u8>> = first.fetch_optional(connection).await?;
    Ok(first.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes))
}
