//! Table `repayment`: which lot repaid which stretch of overdraft.

use ledger_core::account::overdraft::Stretch;
use ledger_core::account::withdrawal::Repayment;
use ledger_core::fold::RETURNS_MAX;
use ledger_core::value::id::AccountId;
use platform::pg::columns::{amount, name};
use platform::pg::{Amount, Rows};
use sqlx::PgConnection;

const INSERT: &str = "
    insert into repayment (account_id, line_start, line_end, grant_id)
    select *
    from unnest($1::text[], $2::numeric[], $3::numeric[], $4::text[])";

// Repaid stretches are disjoint, so the last one that begins at or before the stretch is the first that can overlap it.
const MEETING: &str = "
    select line_start::text, line_end::text, grant_id
    from repayment
    where account_id = $1
      and line_start < $3
      and line_end   > $2
      and line_start >= coalesce((select before.line_start
                                  from repayment as before
                                  where before.account_id = $1
                                    and before.line_start <= $2
                                  order by before.line_start desc
                                  limit 1), $2)
    limit $4";

/// Collects which lot repaid which stretch.
pub(crate) fn collect(rows: &mut Rows, account: &AccountId, repayment: &Repayment) {
    rows.row()
        .text(account.as_str())
        .amount(repayment.stretch.start)
        .amount(repayment.stretch.end)
        .text(repayment.grant_id.as_str());
}

pub(crate) async fn insert(tx: &mut PgConnection, rows: &Rows) -> Result<(), sqlx::Error> {
    rows.send(tx, INSERT).await
}

/// Reads the repayments that overlap a stretch, up to one more than a reversal may return: the fold rejects it then.
pub(crate) async fn meeting(
    tx: &mut PgConnection,
    account: &AccountId,
    stretch: Stretch,
) -> Result<Vec<Repayment>, sqlx::Error> {
    let query = sqlx::query(MEETING).bind(account.as_str());
    let most = i64::try_from(RETURNS_MAX + 1).unwrap_or(i64::MAX);
    let query = query.bind(Amount(stretch.start)).bind(Amount(stretch.end)).bind(most);
    let rows = query.fetch_all(tx).await?;
    rows.iter()
        .map(|row| {
            let stretch = Stretch { start: amount(row, "line_start")?, end: amount(row, "line_end")? };
            Ok(Repayment { stretch, grant_id: name(row, "grant_id")? })
        })
        .collect()
}
