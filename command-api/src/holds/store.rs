//! Store: the statements of a batch of requests on holds.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ledger_core::event::key::ContentHash;
use ledger_core::policy::hold::{Hold, Settlement, State};
use ledger_core::value::id::{AccountId, ReservationId};
use platform::pg::columns::{parsed, undecodable};
use platform::pg::{PgConnection, Rows, credits_of, time_of};
use platform::position::Position;
use sqlx::FromRow;

use super::rows::Writes;

const MAKE: &str = "
    insert into control.gate (account_id)
    select account_id
    from account
    where account_id = any($1)
    order by account_id
    on conflict do nothing";

/// Locks the gates of accounts, and returns the accounts without one.
pub async fn lock<'a>(tx: &mut PgConnection, accounts: &[&'a str]) -> Result<Vec<&'a str>, sqlx::Error> {
    // Every process locks in the order of accounts, which avoids deadlocks.
    let locked = sqlx::query_scalar!(
        "select account_id
         from control.gate
         where account_id = any($1)
         order by account_id
         for update",
        accounts as _
    );
    let locked = locked.fetch_all(tx).await?;
    if locked.len() == accounts.len() {
        return Ok(Vec::new());
    }
    let is_locked = |account: &&str| locked.iter().any(|locked| locked == account);
    Ok(accounts.iter().copied().filter(|account| !is_locked(account)).collect())
}

/// Creates the gates of existing accounts, in a transaction of its own, so that no caller waits with locks held.
pub async fn make_gates(tx: &mut PgConnection, accounts: &[&str]) -> Result<(), sqlx::Error> {
    sqlx::query(MAKE).bind(accounts).execute(tx).await.map(drop)
}

#[derive(Debug)]
pub struct Named {
    /// None if the id is unknown.
    pub hold: Option<Hold>,
    /// Whether usage has ended a hold of this name.
    pub ended: bool,
    /// The journal position of the usage that settles it.
    pub position: Option<Position>,
    /// The record of that usage, until its append is acknowledged.
    pub record: Option<Vec<u8>>,
}

const NAMED: &str = include_str!("named.sql");

/// A row of [`NAMED`]; all columns of the hold are null if there is none.
#[derive(FromRow)]
struct NamedRow {
    account_id: String,
    reservation_id: String,
    has_ended: bool,
    content: Option<Vec<u8>>,
    user_id: Option<String>,
    feature: Option<String>,
    amount: Option<String>,
    effective_amount: Option<String>,
    state: Option<String>,
    expires_at: Option<DateTime<Utc>>,
    decided_at: Option<DateTime<Utc>>,
    event_id: Option<String>,
    source: Option<String>,
    settlement: Option<Vec<u8>>,
    partition: Option<i32>,
    offset: Option<i64>,
    event: Option<Vec<u8>>,
}

pub type NamedHolds = BTreeMap<AccountId, Vec<(ReservationId, Named)>>;

pub async fn named(tx: &mut PgConnection, wanted: &[(&str, &str)]) -> Result<NamedHolds, sqlx::Error> {
    let mut named = NamedHolds::new();
    if wanted.is_empty() {
        return Ok(named);
    }
    let (accounts, reservations): (Vec<&str>, Vec<&str>) = wanted.iter().copied().unzip();
    let rows: Vec<NamedRow> = sqlx::query_as(NAMED).bind(accounts).bind(reservations).fetch_all(tx).await?;
    for row in rows {
        named.entry(parsed(&row.account_id)?).or_default().push(row.read()?);
    }
    Ok(named)
}

impl NamedRow {
    fn read(self) -> Result<(ReservationId, Named), sqlx::Error> {
        let reservation: ReservationId = parsed(&self.reservation_id)?;
        let hold = match &self.content {
            Some(content) => Some(self.hold(reservation.clone(), content)?),
            None => None,
        };
        let position =
            self.partition.zip(self.offset).map(|(partition, offset)| Position { partition, offset });
        Ok((reservation, Named { hold, ended: self.has_ended, position, record: self.event }))
    }

    fn hold(&self, reservation_id: ReservationId, content: &[u8]) -> Result<Hold, sqlx::Error> {
        let state = state_of(present(self.state.as_deref())?)?;
        Ok(Hold {
            reservation_id,
            content: hash(content)?,
            user_id: self.user_id.as_deref().map(parsed).transpose()?,
            feature: self.feature.as_deref().map(parsed).transpose()?,
            amount: credits_of(present(self.amount.as_deref())?)?,
            counts: credits_of(present(self.effective_amount.as_deref())?)?,
            state: if self.has_ended { State::Settled } else { state },
            expires_at: time_of(present(self.expires_at)?),
            decided_at: time_of(present(self.decided_at)?),
            settlement: self.settlement.as_deref().map(|content| self.settlement(content)).transpose()?,
        })
    }

    fn settlement(&self, content: &[u8]) -> Result<Settlement, sqlx::Error> {
        Ok(Settlement {
            event_id: parsed(present(self.event_id.as_deref())?)?,
            source: parsed(present(self.source.as_deref())?)?,
            content: hash(content)?,
        })
    }
}

/// Returns a column that is never null if the hold exists.
fn present<T>(column: Option<T>) -> Result<T, sqlx::Error> {
    column.ok_or_else(|| undecodable("a hold with a column that is null"))
}

fn state_of(text: &str) -> Result<State, sqlx::Error> {
    let states = [State::Held, State::Settling, State::Settled, State::Released, State::Expired];
    let state = states.into_iter().find(|state| state.as_str() == text);
    state.ok_or_else(|| undecodable(format!("no state of a hold: {text}")))
}

fn hash(bytes: &[u8]) -> Result<ContentHash, sqlx::Error> {
    <[u8; 32]>::try_from(bytes).map(ContentHash).map_err(undecodable)
}

/// A statement that changes holds and moves the sums of their gates and users by the growth of each hold.
macro_rules! with_sums {
    ($change:literal, $growth:literal) => {
        concat!(
            "with changed as (",
            $change,
            "
        returning hold.account_id, hold.user_id, coalesce(hold.feature, '') as feature, ",
            $growth,
            " as growth
    ),
    of_users as (
        update control.user_hold
        set held = user_hold.held + more.held
        from (select account_id, user_id, feature, sum(growth) as held
              from changed
              where user_id is not null
              group by account_id, user_id, feature) as more
        where user_hold.account_id = more.account_id
          and user_hold.user_id    = more.user_id
          and user_hold.feature    = more.feature
    )
    update control.gate
    set held = gate.held + more.held
    from (select account_id, sum(growth) as held from changed group by account_id) as more
    where gate.account_id = more.account_id"
        )
    };
}

const NOTE_DUE: &str = with_sums!(
    "
        update control.hold
        set state = 'expired'
        from unnest($1::text[], $2::timestamptz[]) as due (account_id, now)
        where hold.account_id = due.account_id and hold.state = 'held' and hold.expires_at <= due.now",
    "-hold.counts"
);

const NOTE_ENDED: &str = with_sums!(
    "
        update control.hold
        set state = 'settled'
        where hold.account_id = any($1) and hold.state = 'settling'
          and exists (select from ended_hold
                      where ended_hold.account_id     = hold.account_id
                        and ended_hold.reservation_id = hold.reservation_id)",
    "-hold.counts"
);

// The usage that was to settle the hold had no effect: it is projected and ended no hold. The checkpoint is past parked
// records that are still to be folded.
const UNDO: &str = with_sums!(
    r#"
        update control.hold
        set state = 'held', counts = hold.amount, event_id = null, source = null, settlement = null,
            "partition" = null, "offset" = null
        from (
            select hold.account_id, hold.reservation_id, hold.counts
            from control.hold
            join checkpoint on checkpoint.partition = hold."partition"
            where hold.account_id = any($1) and hold.state = 'settling' and checkpoint.next_offset > hold."offset"
              and not exists (select from ended_hold
                              where ended_hold.account_id     = hold.account_id
                                and ended_hold.reservation_id = hold.reservation_id)
              and not exists (select from parked where parked.account_id = hold.account_id)
        ) as before
        where hold.account_id = before.account_id and hold.reservation_id = before.reservation_id"#,
    "hold.amount - before.counts"
);

macro_rules! put_holds {
    () => {
        "insert into control.hold (account_id, reservation_id, content, user_id, feature, amount, counts, state,
                                   expires_at, decided_at, created_at, event_id, source, settlement)
         select account_id, reservation_id, content, user_id, feature, amount, counts, state, expires_at, decided_at,
                clock_timestamp(), event_id, source, settlement
         from unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::text[], $6::numeric[], $7::numeric[],
                     $8::text[], $9::timestamptz[], $10::timestamptz[], $11::text[], $12::text[], $13::bytea[])
              as new (account_id, reservation_id, content, user_id, feature, amount, counts, state, expires_at,
                      decided_at, event_id, source, settlement)
         on conflict (account_id, reservation_id) do update
         set amount     = excluded.amount,
             counts     = excluded.counts,
             state      = excluded.state,
             expires_at = excluded.expires_at,
             decided_at = excluded.decided_at,
             event_id   = excluded.event_id,
             source     = excluded.source,
             settlement = excluded.settlement"
    };
}

macro_rules! move_gates {
    ($accounts:literal, $held:literal) => {
        concat!(
            "update control.gate
             set held = gate.held + more.held
             from unnest(",
            $accounts,
            "::text[], ",
            $held,
            "::numeric[]) as more (account_id, held)
             where gate.account_id = more.account_id"
        )
    };
}

macro_rules! move_users {
    ($accounts:literal, $users:literal, $features:literal, $held:literal) => {
        concat!(
            "insert into control.user_hold (account_id, user_id, feature, held)
             select *
             from unnest(",
            $accounts,
            "::text[], ",
            $users,
            "::text[], ",
            $features,
            "::text[], ",
            $held,
            "::numeric[])
             on conflict (account_id, user_id, feature) do update
             set held = user_hold.held + excluded.held"
        )
    };
}

/// Nearly every batch writes these three, so they share one round trip.
const PUT_ALL: &str = concat!(
    "with holds as (",
    put_holds!(),
    "), gates as (",
    move_gates!("$14", "$15"),
    ") ",
    move_users!("$16", "$17", "$18", "$19")
);
const PUT_HOLDS: &str = put_holds!();
const MOVE_GATES: &str = move_gates!("$1", "$2");
const MOVE_USERS: &str = move_users!("$1", "$2", "$3", "$4");

const KEEP_DECISIONS: &str = r#"
    insert into control.decision (account_id, decided_at, kind, reservation_id, user_id, feature, amount, code, settled,
                                  available, floor, user_limit, used, held, period_index, resets_at, "partition",
                                  "offset", actor, logged_at)
    select kept.*, clock_timestamp()
    from unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::numeric[],
                $8::text[], $9::numeric[], $10::numeric[], $11::numeric[], $12::numeric[], $13::numeric[],
                $14::numeric[], $15::bigint[], $16::timestamptz[], $17::int[], $18::bigint[], $19::text[]) as kept"#;

// The process that settles appends at once; the relay appends if that process fails.
const FILL_OUTBOX: &str = "
    insert into control.outbox (account_id, event_id, source, event, reservation_id, created_at, due_at)
    select new.*, clock_timestamp(), clock_timestamp() + interval '3 seconds'
    from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[]) as new";

// The event is compared too: other usage may have settled the hold since.
const LAND: &str = r#"
    with landed as (
        select *
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::bigint[])
             as landed (account_id, reservation_id, event_id, source, partition, "offset")
    ),
    placed as (
        update control.hold
        set "partition" = landed.partition, "offset" = landed."offset"
        from landed
        where hold.account_id = landed.account_id and hold.reservation_id = landed.reservation_id
          and hold.event_id   = landed.event_id   and hold.source         = landed.source
          and hold."offset" is null
    )
    delete from control.outbox
    using landed
    where outbox.account_id = landed.account_id and outbox.reservation_id = landed.reservation_id
      and outbox.event_id   = landed.event_id   and outbox.source         = landed.source"#;

/// Writes all changes of a batch: first expired holds, then the changes by requests.
pub async fn write(tx: &mut PgConnection, writes: &Writes) -> Result<(), sqlx::Error> {
    writes.due.send(&mut *tx, NOTE_DUE).await?;
    writes.ended.send(&mut *tx, NOTE_ENDED).await?;
    let moved = [&writes.holds, &writes.gates, &writes.users];
    if moved.iter().all(|rows| !rows.is_empty()) {
        Rows::send_all(&mut *tx, &moved, PUT_ALL).await?;
    } else {
        writes.holds.send(&mut *tx, PUT_HOLDS).await?;
        writes.gates.send(&mut *tx, MOVE_GATES).await?;
        writes.users.send(&mut *tx, MOVE_USERS).await?;
    }
    for (rows, statement) in [
        (&writes.outbox, FILL_OUTBOX),
        (&writes.landed, LAND),
        (&writes.undone, UNDO),
        (&writes.decisions, KEEP_DECISIONS),
    ] {
        rows.send(&mut *tx, statement).await?;
    }
    Ok(())
}

/// Stores decisions that were made without a gate.
pub async fn keep_decisions(connection: &mut PgConnection, writes: &Writes) -> Result<(), sqlx::Error> {
    writes.decisions.send(connection, KEEP_DECISIONS).await
}
