//! Own limits: the rows of users' own limits that a batch sets or removes, and how many of them are in force.
//!
//! A batch reads no limits: it writes those of the users that its events name, whatever the rows were.

use std::collections::BTreeMap;

use engine::consume::WorkerError;
use ledger_core::account::limit::{Limits, OwnLimit};
use ledger_core::event::Data;
use ledger_core::value::id::{AccountId, UserId};
use platform::pg::{Rows, column};
use sqlx::PgConnection;

/// The own limits that a batch edits, by account.
#[derive(Debug, Default)]
pub struct OwnLimits {
    accounts: BTreeMap<AccountId, OfAccount>,
}

#[derive(Debug, Default)]
struct OfAccount {
    /// The series in force after the batch.
    series: u64,
    /// Whether it began within the batch.
    is_new: bool,
    /// The last state of each; `None` is removed.
    users: BTreeMap<UserId, Option<OwnLimit>>,
}

impl OwnLimits {
    /// Collects what an applied event sets; `limits` are those after it.
    pub fn collect(&mut self, account: &AccountId, limits: &Limits, data: &Data) {
        let replaces_all = matches!(data, Data::LimitsSet(set) if set.custom.is_some());
        if !replaces_all && !matches!(data, Data::UserLimitSet(_)) {
            return;
        }
        let of_account = self.accounts.entry(account.clone()).or_default();
        of_account.series = limits.series;
        of_account.is_new |= replaces_all;
        // Of an earlier series too: which rows there are must not depend on how the log is cut into batches.
        of_account.users.extend(limits.own_set_by(data).map(|(user, own)| (user.clone(), own)));
    }

    /// Writes the rows; the accounts have theirs already.
    pub async fn write(&self, tx: &mut PgConnection) -> Result<(), WorkerError> {
        if self.accounts.is_empty() {
            return Ok(());
        }
        self.count(&mut *tx).await?;
        let (mut set, mut removed) = (Rows::default(), Rows::default());
        for (account, of_account) in &self.accounts {
            for (user, own) in &of_account.users {
                let Some(own) = own else {
                    removed.row().text(account.as_str()).text(user.as_str());
                    continue;
                };
                let row = set.row().text(account.as_str()).text(user.as_str());
                row.bigint(own.series.cast_signed()).maybe_amount(own.limit.amount());
            }
        }
        set.send(&mut *tx, UPSERT).await?;
        removed.send(tx, DELETE).await?;
        Ok(())
    }

    /// Counts those in force, before the rows change: adds those that are set, and subtracts those that stood before.
    async fn count(&self, tx: &mut PgConnection) -> Result<(), WorkerError> {
        let accounts: Vec<(&AccountId, &OfAccount)> = self.accounts.iter().collect();
        let edited: Vec<(&AccountId, &UserId, u64)> = accounts
            .iter()
            .flat_map(|(account, of)| of.users.keys().map(|user| (*account, user, of.series)))
            .collect();
        sqlx::query(COUNT)
            .bind(column(&accounts, |(account, _)| account.as_str()))
            .bind(column(&accounts, |(_, of)| i64::from(!of.is_new)))
            .bind(column(&accounts, |(_, of)| of.in_force()))
            .bind(column(&edited, |(account, ..)| account.as_str()))
            .bind(column(&edited, |(_, user, _)| user.as_str()))
            .bind(column(&edited, |(.., series)| series.cast_signed()))
            .execute(tx)
            .await?;
        Ok(())
    }
}

impl OfAccount {
    /// Returns how many of its users have an own limit that is in force.
    fn in_force(&self) -> i64 {
        let in_force = self.users.values().flatten().filter(|own| own.series == self.series);
        i64::try_from(in_force.count()).unwrap_or(i64::MAX)
    }
}

// Lateral with a limit: one look-up in the index for each user, whatever the planner thinks of the sizes.
const COUNT: &str = "
    with stood as (
        select edited.account_id, count(*) as n
        from unnest($4::text[], $5::text[], $6::bigint[]) as edited (account_id, user_id, series)
        cross join lateral (
            select from own_limit
            where own_limit.account_id = edited.account_id
              and own_limit.user_id    = edited.user_id
              and own_limit.series     = edited.series
            limit 1
        ) as own
        group by edited.account_id
    )
    update account
    set own_limits = account.own_limits * changed.keeps + changed.in_force - coalesce(stood.n, 0)
    from unnest($1::text[], $2::bigint[], $3::bigint[]) as changed (account_id, keeps, in_force)
    left join stood on stood.account_id = changed.account_id
    where account.account_id = changed.account_id";

const UPSERT: &str = "
    insert into own_limit (account_id, user_id, series, amount)
    select *
    from unnest($1::text[], $2::text[], $3::bigint[], $4::numeric[])
    on conflict (account_id, user_id) do update
    set series = excluded.series,
        amount = excluded.amount
    where (own_limit.series, own_limit.amount) is distinct from (excluded.series, excluded.amount)";

const DELETE: &str = "
    delete from own_limit
    using unnest($1::text[], $2::text[]) as removed (account_id, user_id)
    where own_limit.account_id = removed.account_id
      and own_limit.user_id    = removed.user_id";
