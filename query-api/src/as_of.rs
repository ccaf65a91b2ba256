//! As of: an account's state at an instant of its ledger time.
//!
//! Loads the last snapshot before the instant and folds the later events again. The fold's other inputs come from
//! tables of the current state, so each page is reset to its earlier state: see [`Past`].

use std::sync::Arc;

use engine::load::{self, AccountPages};
use engine::tables::event;
use ledger_core::account::lot::Lot;
use ledger_core::account::withdrawal::Seen;
use ledger_core::account::{Core, Snapshot};
use ledger_core::event::key::dedupe_key;
use ledger_core::event::{Data, Dispute, Refund};
use ledger_core::fold::pages::{Missing, Pages};
use ledger_core::fold::{self, Applied, Fact, Moment, Observer, Outcome};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, GrantId, PaymentId};
use ledger_core::value::time::Time;
use platform::pg::columns;
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use web::http::Problem;

use crate::reading::Account;

/// Events read by one statement.
const CHUNK_EVENTS: u16 = 200;
/// Most loads of one event: a reversal needs its usage, then who repaid it, then all their lots at once.
const LOADS_PER_EVENT_MAX: usize = 8;

/// Longest history that is read whole, in events.
pub const EVENTS_MAX: u64 = 1_000_000;

/// A state of an account: all that happened up to an instant, included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct At {
    pub time: Time,
    /// The last record whose event belongs to it: of several events at the instant, some may have come later.
    pub through: i64,
}

impl At {
    /// The state after everything that happened at an instant.
    pub fn instant(time: Time) -> Self {
        Self { time, through: i64::MAX }
    }

    /// The state that the snapshot shows.
    pub fn present(account: &Account) -> Self {
        Self { time: account.core.ledger_time, through: account.position.offset }
    }

    /// Returns the past state that a caller asks for; none is the present, as is an instant that lies ahead.
    ///
    /// Problems: 404 before the account's opening.
    pub fn asked(account: &Account, as_of: Option<Time>) -> Result<Option<Self>, Problem> {
        let Some(instant) = as_of else { return Ok(None) };
        if instant < account.core.opened_at {
            let detail = format!("account {} opened at {}", account.id(), account.core.opened_at);
            return Err(Problem::not_found("account_not_found", detail));
        }
        Ok((instant <= account.core.ledger_time).then(|| Self::instant(instant)))
    }
}

/// Returns whether the account was open in a state: its opening left a snapshot.
pub(crate) async fn is_since_opening(
    connection: &mut PgConnection,
    account: &Account,
    at: At,
) -> Result<bool, sqlx::Error> {
    let sql = r#"select exists (select
                                  from snapshot
                                 where account_id = $1
                                   and "offset" <= $2
                                   and ledger_time <= $3)"#;
    let query = sqlx::query_scalar(sql).bind(account.id()).bind(at.through);
    query.bind(platform::pg::timestamp(at.time)).fetch_one(connection).await
}

/// Returns the core at a state, which is between the opening and the present.
pub(crate) async fn core_at(
    connection: &mut PgConnection,
    account: &Account,
    at: At,
) -> Result<Core, Problem> {
    refold_to(connection, account, at, &mut Nobody).await
}

/// The same, with an observer of what happened since the last snapshot before it.
pub(crate) async fn refold_to(
    connection: &mut PgConnection,
    account: &Account,
    at: At,
    onlooker: &mut impl Onlooker,
) -> Result<Core, Problem> {
    let mut past = Past::open(connection, account, at).await?;
    if let Some(core) = &past.core {
        onlooker.begins(core);
    }
    past.refold(connection, onlooker).await?;
    let mut core = past.core.ok_or_else(|| Problem::internal("an open account has no opening event"))?;
    fold::roll_watched(&mut core, &mut past.pages, at.time, onlooker);
    Ok(core)
}

/// Folds an account's whole history again, from its opening to the present, with an observer.
pub(crate) async fn refold_all(
    connection: &mut PgConnection,
    account: &Account,
    onlooker: &mut impl Onlooker,
) -> Result<(), Problem> {
    let at = At::instant(account.core.ledger_time);
    let mut past = Past::begin(connection, account, at, (None, None)).await?;
    past.refold(connection, onlooker).await?;
    if let Some(core) = &mut past.core {
        // The last records may have moved only the clock.
        fold::roll_watched(core, &mut past.pages, account.core.ledger_time, onlooker);
    }
    Ok(())
}

/// Observes a repeated fold: each moment, and each event at its end.
pub(crate) trait Onlooker: Observer + Send {
    /// Called with the snapshot that the fold begins at, if it does not begin at the opening.
    fn begins(&mut self, _: &Core) {}

    /// Called after each event that applied.
    fn folded(&mut self, _: &Core, _: &Applied) {}

    /// Returns whether nobody wants the rest.
    fn is_done(&self) -> bool {
        false
    }
}

struct Nobody;

impl Observer for Nobody {
    fn after(&mut self, _: &Core, _: &Moment<'_>) {}
}

impl Onlooker for Nobody {}

/// An account that is folded again up to an instant.
///
/// The pages that the fold finds missing have three known properties. A lot in neither core nor pages was empty. A
/// reversal ends the repaying of its withdrawal, so today's repayments are those of the time. And an entry states what
/// its refund moved.
struct Past {
    account: AccountId,
    at: At,
    core: Option<Core>,
    pages: Pages,
    /// Ledger time of the snapshot; before all times if the fold starts at the opening.
    base_time: Time,
    /// Offset of the snapshot.
    base_offset: i64,
    /// Offset of the next snapshot, which is after the instant.
    next_snapshot: i64,
    /// Lots that events after the snapshot void: not yet voided before those.
    voided_later: FxHashSet<String>,
}

impl Past {
    async fn open(connection: &mut PgConnection, account: &Account, at: At) -> Result<Self, sqlx::Error> {
        // Ledger time never goes back, so the last by time is the last in the journal.
        let base = sqlx::query(
            r#"select "offset", core::text
                 from snapshot
                where account_id = $1
                  and ledger_time <= $2
                  and "offset" <= $3
                order by ledger_time desc, "offset" desc
                limit 1"#,
        )
        .bind(account.id())
        .bind(platform::pg::timestamp(at.time))
        .bind(at.through)
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
        Self::begin(connection, account, at, (base, next_snapshot)).await
    }

    /// Starts at a snapshot or before the opening, and reads no further than the next snapshot, if there is one.
    async fn begin(
        connection: &mut PgConnection,
        account: &Account,
        at: At,
        (base, next_snapshot): (Option<(i64, Core)>, Option<i64>),
    ) -> Result<Self, sqlx::Error> {
        let (base_offset, core) = base.map_or((-1, None), |(offset, core)| (offset, Some(core)));
        let mut past = Self {
            account: account.core.account.clone(),
            at,
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
            // Missing pages are loaded again, so that a long history takes no more memory than a short one.
            self.pages = Pages::default();
            if chunk.len() < usize::from(CHUNK_EVENTS) || onlooker.is_done() {
                return Ok(());
            }
        }
    }

    /// Omits events without effect: they moved the clock at most, and the next event moves it as well. Only a start of
    /// a top-up that came too late is kept, because it has used up its number.
    async fn load_events(
        &self,
        connection: &mut PgConnection,
        after: i64,
    ) -> Result<Vec<PastEvent>, sqlx::Error> {
        let sql = format!(
            r#"select "offset", appended_at, ledger_time, balance_after::text, {}
                 from event
                where account_id = $1
                  and "offset" > $2
                  and "offset" <= $3
                  and ledger_time <= $4
                  and (outcome = 'applied' or reason = 'top_up_not_due')
                order by "offset"
                limit $5"#,
            event::COLUMNS
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(self.account.as_str())
            .bind(after)
            .bind(self.next_snapshot.min(self.at.through))
            .bind(platform::pg::timestamp(self.at.time))
            .bind(i64::from(CHUNK_EVENTS))
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
        // Folded in the original steps, so that a long move of a test clock never exceeds the limit of one move.
        if let Some(core) = &mut self.core {
            fold::roll_watched(core, &mut self.pages, past.ledger_time, onlooker);
        }
        self.make_new(fact);
        if let Data::CreditsRefunded(Refund { payment_id, amount, .. })
        | Data::DisputeOpened(Dispute { payment_id, amount, .. }) = &fact.event.data
        {
            self.prepare_refund(connection, fact, payment_id, *amount).await?;
        }
        for _ in 0..LOADS_PER_EVENT_MAX {
            match fold::apply_watched(&mut self.core, &mut self.pages, fact, onlooker) {
                Ok(applied) => {
                    self.check(past, &applied)?;
                    if let Some(core) = &self.core {
                        onlooker.folded(core, &applied);
                    }
                    return Ok(());
                }
                Err(fold::Error::Missing(missing)) => self.supply(connection, missing, fact).await?,
                Err(broken @ fold::Error::NotConserved { .. }) => return Err(Problem::internal(broken)),
            }
        }
        Err(Problem::internal(format!("event at offset {} needs too many pages", fact.offset)))
    }

    /// Marks an event that applied, and what it created, as new.
    fn make_new(&mut self, fact: &Fact) {
        self.pages.seen.entry(fact.key).or_insert(None);
        match &fact.event.data {
            Data::UsageRecorded(usage) => {
                if let Some(call) = &usage.call_id {
                    self.pages.calls.entry(call.clone()).or_insert(None);
                }
            }
            Data::CreditsGranted(grant) => self.make_new_lot(&grant.grant_id),
            Data::CreditsAdjusted(_) => {
                if let Ok(id) = GrantId::new(fact.event.id.as_str()) {
                    self.make_new_lot(&id);
                }
            }
            Data::CreditsPurchased(purchase) => self.make_new_lot(&purchase.payment_id.as_grant()),
            Data::CreditsToppedUp(top_up) => {
                self.make_new_lot(&top_up.payment_id.as_grant());
                self.make_new_lot(&top_up.attempt_id.as_grant());
            }
            Data::AccountOpened(_)
            | Data::AccountChanged(_)
            | Data::AccountClosed(_)
            | Data::PlanChanged(_)
            | Data::ClockAdvanced(_)
            | Data::UsageReversed(_)
            | Data::GrantVoided(_)
            | Data::CreditsRefunded(_)
            | Data::DisputeOpened(_)
            | Data::DisputeWon(_)
            | Data::RefundFailed(_)
            | Data::PeriodReset(_)
            | Data::LimitsSet(_)
            | Data::UserLimitSet(_)
            | Data::OrgAlertSet(_)
            | Data::OrgAlertRemoved(_)
            | Data::UserAlertSet(_)
            | Data::AutoTopUpSet(_)
            | Data::TopUpStarted(_)
            | Data::TopUpFailed(_)
            | Data::TopUpRefused(_) => {}
        }
    }

    /// No lot and no payment has the id of a lot that is made.
    fn make_new_lot(&mut self, id: &GrantId) {
        self.pages.lots.entry(id.clone()).or_insert(None);
        self.pages.payments.entry(id.as_payment()).or_insert(None);
    }

    /// Makes a refund or dispute move the same amount as originally: the part that its lot could not give, by the
    /// entry, had lapsed.
    async fn prepare_refund(
        &mut self,
        connection: &mut PgConnection,
        fact: &Fact,
        payment: &PaymentId,
        amount: Credits,
    ) -> Result<(), Problem> {
        if !self.pages.payments.contains_key(payment) {
            self.supply(connection, vec![Missing::Payment(payment.clone())], fact).await?;
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
            self.supply(connection, vec![Missing::Lot(grant_id.clone())], fact).await?;
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

    /// Loads pages and resets them to their state when `fact` was folded.
    async fn supply(
        &mut self,
        connection: &mut PgConnection,
        missing: Vec<Missing>,
        fact: &Fact,
    ) -> Result<(), Problem> {
        let lot = |page: &Missing| if let Missing::Lot(id) = page { Some(id.clone()) } else { None };
        let named_lots: FxHashSet<GrantId> = missing.iter().filter_map(lot).collect();
        let mut today = Today { account: &self.account, pages: Pages::default() };
        load::missing(connection, missing, &mut today, 0).await?;
        let Pages { seen, lots, payments, repayments, covered, .. } = today.pages;
        for (key, seen) in seen {
            // Only an undoing event that applied needs one: its target was folded, and not undone yet.
            self.pages.seen.insert(key, seen.map(|seen| Seen { reversed: false, ..seen }));
        }
        let existed = |lot: &Lot| lot.offset < fact.offset;
        for (payment, grant_id) in payments {
            let grant_id = grant_id.filter(|id| lots.get(id).and_then(Option::as_ref).is_some_and(existed));
            self.pages.payments.insert(payment, grant_id);
        }
        // The fold loads the lot of a payment by the lot's own id when it needs it.
        for (grant_id, lot) in lots.into_iter().filter(|(id, _)| named_lots.contains(id)) {
            let lot = lot.filter(existed).map(|lot| self.exhausted(lot));
            self.pages.lots.insert(grant_id, lot);
        }
        for (start, repayment) in repayments {
            self.pages.repayments.entry(start).or_insert(repayment);
        }
        self.pages.covered.extend(covered);
        Ok(())
    }

    /// A lot that the fold finds missing was empty: used up, or closed.
    fn exhausted(&self, lot: Lot) -> Lot {
        let voided_before =
            |at: &Time| *at <= self.base_time && !self.voided_later.contains(lot.grant_id.as_str());
        Lot {
            remaining: Credits::ZERO,
            amount: self.allowance_of(&lot.grant_id).unwrap_or(lot.amount),
            voided_at: lot.voided_at.filter(voided_before),
            ..lot
        }
    }

    /// The open period's plan lot has the plan's allowance as its amount, even after later changes.
    fn allowance_of(&self, grant_id: &GrantId) -> Option<Credits> {
        let core = self.core.as_ref()?;
        let open = format!("plan:{}", core.period.index);
        (grant_id.as_str() == open).then_some(core.plan.allowance)
    }

    /// Compares the repeated fold with the original, so that no wrong figure of the past is returned.
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

/// The stored row of an event that applied.
struct PastEvent {
    fact: Fact,
    /// The account's ledger time after it.
    ledger_time: Time,
    /// Whether it had an effect on the balance or the settings.
    applied: bool,
    /// Only for usage: the settled balance after it.
    balance_after: Option<Credits>,
}

fn past_event_of(row: &PgRow, account: &AccountId) -> Result<PastEvent, sqlx::Error> {
    let event = event::read_event(row, account)?;
    let fact = Fact {
        key: dedupe_key(account, &event.source, &event.id),
        content: event::read_content(row)?,
        event: Arc::new(event),
        appended_at: columns::time(row, "appended_at")?,
        offset: row.try_get("offset")?,
    };
    Ok(PastEvent {
        fact,
        ledger_time: columns::time(row, "ledger_time")?,
        applied: event::is_applied(row)?,
        balance_after: columns::optional_amount(row, "balance_after")?,
    })
}

/// Pages of one account in the current tables.
struct Today<'a> {
    account: &'a AccountId,
    pages: Pages,
}

impl AccountPages for Today<'_> {
    fn pages_of(&mut self, _: usize) -> (&AccountId, &mut Pages) {
        (self.account, &mut self.pages)
    }
}
