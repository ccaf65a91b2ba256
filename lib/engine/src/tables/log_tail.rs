//! Table `log_tail`: the entries of each log's unfinished bundle, as they came. The fold writes it.

use platform::pg::column;
use sqlx::PgConnection;
use transparency_log::bundle;
use transparency_log::entry::Entry;
use transparency_log::hash::Hash;
use transparency_log::tile::HEIGHT;

/// The entries behind the last full bundle of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    /// Index of the first entry.
    pub leaf: u64,
    /// One after another, [`Entry::BYTES`] each.
    pub entries: Vec<u8>,
}

impl Tail {
    /// Whether these are the entries of the tile of level 0, or the bundle, of this index.
    pub fn is_of(&self, index: u64) -> bool {
        self.leaf == index << HEIGHT
    }

    /// Returns the unfinished entry bundle.
    pub fn bundle(&self) -> Vec<u8> {
        let mut bundle = Vec::new();
        self.entries.chunks_exact(Entry::BYTES).for_each(|entry| bundle::push(&mut bundle, entry));
        bundle
    }

    /// Returns the unfinished tile of level 0.
    pub fn hashes(&self) -> Vec<u8> {
        self.entries.chunks_exact(Entry::BYTES).flat_map(|entry| Hash::of_leaf(entry).0).collect()
    }
}

/// Reads what is behind the last full bundle of a partition's log in the caller's generation.
pub async fn read(connection: &mut PgConnection, partition: i32) -> Result<Tail, sqlx::Error> {
    let read = "select leaf, entries from log_tail where partition = $1 order by leaf";
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(read).bind(partition).fetch_all(connection).await?;
    let leaf = rows.first().map_or(0, |(leaf, _)| leaf.cast_unsigned());
    let entries: Vec<Vec<u8>> = rows.into_iter().map(|(_, entries)| entries).collect();
    Ok(Tail { leaf, entries: entries.concat() })
}

/// What a transaction adds to a tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewEntries<'a> {
    pub partition: i32,
    /// Index of the first.
    pub leaf: i64,
    pub entries: &'a [u8],
}

pub(crate) async fn insert(tx: &mut PgConnection, new: &[NewEntries<'_>]) -> Result<(), sqlx::Error> {
    let insert = "
        insert into log_tail (partition, leaf, entries)
        select * from unnest($1::int[], $2::bigint[], $3::bytea[])";
    let insert = sqlx::query(insert)
        .bind(column(new, |new| new.partition))
        .bind(column(new, |new| new.leaf))
        .bind(column(new, |new| new.entries));
    insert.execute(tx).await.map(drop)
}

/// Deletes entries that stand in a full bundle by now.
pub(crate) async fn clear(tx: &mut PgConnection, partitions: &[i32]) -> Result<(), sqlx::Error> {
    let clear = sqlx::query("delete from log_tail where partition = any($1)").bind(partitions);
    clear.execute(tx).await.map(drop)
}
