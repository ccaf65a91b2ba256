//! `delivery.told_from`: the offsets where notification starts, and those up to which a lost database had notified.

use std::collections::BTreeMap;
use std::sync::Arc;

use platform::pg::{self, PgConnection, PgPool};
use platform::position::Position;

/// Whom a firing notifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notified {
    Nobody,
    /// It fired in a database that is gone and may have been sent from there: an operator decides.
    Perhaps,
    People,
}

/// The offset in each partition from which firings notify people. A rebuild has none, and sends no notifications.
#[derive(Debug, Clone, Default)]
pub struct NotifyFrom {
    from: Arc<BTreeMap<i32, From>>,
}

#[derive(Debug, Clone, Copy)]
struct From {
    next_offset: i64,
    /// Up to here the alerts were folded in a database that is gone; 0 where none is.
    restored_to: i64,
}

impl NotifyFrom {
    /// Returns whom a firing by this record notifies.
    pub fn notified(&self, partition: i32, offset: i64) -> Notified {
        match self.from.get(&partition) {
            Some(from) if offset >= from.next_offset.max(from.restored_to) => Notified::People,
            Some(from) if offset >= from.next_offset => Notified::Perhaps,
            _ => Notified::Nobody,
        }
    }

    /// Reads where notification starts.
    pub async fn read(pool: &PgPool) -> Result<NotifyFrom, sqlx::Error> {
        let rows = sqlx::query!("select partition, next_offset, restored_to from delivery.told_from");
        let rows = rows.fetch_all(pg::bounded(pool)).await?;
        let from = |(next_offset, restored_to)| From { next_offset, restored_to };
        let from = rows.iter().map(|row| (row.partition, from((row.next_offset, row.restored_to)))).collect();
        Ok(NotifyFrom { from: Arc::new(from) })
    }
}

/// Starts at the journal's end as of the first evaluation of alerts over it: older firings are out of date.
///
/// After the loss of a database the whole journal is folded again, without new notifications about the past.
pub async fn begin(pool: &PgPool, ends: &[Position]) -> Result<(), sqlx::Error> {
    let (partitions, offsets): (Vec<i32>, Vec<i64>) =
        ends.iter().map(|end| (end.partition, end.offset)).unzip();
    sqlx::query!(
        "insert into delivery.told_from (partition, next_offset, noted_at)
         select partition, next_offset, clock_timestamp()
         from unnest($1::int[], $2::bigint[]) as ends (partition, next_offset)
         on conflict (partition) do nothing",
        &partitions,
        &offsets,
    )
    .execute(pool)
    .await
    .map(drop)
}

/// Notes up to where a database that is gone had been folded; returns whether any of it was not noted before.
pub async fn note_restored(connection: &mut PgConnection, up_to: &[Position]) -> Result<bool, sqlx::Error> {
    let (partitions, offsets): (Vec<i32>, Vec<i64>) =
        up_to.iter().map(|at| (at.partition, at.offset)).unzip();
    let noted = sqlx::query!(
        "update delivery.told_from
         set restored_to = up_to.next_offset
         from unnest($1::int[], $2::bigint[]) as up_to (partition, next_offset)
         where told_from.partition   = up_to.partition
           and told_from.restored_to < up_to.next_offset",
        &partitions,
        &offsets,
    );
    Ok(noted.execute(connection).await?.rows_affected() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fired_before_the_first_evaluation_notifies_nobody() {
        let from = |next_offset, restored_to| From { next_offset, restored_to };
        let from = BTreeMap::from([(0, from(41, 0)), (2, from(41, 50)), (3, from(41, 30))]);
        let notify_from = NotifyFrom { from: Arc::new(from) };
        let check = |partition, offset, expected| {
            assert_eq!(notify_from.notified(partition, offset), expected, "{partition}:{offset}");
        };
        check(0, 40, Notified::Nobody);
        check(0, 41, Notified::People);
        // A partition that was not there.
        check(1, 41, Notified::Nobody);
        // A database from a backup.
        check(2, 40, Notified::Nobody);
        check(2, 49, Notified::Perhaps);
        check(2, 50, Notified::People);
        // An empty database.
        check(3, 40, Notified::Nobody);
        check(3, 41, Notified::People);
        assert_eq!(NotifyFrom::default().notified(0, 41), Notified::Nobody, "a rebuild");
    }
}
