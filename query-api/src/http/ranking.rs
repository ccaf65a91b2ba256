//! Ranking: the users of a period of many users by their usage, the largest first.
//!
//! The index has a bound of each user's usage that changes rarely (table `user_total`). Nobody has used more than their bound.
//! So users are read in the order of their bounds until nobody behind can come before the last row of the page.

use engine::tables::user_total::Magnitude;
use ledger_core::value::credits::Credits;
use platform::pg::{Amount, columns};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::reading::Account;

/// Most rows of one statement.
const PART_ROWS_MAX: usize = 10_000;
/// How much more each statement reads than the one before.
const GROWTH: usize = 4;

/// A user's place: by usage, the largest first, then by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    /// Negated, so that places are in the order of the list.
    minus_used: Credits,
    pub user_id: String,
}

impl Place {
    pub fn new(used: Credits, user_id: String) -> Self {
        Self { minus_used: used.negated(), user_id }
    }

    pub fn used(&self) -> Credits {
        self.minus_used.negated()
    }

    fn magnitude(&self) -> Magnitude {
        Magnitude::of(self.used())
    }
}

/// Walks the index; each step returns users that come after a place of the list, not yet in their order.
#[derive(Debug)]
pub(super) struct Walk {
    period_index: i64,
    after: Option<Place>,
    /// How far the index has been read: a rank and a user.
    reached: Option<(i64, String)>,
    state: State,
    part_rows: usize,
    pub looked_at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Begins with users whose bound is before the place, and whose usage is after it.
    Bucket,
    Rest,
    Done,
}

impl Walk {
    pub fn new(period_index: i64, after: Option<Place>, page_rows: usize) -> Self {
        let state = if after.is_some() { State::Bucket } else { State::Rest };
        let reached = after.as_ref().map(|after| (after.magnitude().rank(), after.user_id.clone()));
        Self { period_index, after, reached, state, part_rows: page_rows, looked_at: 0 }
    }

    /// Returns whether all users who come before this place have been returned.
    pub fn is_past(&self, place: &Place) -> bool {
        if self.state == State::Done {
            return true;
        }
        let Some((rank, user_id)) = &self.reached else { return false };
        let magnitude = place.magnitude();
        magnitude.rank() < *rank
            || magnitude.is_exact() && magnitude.rank() == *rank && place.user_id <= *user_id
    }

    /// Returns whether all users with that much usage have been returned.
    pub fn is_below(&self, used: Credits) -> bool {
        self.reached.as_ref().is_some_and(|(rank, _)| Magnitude::of(used).rank() < *rank)
    }

    /// Returns the next users; none at the end of the list.
    pub async fn next(
        &mut self,
        connection: &mut PgConnection,
        account: &Account,
    ) -> Result<Option<Vec<Place>>, sqlx::Error> {
        let mut places = match self.state {
            State::Bucket => {
                self.state = State::Rest;
                self.bucket(connection, account).await?
            }
            State::Rest => self.part(connection, account).await?,
            State::Done => return Ok(None),
        };
        // Amounts that share a magnitude may be on either side.
        places.retain(|place| self.after.as_ref().is_none_or(|after| place > after));
        Ok(Some(places))
    }

    /// Returns the users of the bucket in which the page before ended: their bound is its end.
    async fn bucket(
        &mut self,
        connection: &mut PgConnection,
        account: &Account,
    ) -> Result<Vec<Place>, sqlx::Error> {
        let Some(after) = &self.after else { return Ok(Vec::new()) };
        let magnitude = after.magnitude();
        let mut ranks = vec![magnitude.bucket_end().rank()];
        if !magnitude.is_exact() {
            ranks.push(magnitude.rank());
        }
        let rows = sqlx::query(
            "select user_id, used::text as exact
               from user_total
              where account_id = $1
                and period_index = $2
                and rank = any($3)
                and (rank, user_id) <= ($4, $5)
                and used <= $6",
        )
        .bind(account.id())
        .bind(self.period_index)
        .bind(ranks)
        .bind(magnitude.rank())
        .bind(&after.user_id)
        .bind(Amount(after.used()))
        .fetch_all(connection)
        .await?;
        self.looked_at += rows.len();
        rows.iter().map(place_of).collect()
    }

    /// Returns the next users in the order of their bounds.
    async fn part(
        &mut self,
        connection: &mut PgConnection,
        account: &Account,
    ) -> Result<Vec<Place>, sqlx::Error> {
        // A condition is present only if it applies: a range with an open end would hide how the index is read.
        let behind = if self.reached.is_some() {
            "and (rank, user_id) > ($3::bigint, $4::text)"
        } else {
            "and $3::bigint is null and $4::text is null"
        };
        let sql = format!(
            "select user_id, used::text as exact, rank
               from user_total
              where account_id = $1
                and period_index = $2
                {behind}
              order by account_id, period_index, rank, user_id
              limit {}",
            self.part_rows
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(account.id())
            .bind(self.period_index)
            .bind(self.reached.as_ref().map(|(rank, _)| *rank))
            .bind(self.reached.as_ref().map(|(_, user_id)| user_id.as_str()))
            .fetch_all(connection)
            .await?;
        if let Some(last) = rows.last() {
            self.reached = Some((last.try_get("rank")?, last.try_get("user_id")?));
        }
        if rows.len() < self.part_rows {
            self.state = State::Done;
        }
        self.looked_at += rows.len();
        self.part_rows = (self.part_rows * GROWTH).min(PART_ROWS_MAX);
        rows.iter().map(place_of).collect()
    }
}

fn place_of(row: &PgRow) -> Result<Place, sqlx::Error> {
    Ok(Place::new(columns::amount(row, "exact")?, row.try_get("user_id")?))
}

/// Adds users, and keeps the first rows of the list among all of them, each once.
pub(super) fn keep_first(first: &mut Vec<Place>, more: Vec<Place>, rows: usize) {
    first.extend(more);
    first.sort_unstable();
    first.dedup();
    first.truncate(rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(used: i64, user: &str) -> Place {
        Place::new(Credits::whole(used), user.to_owned())
    }

    #[test]
    fn the_largest_come_first_and_equal_ones_by_id() {
        let mut first = vec![place(5, "b")];
        keep_first(&mut first, vec![place(0, "a"), place(5, "a"), place(5, "b"), place(7, "z")], 3);
        assert_eq!(first, [place(7, "z"), place(5, "a"), place(5, "b")]);
    }

    #[test]
    fn a_page_is_complete_once_nobody_behind_can_come_before_its_last() {
        let rank = |used| Magnitude::of(Credits::whole(used)).rank();
        let mut walk = Walk::new(0, None, 50);
        assert!(!walk.is_past(&place(9, "a")) && !walk.is_below(Credits::whole(9)));
        walk.reached = Some((rank(5), "m".to_owned()));
        for (used, user, past) in
            [(6, "z", true), (5, "a", true), (5, "m", true), (5, "n", false), (4, "a", false)]
        {
            assert_eq!(walk.is_past(&place(used, user)), past, "{used} {user}");
        }
        assert!(walk.is_below(Credits::whole(6)) && !walk.is_below(Credits::whole(5)));
        // So large amounts share their rank with others.
        walk.reached = Some((rank(123_456_789), "m".to_owned()));
        assert!(!walk.is_past(&place(123_456_789, "a")) && walk.is_past(&place(123_456_790, "a")));
        walk.state = State::Done;
        assert!(walk.is_past(&place(0, "z")));
    }
}
