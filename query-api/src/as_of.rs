//! As of: an account as it stood at an instant of its ledger time.
//!
//! The last snapshot up to the instant, and the applied events after it folded again. What the fold asks for beyond
//! the core comes from tables that show today, so each page is put back to how it stood: see [`Past`].

use std::sync::Arc;

use ledger_core::account::{Core, Snapshot};
use ledger_core::value::credits::Credits;
use ledger_core::event::{Data, Dispute, Event, Refund, wire};
use ledger_core::fold::{self, Applied, Fact, LotChange, Moment, Observer, Outcome};
use ledger_core::value::id::{EventId, Id, Source};
use ledger_core::event::key::{ContentHash, dedupe_key};
use ledger_core::account::lot::{Draw, Draws, Lot};
use ledger_core::account::overdraft::Stretch;
use ledger_core::fold::pages::{Missing, Pages};
use ledger_core::account::withdrawal::{Repayment, Seen, Withdrawal};
use ledger_core::value::time::Time;
use web::http::Problem;
use rustc_hash::FxHashSet;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::columns;
use crate::reading::{self, Account, LOT_COLUMNS};

/// Events read at a time.
const CHUNK_EVENTS: i64 = 200;
/// Pages that one event may ask for: a reversal asks for each lot that its usage drew.
const MISSING_MAX: usize = 20_000;

/// Returns the core as it stood at `instant`, which lies between the opening and the present.
pub(crate) async fn core_at(
    connection: &mut PgConnection,
    account: &Account,
    instant: Time,
) -> Result<Core, Problem> {
    let mut past = Past::open(connection, account, instant).await?;
    past.refold(connection, &mut Nobody).await?;
    let mut core = past.core.ok_or_else(|| Problem::internal("an open account has no opening event"))?;
    fold::roll_to(&mut core, instant);
    Ok(core)
}

/// Folds an account's whole history again, from its opening to the present, under the eyes of an observer.
pub(crate) async fn refold_all(
    connection: &mut PgConnection,
    account: &Account,
    onlooker: &mut impl Onlooker,
) -> Result<(), Problem> {
    let mut past = Past::begin(connection, account, account.core.ledger_time, (None, None)).await?;
    past.refold(connection, onlooker).await?;
    if let Some(core) = &mut past.core {
        // The last records may have had no effect but to move the clock.
        fold::roll_watched(core, &mut past.pages, account.core.ledger_time, onlooker);
    }
    Ok(())
}

/// Sees an account folded again: moment by moment, and each event when it is done.
pub(crate) trait Onlooker: Observer + Send {
    /// Comes after each event that applied.
    fn folded(&mut self, core: &Core, applied: &Applied);
}

struct Nobody;

impl Observer for Nobody {
    fn after(&mut self, _: &Core, _: &Moment<'_>) {}
}

impl Onlooker for Nobody {
    fn folded(&mut self, _: &Core, _: &Applied) {}
}

/// An account being folded again up to an instant.
///
/// Three things are known about a page that the fold misses in here. A lot that is in neither core nor pages had
/// nothing left. A reversal ends the repaying of its withdrawal, so the repayments of today are those of then. And what
/// a refund moved stands in its entry.
struct Past {
    account: Id,
    instant: Time,
    core: Option<Core>,
    pages: Pages,
    /// Ledger time of the snapshot; before everything where the fold starts at the opening.
    base_time: Time,
    /// Offset of the snapshot.
    base_offset: i64,
    /// Offset of the snapshot after it, which lies past the instant.
    next_snapshot: i64,
    /// Lots that are voided by one of the events after the snapshot: not yet voided before it.
    voided_later: FxHashSet<String>,
}

impl Past {
    async fn open(
        connection: &mut PgConnection,
        account: &Account,
        instant: Time,
    ) -> Result<Self, sqlx::Error> {
        let base = sqlx::query(
            r#"select "offset", core::text
                 from snapshot
                where account_id = $1
                  and ledger_time <= $2
                order by "offset" desc
                limit 1"#,
        )
        .bind(account.id())
        .bind(platform::pg::timestamp(instant))
        .fetch_optional(&mut *connection)
        .await?;
        let base = match &base {
            Some(row) => {
                let snapshot: Snapshot = columns::json_of(row, "core")?;
                Some((row.try_get("offset")?, Core::from(snapshot)))
            }
            None => None,
        };
        let base_offset = base.as_ref().map_or(-1, |(offset, _)| *offset);
        let next_snapshot: Option<i64> = sqlx::query_scalar(
            r#"select min("offset") from snapshot where account_id = $1 and "offset" > $2"#,
        )
        .bind(account.id())
        .bind(base_offset)
        .fetch_one(&mut *connection)
        .await?;
        Self::begin(connection, account, instant, (base, next_snapshot)).await
    }

    /// Begins at a snapshot, or before the opening, and reads no further than the snapshot after it, if there is one.
    async fn begin(
        connection: &mut PgConnection,
        account: &Account,
        instant: Time,
        (base, next_snapshot): (Option<(i64, Core)>, Option<i64>),
    ) -> Result<Self, sqlx::Error> {
        let (base_offset, core) = base.map_or((-1, None), |(offset, core)| (offset, Some(core)));
        let mut past = Self {
            account: account.core.account.clone(),
            instant,
            base_time: core.as_ref().map_or(Time::MIN, |core| core.ledger_time),
            core,
            pages: Pages::default(),
            base_offset,
            next_snapshot: next_snapshot.unwrap_or(i64::MAX),
            voided_later: FxHashSet::default(),
        };
        past.voided_later = past.load_voided_later(connection).await?;
        Ok(past)
    }

    async fn load_voided_later(
        &self,
        connection: &mut PgConnection,
    ) -> Result<FxHashSet<String>, sqlx::Error> {
        let voided: Vec<String> = sqlx::query_scalar(
            r#"select data->>'grant_id'
                 from event
                where account_id = $1
                  and "offset" > $2
                  and "offset" <= $3
                  and type = 'ledger.grant.voided.v1'
                  and outcome = 'applied'"#,
        )
        .bind(self.account.as_str())
        .bind(self.base_offset)
        .bind(self.next_snapshot)
        .fetch_all(connection)
        .await?;
        Ok(voided.into_iter().collect())
    }

    async fn refold(
        &mut self,
        connection: &mut PgConnection,
        onlooker: &mut impl Onlooker,
    ) -> Result<(), Problem> {
        let mut after = self.base_offset;
        loop {
            let chunk = self.load_events(connection, after).await?;
            for past_event in &chunk {
                self.fold_one(connection, past_event, onlooker).await?;
                after = past_event.fact.offset;
            }
            // What is asked for again is loaded again: a long history takes no more memory than a short one.
            self.pages = Pages::default();
            if chunk.len() < CHUNK_EVENTS as usize {
                return Ok(());
            }
        }
    }

    /// What had no effect is left out: it moved the clock at most, and so does the event after it. But a start of a
    /// top-up that came too late has used up its number.
    async fn load_events(
        &self,
        connection: &mut PgConnection,
        after: i64,
    ) -> Result<Vec<PastEvent>, sqlx::Error> {
        let rows = sqlx::query(
            r#"select "offset", event_id, source, type, content, occurred_at, recordedat, appended_at,
                      ledger_time, actor, data::text, balance_after::text, outcome
                 from event
                where account_id = $1
                  and "offset" > $2
                  and "offset" <= $3
                  and ledger_time <= $4
                  and (outcome = 'applied' or reason = 'top_up_not_due')
                order by "offset"
                limit $5"#,
        )
        .bind(self.account.as_str())
        .bind(after)
        .bind(self.next_snapshot)
        .bind(platform::pg::timestamp(self.instant))
        .bind(CHUNK_EVENTS)
        .fetch_all(connection)
        .await?;
        rows.iter().map(|row| past_event_of(row, &self.account)).collect()
    }

    async fn fold_one(
        &mut self,
        connection: &mut PgConnection,
        past: &PastEvent,
        onlooker: &mut impl Onlooker,
    ) -> Result<(), Problem> {
        let fact = &past.fact;
        // Folded in steps as it was, a long way of a test clock is never one jump too far.
        if let Some(core) = &mut self.core {
            fold::roll_watched(core, &mut self.pages, past.ledger_time, onlooker);
        }
        self.make_new(fact);
        match &fact.event.data {
            Data::CreditsRefunded(Refund { payment_id, amount, .. })
            | Data::DisputeOpened(Dispute { payment_id, amount, .. }) => {
                self.prepare_refund(connection, fact, payment_id, *amount).await?;
            }
            _ => {}
        }
        for _ in 0..MISSING_MAX {
            match fold::apply_watched(&mut self.core, &mut self.pages, fact, onlooker) {
                Ok(applied) => {
                    self.check(past, &applied)?;
                    if let Some(core) = &self.core {
                        onlooker.folded(core, &applied);
                    }
                    return Ok(());
                }
                Err(missing) => self.supply(connection, missing, fact).await?,
            }
        }
        Err(Problem::internal(format!("event at offset {} asks for too much", fact.offset)))
    }

    /// An event that applied was new, and so was what it made.
    fn make_new(&mut self, fact: &Fact) {
        self.pages.seen.entry(fact.key).or_insert(None);
        match &fact.event.data {
            Data::CreditsGranted(grant) => {
                self.pages.lots.entry(grant.grant_id.clone()).or_insert(None);
            }
            Data::CreditsPurchased(purchase) => {
                self.pages.lots.entry(purchase.payment_id.clone()).or_insert(None);
                self.pages.payments.entry(purchase.payment_id.clone()).or_insert(None);
            }
            Data::CreditsToppedUp(top_up) => {
                self.pages.lots.entry(top_up.attempt_id.clone()).or_insert(None);
                self.pages.payments.entry(top_up.payment_id.clone()).or_insert(None);
            }
            _ => {}
        }
    }

    /// Sees to it that a refund, or a dispute, moves what it moved: of what its lot could not give, that much had lapsed
    /// as its entry did not move.
    async fn prepare_refund(
        &mut self,
        connection: &mut PgConnection,
        fact: &Fact,
        payment: &Id,
        amount: Credits,
    ) -> Result<(), Problem> {
        if !self.pages.payments.contains_key(payment) {
            self.supply(connection, Missing::Payment(payment.clone()), fact).await?;
        }
        let Some(Some(grant_id)) = self.pages.payments.get(payment).cloned() else { return Ok(()) };
        let moved = self.moved_by(connection, fact).await?;
        let lapsed = amount.minus(moved).map_err(Problem::internal)?;
        let Some(core) = &mut self.core else { return Ok(()) };
        if let Some(lot) = core.lots.remove(&grant_id) {
            let now = core.ledger_time;
            core.lots.insert(Lot { lapsed, refunded: Credits::ZERO, ..lot }, now);
            return Ok(());
        }
        if !self.pages.lots.contains_key(&grant_id) {
            self.supply(connection, Missing::Lot(grant_id.clone()), fact).await?;
        }
        if let Some(Some(lot)) = self.pages.lots.get_mut(&grant_id) {
            lot.lapsed = lapsed;
            lot.refunded = Credits::ZERO;
        }
        Ok(())
    }

    async fn moved_by(&self, connection: &mut PgConnection, fact: &Fact) -> Result<Credits, sqlx::Error> {
        let moved: Option<String> = sqlx::query_scalar(
            r#"select (-amount)::text
                 from entry
                where account_id = $1
                  and "offset" = $2
                  and type = 'refunded'"#,
        )
        .bind(self.account.as_str())
        .bind(fact.offset)
        .fetch_optional(connection)
        .await?;
        moved.map_or(Ok(Credits::ZERO), |moved| platform::pg::credits_of(&moved))
    }

    /// Loads a page as it stood when `fact` was folded.
    async fn supply(
        &mut self,
        connection: &mut PgConnection,
        missing: Missing,
        fact: &Fact,
    ) -> Result<(), Problem> {
        match missing {
            Missing::Event(source, id) => {
                let key = dedupe_key(&self.account, &source, &id);
                let seen = self.load_seen(connection, &source, &id, fact.offset).await?;
                self.pages.seen.insert(key, seen);
            }
            Missing::Lot(grant_id) => {
                let lot = self.load_lot(connection, &grant_id, fact.offset).await?;
                self.pages.lots.insert(grant_id, lot);
            }
            Missing::Payment(payment) => {
                let lot = self.load_payment(connection, &payment, fact.offset).await?;
                self.pages.payments.insert(payment, lot);
            }
            Missing::Repayments(stretch) => {
                for repayment in load_repayments(connection, &self.account, &stretch).await? {
                    self.pages.repayments.entry(repayment.stretch.start).or_insert(repayment);
                }
                self.pages.covered.push(stretch);
            }
        }
        Ok(())
    }

    async fn load_seen(
        &self,
        connection: &mut PgConnection,
        source: &Source,
        id: &EventId,
        before: i64,
    ) -> Result<Option<Seen>, Problem> {
        let row = sqlx::query(
            r#"select "offset", event_id, source, type, outcome, content, occurred_at, recordedat, appended_at,
                      ledger_time, actor, data::text, balance_after::text, period_index, credits::text,
                      coalesce(lots, '[]')::text as lots, line_start::text, line_end::text, reversed_at
                 from event
                where account_id = $1
                  and event_id = $2
                  and source = $3
                  and "offset" < $4"#,
        )
        .bind(self.account.as_str())
        .bind(id.as_str())
        .bind(source.as_str())
        .bind(before)
        .fetch_optional(connection)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let content = content_of(&row)?;
        let may_be_undone = ["ledger.usage.recorded.v1", "ledger.dispute.opened.v1"];
        let took = may_be_undone.contains(&row.try_get::<&str, _>("type")?);
        let applied = row.try_get::<&str, _>("outcome")? == "applied";
        let withdrawal = if took && applied { Some(Arc::new(withdrawal_of(&row, &self.account)?)) } else { None };
        // Only an undoing that applied asks, and such a one finds what it undoes standing.
        Ok(Some(Seen { content, withdrawal, reversed: false }))
    }

    /// A lot that the fold misses had nothing left: used up, or closed, or not made yet.
    async fn load_lot(
        &self,
        connection: &mut PgConnection,
        grant_id: &Id,
        at: i64,
    ) -> Result<Option<Lot>, sqlx::Error> {
        let sql = format!(
            r#"select {LOT_COLUMNS} from lot where account_id = $1 and grant_id = $2 and "offset" < $3"#
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(self.account.as_str())
            .bind(grant_id.as_str())
            .bind(at)
            .fetch_optional(connection)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let lot = reading::lot_of(&row)?;
        let voided_before =
            |at: &Time| *at <= self.base_time && !self.voided_later.contains(grant_id.as_str());
        Ok(Some(Lot {
            remaining: Credits::ZERO,
            amount: self.allowance_of(grant_id).unwrap_or(lot.amount),
            voided_at: lot.voided_at.filter(voided_before),
            ..lot
        }))
    }

    /// The open period's plan lot has the plan's allowance as its amount, whatever it was changed to since.
    fn allowance_of(&self, grant_id: &Id) -> Option<Credits> {
        let core = self.core.as_ref()?;
        let open = format!("plan:{}", core.period.index);
        (grant_id.as_str() == open).then_some(core.plan.allowance)
    }

    async fn load_payment(
        &self,
        connection: &mut PgConnection,
        payment: &Id,
        before: i64,
    ) -> Result<Option<Id>, sqlx::Error> {
        let row = sqlx::query(
            r#"select grant_id from lot where account_id = $1 and payment_id = $2 and "offset" < $3"#,
        )
        .bind(self.account.as_str())
        .bind(payment.as_str())
        .bind(before)
        .fetch_optional(connection)
        .await?;
        row.map(|row| columns::name(&row, "grant_id")).transpose()
    }

    /// Holds the second fold to the first: no figure of the past is shown that was not there.
    fn check(&self, past: &PastEvent, applied: &Applied) -> Result<(), Problem> {
        let same_balance = past.balance_after.is_none_or(|balance| balance == applied.balance_after);
        if (applied.outcome == Outcome::Applied) == past.applied && same_balance {
            return Ok(());
        }
        let (account, offset) = (&self.account, past.fact.offset);
        Err(Problem::internal(format!(
            "account {account}, offset {offset}: folded again it comes out otherwise"
        )))
    }
}

/// An event that applied, as its row has it.
struct PastEvent {
    fact: Fact,
    /// The account's ledger time after it.
    ledger_time: Time,
    /// Whether it had an effect on the balance or the settings.
    applied: bool,
    /// Usage: the settled balance after it.
    balance_after: Option<Credits>,
}

fn past_event_of(row: &PgRow, account: &Id) -> Result<PastEvent, sqlx::Error> {
    let event = event_of(row, account)?;
    let fact = Fact {
        key: dedupe_key(account, &event.source, &event.id),
        content: content_of(row)?,
        event: Arc::new(event),
        appended_at: columns::time(row, "appended_at")?,
        offset: row.try_get("offset")?,
    };
    Ok(PastEvent {
        fact,
        ledger_time: columns::time(row, "ledger_time")?,
        applied: row.try_get::<&str, _>("outcome")? == "applied",
        balance_after: columns::optional_amount(row, "balance_after")?,
    })
}

fn event_of(row: &PgRow, account: &Id) -> Result<Event, sqlx::Error> {
    let (event_type, data): (&str, &str) = (row.try_get("type")?, row.try_get("data")?);
    let data = wire::data(event_type, data)
        .ok_or_else(|| sqlx::Error::Decode(format!("type {event_type} is unknown").into()))?
        .map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Event {
        id: columns::name(row, "event_id")?,
        source: columns::name(row, "source")?,
        account: account.clone(),
        occurred_at: columns::time(row, "occurred_at")?,
        recorded_at: columns::time(row, "recordedat")?,
        actor: columns::name(row, "actor")?,
        data,
    })
}

fn content_of(row: &PgRow) -> Result<ContentHash, sqlx::Error> {
    let bytes: &[u8] = row.try_get("content")?;
    bytes.try_into().map(ContentHash).map_err(|_| sqlx::Error::Decode("a content hash has 32 bytes".into()))
}

fn withdrawal_of(row: &PgRow, account: &Id) -> Result<Withdrawal, sqlx::Error> {
    let changes: Vec<LotChange> = columns::json_of(row, "lots")?;
    let draws: Draws = changes
        .into_iter()
        .map(|change| Draw {
            grant_id: change.grant_id,
            source: change.source,
            amount: change.amount.negated(),
        })
        .collect();
    let start = columns::optional_amount(row, "line_start")?;
    let end = columns::optional_amount(row, "line_end")?;
    let event = event_of(row, account)?;
    let credits = match &event.data {
        Data::DisputeOpened(dispute) => dispute.amount,
        _ => columns::amount(row, "credits")?,
    };
    Ok(Withdrawal {
        event: Arc::new(event),
        period_index: row.try_get("period_index")?,
        credits,
        draws,
        line: start.zip(end).map(|(start, end)| Stretch { start, end }),
    })
}

async fn load_repayments(
    connection: &mut PgConnection,
    account: &Id,
    stretch: &Stretch,
) -> Result<Vec<Repayment>, sqlx::Error> {
    // Repayments don't overlap, so the first that reaches into the stretch is the last that starts before it.
    let rows = sqlx::query(
        "select line_start::text, line_end::text, grant_id
           from repayment
          where account_id = $1
            and line_start < $3::text::numeric
            and line_end > $2::text::numeric
            and line_start >= coalesce((select max(line_start)
                                          from repayment
                                         where account_id = $1
                                           and line_start <= $2::text::numeric), $2::text::numeric)",
    )
    .bind(account.as_str())
    .bind(platform::pg::numeric_text(stretch.start))
    .bind(platform::pg::numeric_text(stretch.end))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let start = columns::amount(row, "line_start")?;
            let end = columns::amount(row, "line_end")?;
            Ok(Repayment { stretch: Stretch { start, end }, grant_id: columns::name(row, "grant_id")? })
        })
        .collect()
}
