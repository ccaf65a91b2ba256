//! `delivery.told_from`: the offsets where notification starts; firings by older records notify no one.

use std::collections::BTreeMap;
use std::sync::Arc;

use platform::pg::PgPool;
use platform::position::Position;

/// The offset in each partition from which firings notify people. A rebuild has none, and sends no notifications.
#[derive(Debug, Clone, Default)]
pub struct NotifyFrom {
    from: Arc<BTreeMap<i32, i64>>,
}

impl NotifyFrom {
    /// Returns whether a firing by this record notifies people.
    pub fn covers(&self, partition: i32, offset: i64) -> bool {
        self.from.get(&partition).is_some_and(|from| offset >= *from)
    }

    /// Starts at the journal's end as of the first evaluation of alerts over it: older firings are out of date.
    ///
    /// After the loss of a database the whole journal is folded again, without new notifications about the past.
    pub async fn now_on(pool: &PgPool, ends: &[Position]) -> Result<NotifyFrom, sqlx::Error> {
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
        .await?;
        let rows =
            sqlx::query!("select partition, next_offset from delivery.told_from").fetch_all(pool).await?;
        let from = rows.iter().map(|row| (row.partition, row.next_offset)).collect();
        Ok(NotifyFrom { from: Arc::new(from) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fired_before_the_first_evaluation_notifies_nobody() {
        let notify_from = NotifyFrom { from: Arc::new(BTreeMap::from([(0, 41)])) };
        assert!(!notify_from.covers(0, 40), "older than alerts");
        assert!(notify_from.covers(0, 41));
        assert!(!notify_from.covers(1, 41), "a partition that was not there");
        assert!(!NotifyFrom::default().covers(0, 41), "a rebuild");
    }
}
