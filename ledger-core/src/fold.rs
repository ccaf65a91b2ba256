//! The fold: one pure function from the events of an account, in log order, to its balance and entries.
//!
//! `apply` sees an account's core and the loaded pages; what it lacks it names before it changes anything but the
//! clock. Two rules carry the money: whatever takes credits draws lots in burn order and leaves the rest as
//! overdraft (`take`); whatever gives credits first repays overdraft, oldest first (`settle_overdraft`).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::account::{Core, Figures, Plan};
use crate::alert::rule::{ORG_ALERTS_MAX, OrgAlert, UserAlert};
use crate::credits::{Credits, wide};
use crate::derive;
use crate::event::{
    Adjust, ChangeAccount, ChangeAt, ChangePlan, Clock, Data, Dispute, Event, FailTopUp, Grant, LotSource,
    OpenAccount, OverdraftPolicy, PackExpiry, Purchase, Refund, RefuseTopUp, RemoveOrgAlert, ResetPeriod,
    ReverseUsage, RolloverMode, SetOrgAlert, SetUserAlert, StartTopUp, TopUp, Usage, VoidGrant,
};
use crate::id::{EventId, Id};
use crate::key::{ContentHash, DedupeKey, content_hash, dedupe_key};
use crate::limit::Limits;
use crate::lot::{Draws, Lot, OPEN_LOTS_MAX, default_priority, less, more};
use crate::overdraft::Stretch;
use crate::pages::{Missing, Pages, Repayment, Seen, Taking, opening_of};
use crate::time::Time;
use crate::top_up::{self, Attempt, Want};

/// Version of the rules, the time-zone data among them; fixed per generation of a read model.
pub const FOLD_VERSION: i32 = 3;
/// How far a live account's ledger time may lie ahead of the broker's append time: 2 s.
pub const AHEAD_OF_BROKER_MAX_SECONDS: i64 = 2;
/// Most boundaries, lot starts and lot ends that one move of a test clock may cross.
pub const CROSSINGS_MAX: i64 = 5_000;
/// Bound on the sum of all amounts ever booked on an account: keeps every sum far inside `Credits` and
/// `numeric(38,9)`.
pub const TURNOVER_MAX: Credits = Credits::from_units(10_000_000_000_000_000_000_000_000_000 * 1_000_000_000);

/// An event with its place in the log.
#[derive(Debug, Clone)]
pub struct Fact {
    /// The event.
    pub event: Arc<Event>,
    /// Its identity.
    pub key: DedupeKey,
    /// What its caller sent.
    pub content: ContentHash,
    /// When the broker appended it.
    pub appended_at: Time,
    /// Its offset in the account's partition.
    pub offset: i64,
}

impl Fact {
    /// Hashes an event read from the log at `offset`.
    pub fn new(event: Event, appended_at: Time, offset: i64) -> Self {
        let key = dedupe_key(&event.account, &event.source, &event.id);
        let content = content_hash(&event);
        Self { event: Arc::new(event), key, content, appended_at, offset }
    }
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outcome {
    /// It had its effect.
    #[default]
    Applied,
    /// The same id with the same content was there before: no effect.
    Duplicate,
    /// The same id with other content was there before: no effect.
    Conflict,
    /// A rule refuses it: no effect.
    Rejected(Reason),
}

impl Outcome {
    /// Returns the outcome's name in the contract.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Applied => "applied",
            Outcome::Duplicate => "duplicate",
            Outcome::Conflict => "conflict",
            Outcome::Rejected(_) => "rejected",
        }
    }

    /// Returns why it was rejected.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Outcome::Rejected(reason) => Some(*reason),
            _ => None,
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why an event was rejected; the codes are contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// Returns the stable code.
            pub fn code(&self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }
        }
    };
}

reasons! {
    /// No opening came before it. Not remembered: the same id may come again after the opening.
    AccountNotOpen = "account_not_open",
    /// The account is open already.
    AccountExists = "account_exists",
    /// A test clock's move crosses too many instants.
    ClockJump = "clock_jump",
    /// No such usage event.
    EventUnknown = "event_unknown",
    /// The usage was reversed before.
    AlreadyReversed = "already_reversed",
    /// No such lot.
    GrantUnknown = "grant_unknown",
    /// A plan or rollover lot, or one that has ended.
    GrantNotVoidable = "grant_not_voidable",
    /// Another lot has this id.
    GrantExists = "grant_exists",
    /// The id is one that only the fold gives: `plan:` or `rollover:`.
    GrantReserved = "grant_reserved",
    /// The lot would end before it counts.
    GrantExpired = "grant_expired",
    /// The account has its most open lots.
    TooManyLots = "too_many_lots",
    /// No such payment.
    PaymentUnknown = "payment_unknown",
    /// The payment is credited already.
    PaymentExists = "payment_exists",
    /// More than was paid would go back.
    RefundExceedsPayment = "refund_exceeds_payment",
    /// The number of this attempt is not the next one.
    AttemptOutOfOrder = "attempt_out_of_order",
    /// Nothing asks for a top-up, or a brake refuses it; its number is used up all the same.
    TopUpNotDue = "top_up_not_due",
    /// The attempt has not started, or has ended.
    AttemptNotOpen = "attempt_not_open",
    /// No such dispute of this payment.
    DisputeUnknown = "dispute_unknown",
    /// The period has not begun.
    PeriodNotBegun = "period_not_begun",
    /// No such org alert.
    AlertUnknown = "alert_unknown",
    /// The account has its most org alerts.
    TooManyAlerts = "too_many_alerts",
    /// Usage without a price.
    UnpricedUsage = "unpriced_usage",
    /// The account's sums would leave their range.
    OutOfRange = "out_of_range",
}

/// Type of an entry; positive amounts add, negative take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "named as in the contract")]
pub enum EntryType {
    Granted,
    Purchased,
    ToppedUp,
    Consumed,
    Reversed,
    Expired,
    RolledOut,
    RolledIn,
    Refunded,
    Voided,
    Adjusted,
}

impl EntryType {
    /// Returns the type's name in the contract.
    pub fn as_str(&self) -> &'static str {
        match self {
            EntryType::Granted => "granted",
            EntryType::Purchased => "purchased",
            EntryType::ToppedUp => "topped_up",
            EntryType::Consumed => "consumed",
            EntryType::Reversed => "reversed",
            EntryType::Expired => "expired",
            EntryType::RolledOut => "rolled_out",
            EntryType::RolledIn => "rolled_in",
            EntryType::Refunded => "refunded",
            EntryType::Voided => "voided",
            EntryType::Adjusted => "adjusted",
        }
    }
}

/// What an entry did to one lot, signed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LotChange {
    /// The lot.
    pub grant_id: Id,
    /// Its source.
    pub source: LotSource,
    /// Positive: added to it.
    #[serde(deserialize_with = "wide")]
    pub amount: Credits,
}

/// Lots that an entry touched; most touch one.
pub type LotChanges = SmallVec<[LotChange; 1]>;

/// One line of an account's ledger. `amount` = sum of `lots` − `overdraft`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Order among the entries of the event being folded.
    pub seq: i32,
    /// What kind of line.
    pub entry_type: EntryType,
    /// Change of the settled balance.
    pub amount: Credits,
    /// Settled balance after it.
    pub balance_after: Credits,
    /// What remains of paid lots after it.
    pub credit_balance_after: Credits,
    /// The event it belongs to; a crossing's derived id where it is a crossing's.
    pub event_id: EventId,
    /// Ledger time; of a crossing, the instant crossed.
    pub recorded_at: Time,
    /// When it happened.
    pub occurred_at: Time,
    /// Lots touched.
    pub lots: LotChanges,
    /// Change of the overdraft.
    pub overdraft: Credits,
}

/// A period that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedPeriod {
    /// Its number and bounds.
    pub period: crate::period::Period,
    /// Its figures at its end, expiry at the end included.
    pub figures: Figures,
    /// What went on into the next.
    pub rolled_over: Credits,
}

/// Usage that counters add (`sign` 1) or take off again (−1).
#[derive(Debug, Clone)]
pub struct UsageChange {
    /// 1 for usage, −1 for a reversal within its period.
    pub sign: i64,
    /// What was used, by whom, priced how.
    pub taking: Arc<Taking>,
}

/// What an event did.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// What became of it.
    pub outcome: Outcome,
    /// The account's ledger time after it; none on an account that is not open.
    pub ledger_time: Option<Time>,
    /// The open period after it.
    pub period_index: i64,
    /// Entries of crossings, then of the event; a usage's own stands in `usage`.
    pub entries: Vec<Entry>,
    /// Usage to count, and for usage itself its entry.
    pub usage: Option<UsageChange>,
    /// Settled balance after it.
    pub balance_after: Credits,
    /// What remains of paid lots after it.
    pub credit_balance_after: Credits,
    /// What a taking other than usage drew (adjustments, refunds).
    pub draws: Draws,
    /// What it left as overdraft.
    pub line: Option<Stretch>,
    /// Periods that ended before it.
    pub closed: Vec<ClosedPeriod>,
    /// The usage event that it reversed.
    pub reversed: Option<DedupeKey>,
}

/// What stands in an account's course, seen after it has had its effect.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Ledger time of the event; of a crossing, the instant crossed.
    pub at: Time,
    /// The event; a crossing's derived id, or of a lot that starts the event that made it.
    pub event_id: &'a EventId,
    /// What applied here; none at a crossing and for an event without effect.
    pub applied: Option<&'a Data>,
    /// Whether credits came: an opening, a boundary, a lot that starts, a grant in effect, a purchase, a positive
    /// adjustment, a raised allowance.
    pub adds: bool,
}

/// Looks on while an account is folded.
pub trait Observer {
    /// Sees the account after an event, and after every crossing before it: each lot's end, a boundary as a whole,
    /// each lot's start.
    fn after(&mut self, core: &Core, moment: &Moment<'_>);
}

/// Nobody looks on.
impl Observer for () {
    fn after(&mut self, _: &Core, _: &Moment<'_>) {}
}

impl Applied {
    /// Returns the place of a usage's own entry: after those of the crossings before it.
    pub fn next_seq(&self) -> i32 {
        i32::try_from(self.entries.len()).unwrap_or(i32::MAX)
    }
}

/// Applies the next event of an account.
///
/// Errors: a page that has to be loaded first; load it and call again with the same arguments.
pub fn apply(core: &mut Option<Core>, pages: &mut Pages, fact: &Fact) -> Result<Applied, Missing> {
    apply_watched(core, pages, fact, &mut ())
}

/// The same under the eyes of an observer. What it has seen before a page was missing it does not see again.
pub fn apply_watched(
    core: &mut Option<Core>,
    pages: &mut Pages,
    fact: &Fact,
    observer: &mut impl Observer,
) -> Result<Applied, Missing> {
    let event = &*fact.event;
    if let Data::AccountOpened(opening) = &event.data
        && core.is_none()
    {
        return Ok(open(core, pages, fact, opening, observer));
    }
    let Some(core) = core else {
        return Ok(Applied { outcome: Outcome::Rejected(Reason::AccountNotOpen), ..Applied::default() });
    };
    let seen =
        pages.seen.get(&fact.key).ok_or_else(|| Missing::Event(event.source.clone(), event.id.clone()))?;
    let repeated = seen
        .as_ref()
        .map(|first| if first.content == fact.content { Outcome::Duplicate } else { Outcome::Conflict });

    let now = ledger_time(core, fact);
    if core.clock == Clock::Test && core.crosses(now) && core.crossings_until(now) > CROSSINGS_MAX {
        core.events += 1;
        if repeated.is_none() {
            remember(pages, fact, None);
        }
        let mut applied = Applied {
            outcome: repeated.unwrap_or(Outcome::Rejected(Reason::ClockJump)),
            ..Applied::default()
        };
        finish(core, &mut applied);
        return Ok(applied);
    }
    let mut applied = pages.unfinished.take().map_or_else(Applied::default, |unfinished| *unfinished);
    roll(core, pages, fact.offset, now, &mut applied, observer);
    core.ledger_time = now;

    let added = core.figures.added;
    let outcome = match repeated {
        Some(outcome) => Ok(outcome),
        None => decide(core, pages, fact, &mut applied),
    };
    match outcome {
        Ok(outcome) => applied.outcome = outcome,
        Err(missing) => {
            pages.unfinished = Some(Box::new(applied));
            return Err(missing);
        }
    }
    if repeated.is_none() {
        let taking = taking_of(core, fact, &applied);
        remember(pages, fact, taking);
    }
    core.events += 1;
    finish(core, &mut applied);
    let effect = (applied.outcome == Outcome::Applied).then_some(&event.data);
    let adds = effect.is_some_and(is_addition) && core.figures.added > added;
    observer.after(core, &Moment { at: now, event_id: &event.id, applied: effect, adds });
    Ok(applied)
}

/// Says whether an event of this type is an addition where it adds to the period's maximum. What a reversal gives
/// back is none.
fn is_addition(data: &Data) -> bool {
    matches!(
        data,
        Data::CreditsGranted(_)
            | Data::CreditsPurchased(_)
            | Data::CreditsToppedUp(_)
            | Data::CreditsAdjusted(_)
            | Data::PlanChanged(_)
    )
}

/// Moves an account to `until`, crossing every boundary, lot start and lot end on the way.
///
/// For reads that want a state between two events.
pub fn roll_to(core: &mut Core, until: Time) {
    roll_with(core, &mut Pages::default(), until);
}

/// The same for a state that goes on being folded: what leaves the core on the way is kept in `pages`.
pub fn roll_with(core: &mut Core, pages: &mut Pages, until: Time) {
    roll_watched(core, pages, until, &mut ());
}

/// The same under the eyes of an observer.
pub fn roll_watched(core: &mut Core, pages: &mut Pages, until: Time, observer: &mut impl Observer) {
    roll(core, pages, 0, until, &mut Applied::default(), observer);
    core.ledger_time = core.ledger_time.max(until);
}

/// Ledger time of an event: as stamped; on live accounts held to the broker's; never going back.
fn ledger_time(core: &Core, fact: &Fact) -> Time {
    core.ledger_time.max(stamped(core.clock, fact))
}

fn stamped(clock: Clock, fact: &Fact) -> Time {
    match clock {
        Clock::Live => fact.event.recorded_at.min(fact.appended_at.plus_seconds(AHEAD_OF_BROKER_MAX_SECONDS)),
        Clock::Test => fact.event.recorded_at,
    }
}

fn remember(pages: &mut Pages, fact: &Fact, taking: Option<Arc<Taking>>) {
    pages.seen.insert(fact.key, Some(Seen { content: fact.content, taking, reversed: false }));
}

/// What an event took that a later one may undo.
fn taking_of(core: &Core, fact: &Fact, applied: &Applied) -> Option<Arc<Taking>> {
    if applied.outcome != Outcome::Applied {
        return None;
    }
    match &fact.event.data {
        Data::UsageRecorded(_) => applied.usage.as_ref().map(|usage| usage.taking.clone()),
        Data::DisputeOpened(dispute) => Some(Arc::new(Taking {
            event: fact.event.clone(),
            period_index: core.period.index,
            credits: dispute.amount,
            draws: applied.draws.clone(),
            line: applied.line,
        })),
        _ => None,
    }
}

fn finish(core: &Core, applied: &mut Applied) {
    applied.ledger_time = Some(core.ledger_time);
    applied.period_index = core.period.index;
    applied.balance_after = core.settled();
    applied.credit_balance_after = core.lots.paid();
    debug_assert_eq!(core.conserved(), core.settled(), "conservation of credits on {}", core.account);
}

fn decide(
    core: &mut Core,
    pages: &mut Pages,
    fact: &Fact,
    applied: &mut Applied,
) -> Result<Outcome, Missing> {
    if core.totals.turnover > TURNOVER_MAX && !matches!(fact.event.data, Data::PeriodReset(_)) {
        return Ok(Outcome::Rejected(Reason::OutOfRange));
    }
    let mut step = Step { core, pages, fact, applied };
    let result = match &fact.event.data {
        Data::UsageRecorded(usage) => step.use_credits(usage),
        Data::UsageReversed(reversal) => step.reverse(reversal)?,
        Data::CreditsGranted(grant) => step.grant(grant)?,
        Data::GrantVoided(void) => step.void(void)?,
        Data::CreditsAdjusted(adjustment) => step.adjust(adjustment),
        Data::CreditsPurchased(purchase) => step.purchase(purchase)?,
        Data::CreditsToppedUp(top_up) => step.top_up(top_up)?,
        Data::CreditsRefunded(refund) => step.refund(refund)?,
        Data::DisputeOpened(dispute) => step.take_payment(&dispute.payment_id, dispute.amount)?,
        Data::DisputeWon(dispute) => step.win(dispute)?,
        Data::AutoTopUpSet(settings) => {
            step.core.top_ups.save(settings);
            Ok(())
        }
        Data::TopUpStarted(start) => step.start_top_up(start),
        Data::TopUpFailed(failure) => step.fail_top_up(failure),
        Data::TopUpRefused(refusal) => step.refuse_top_up(refusal),
        Data::PlanChanged(change) => step.change_plan(change)?,
        Data::AccountChanged(change) => step.change_account(change),
        Data::PeriodReset(reset) => step.reset(reset),
        Data::ClockAdvanced(_) => Ok(()),
        Data::LimitsSet(limits) => {
            step.core.limits = Some(Limits::from(limits));
            Ok(())
        }
        Data::OrgAlertSet(alert) => step.set_org_alert(alert),
        Data::OrgAlertRemoved(removal) => step.remove_org_alert(removal),
        Data::UserAlertSet(alert) => step.set_user_alert(alert),
        Data::AccountOpened(_) => Err(Reason::AccountExists),
    };
    Ok(match result {
        Ok(()) => Outcome::Applied,
        Err(reason) => Outcome::Rejected(reason),
    })
}

fn open(
    slot: &mut Option<Core>,
    pages: &mut Pages,
    fact: &Fact,
    opening: &OpenAccount,
    observer: &mut impl Observer,
) -> Applied {
    let mut applied = Applied::default();
    let now = stamped(opening.clock.unwrap_or_default(), fact);
    let core = slot.insert(Core::open(fact.event.account.clone(), opening, now));
    let mut step = Step { core, pages, fact, applied: &mut applied };
    step.give_allowance(now, &fact.event.id.clone());
    remember(pages, fact, None);
    core.events += 1;
    finish(core, &mut applied);
    let event = &*fact.event;
    let moment = Moment { at: now, event_id: &event.id, applied: Some(&event.data), adds: true };
    observer.after(core, &moment);
    applied
}

/// Crosses everything that lies at or before `until`, in order: at one instant lots that end, then the boundary,
/// then lots that start.
fn roll(
    core: &mut Core,
    pages: &mut Pages,
    offset: i64,
    until: Time,
    applied: &mut Applied,
    observer: &mut impl Observer,
) {
    while let Some(at) = core.next_crossing().filter(|at| *at <= until) {
        let mut crossing = Crossing { core, pages, offset, at, applied };
        if at == crossing.core.period.ends_at {
            crossing.boundary(observer);
        } else {
            crossing.end_lots(observer);
        }
        crossing.start_lots(observer);
        core.ledger_time = core.ledger_time.max(at);
    }
}

/// What both an event and a crossing can do to an account.
trait Booking {
    fn parts(&mut self) -> (&mut Core, &mut Pages, &mut Applied);
    fn stamp(&self) -> Stamp;

    /// Books an entry; figures and totals are the caller's.
    fn book(
        &mut self,
        entry_type: EntryType,
        event_id: EventId,
        lots: LotChanges,
        overdraft: Credits,
    ) -> Credits {
        let stamp = self.stamp();
        let (core, _, applied) = self.parts();
        let amount = less(lots.iter().fold(Credits::ZERO, |sum, change| more(sum, change.amount)), overdraft);
        core.totals.turnover = more(core.totals.turnover, amount.abs());
        let entry = Entry {
            seq: applied.next_seq(),
            entry_type,
            amount,
            balance_after: core.settled(),
            credit_balance_after: core.lots.paid(),
            event_id,
            recorded_at: stamp.recorded_at,
            occurred_at: stamp.occurred_at,
            lots,
            overdraft,
        };
        applied.entries.push(entry);
        amount
    }

    /// Takes credits: draws lots in burn order and leaves the rest as overdraft.
    fn take(&mut self, amount: Credits, usage: bool) -> (Draws, Option<Stretch>) {
        let (core, pages, _) = self.parts();
        let draws = core.lots.draw(amount, |lot| pages.put(lot));
        let mut drawn = Credits::ZERO;
        for draw in &draws {
            drawn = more(drawn, draw.amount);
            if usage && draw.is_paid() {
                core.totals.spent = more(core.totals.spent, draw.amount);
            }
            if !pages.touched.contains(&draw.grant_id) {
                pages.touched.insert(draw.grant_id.clone());
            }
        }
        let short = less(amount, drawn);
        let line = short.is_positive().then(|| core.overdraft.take(short, usage));
        (draws, line)
    }

    /// Repays overdraft from what can be drawn, oldest taking first, in burn order; returns what lots gave.
    fn settle_overdraft(&mut self) -> Draws {
        let (core, pages, _) = self.parts();
        let amount = core.overdraft.total().min(core.lots.drawable());
        if !amount.is_positive() {
            return Draws::new();
        }
        let draws = core.lots.draw(amount, |lot| pages.put(lot));
        let pieces = core.overdraft.repay(amount);
        let mut pieces = pieces.into_iter();
        let mut piece = pieces.next();
        for draw in &draws {
            pages.touched.insert(draw.grant_id.clone());
            let mut left = draw.amount;
            while left.is_positive() {
                let Some(owed) = &mut piece else { break };
                let paid = left.min(owed.stretch.length());
                let end = more(owed.stretch.start, paid);
                let stretch = Stretch { start: owed.stretch.start, end };
                let repayment = Repayment { stretch, grant_id: draw.grant_id.clone() };
                pages.repayments.insert(stretch.start, repayment.clone());
                pages.new_repayments.push(repayment);
                if owed.usage && draw.is_paid() {
                    core.totals.spent = more(core.totals.spent, paid);
                }
                left = less(left, paid);
                owed.stretch.start = end;
                if owed.stretch.length().is_zero() {
                    piece = pieces.next();
                }
            }
        }
        draws
    }

    /// Puts a lot into the account and repays overdraft from it; returns the entry's changes of lots and overdraft.
    fn put_lot(&mut self, lot: Lot) -> (LotChanges, Credits) {
        let now = self.stamp().recorded_at;
        let (core, pages, _) = self.parts();
        pages.touched.insert(lot.grant_id.clone());
        let mut changes = LotChanges::new();
        change(&mut changes, &lot.grant_id, lot.source, lot.remaining);
        if lot.remaining.is_positive() {
            core.lots.insert(lot, now);
        } else {
            pages.put(lot);
        }
        let overdraft = self.settle_into(&mut changes);
        (changes, overdraft)
    }

    /// Repays overdraft and nets the draws into an entry's changes; returns the overdraft's change.
    fn settle_into(&mut self, changes: &mut LotChanges) -> Credits {
        let mut repaid = Credits::ZERO;
        for draw in self.settle_overdraft() {
            change(changes, &draw.grant_id, draw.source, draw.amount.negated());
            repaid = more(repaid, draw.amount);
        }
        repaid.negated()
    }

    /// Gives the open period's allowance.
    fn give_allowance(&mut self, now: Time, event_id: &EventId) {
        let offset = self.stamp().offset;
        let (core, _, applied) = self.parts();
        let amount = core.plan.allowance;
        let lot = Lot {
            grant_id: period_lot_id("plan", core.period.index),
            expires_at: Some(core.period.ends_at),
            ..new_lot(LotSource::Plan, amount, now, event_id, (offset, applied.next_seq()))
        };
        core.figures.added = more(core.figures.added, amount);
        core.figures.granted = more(core.figures.granted, amount);
        core.totals.granted = more(core.totals.granted, amount);
        let (changes, overdraft) = self.put_lot(lot);
        if amount.is_positive() {
            self.book(EntryType::Granted, event_id.clone(), changes, overdraft);
        }
    }
}

/// When and where an entry is booked.
struct Stamp {
    recorded_at: Time,
    occurred_at: Time,
    offset: i64,
}

/// Nets a change of a lot into an entry's list.
fn change(changes: &mut LotChanges, grant_id: &Id, source: LotSource, amount: Credits) {
    match changes.iter_mut().find(|change| change.grant_id == *grant_id) {
        Some(change) => change.amount = more(change.amount, amount),
        None => changes.push(LotChange { grant_id: grant_id.clone(), source, amount }),
    }
}

/// A lot with what its source implies; `place` is the log offset and order of its making.
fn new_lot(source: LotSource, amount: Credits, now: Time, event_id: &EventId, place: (i64, i32)) -> Lot {
    Lot {
        grant_id: Id::new("lot").expect("a well-formed id"),
        source,
        amount,
        remaining: amount,
        lapsed: Credits::ZERO,
        refunded: Credits::ZERO,
        priority: default_priority(source),
        effective_at: now,
        expires_at: None,
        granted_at: now,
        voided_at: None,
        event_id: event_id.clone(),
        payment_id: None,
        reason: None,
        offset: place.0,
        seq: place.1,
    }
}

fn period_lot_id(kind: &str, index: i64) -> Id {
    Id::new(&format!("{kind}:{index}")).expect("a kind and a number are a well-formed id")
}

/// One instant that is crossed.
struct Crossing<'a> {
    core: &'a mut Core,
    pages: &'a mut Pages,
    offset: i64,
    at: Time,
    applied: &'a mut Applied,
}

impl Booking for Crossing<'_> {
    fn parts(&mut self) -> (&mut Core, &mut Pages, &mut Applied) {
        (self.core, self.pages, self.applied)
    }

    fn stamp(&self) -> Stamp {
        Stamp { recorded_at: self.at, occurred_at: self.at, offset: self.offset }
    }
}

impl Crossing<'_> {
    fn seen_by(&self, observer: &mut impl Observer, event_id: &EventId, adds: bool) {
        observer.after(self.core, &Moment { at: self.at, event_id, applied: None, adds });
    }

    /// Ends a period and begins the next.
    fn boundary(&mut self, observer: &mut impl Observer) {
        let index = self.core.next_period().1.index;
        let event_id = derive::reset_id(&self.core.account, index);
        let rolled_over = self.close_period_lots(&event_id);
        for id in self.core.lots.ending(self.at) {
            self.expire(&id, Credits::ZERO, &event_id);
        }
        let figures = std::mem::take(&mut self.core.figures);
        self.applied.closed.push(ClosedPeriod { period: self.core.period, figures, rolled_over });

        let (periods, period) = self.core.next_period();
        if let Some(plan) = self.core.next_plan.take() {
            self.core.plan = plan;
        }
        self.core.periods = periods;
        self.core.period = period;
        if rolled_over.is_positive() {
            self.roll_in(rolled_over, &event_id);
        }
        if self.core.overdraft_policy == OverdraftPolicy::ForgiveAtReset {
            self.forgive(&event_id);
        }
        self.core.figures.carried_in = self.core.settled();
        self.give_allowance(self.at, &event_id);
        self.seen_by(observer, &event_id, true);
    }

    /// Closes plan and rollover lots and returns what rolls over. What expires is what would have burned first.
    fn close_period_lots(&mut self, event_id: &EventId) -> Credits {
        let ids: Vec<(Id, Credits)> = self
            .core
            .lots
            .iter()
            .filter(|lot| lot.is_of_plan() && lot.expires_at.is_some_and(|end| end <= self.at))
            .map(|lot| (lot.grant_id.clone(), lot.remaining))
            .collect();
        let unused = ids.iter().fold(Credits::ZERO, |sum, (_, remaining)| more(sum, *remaining));
        let plan = &self.core.plan;
        let rolled_over = match plan.rollover.mode {
            RolloverMode::None => Credits::ZERO,
            RolloverMode::Capped => unused.min(plan.rollover.cap.unwrap_or(plan.allowance)),
            RolloverMode::Unlimited => unused,
        };
        let mut to_expire = less(unused, rolled_over);
        for (id, remaining) in ids {
            let expired = remaining.min(to_expire);
            to_expire = less(to_expire, expired);
            self.expire(&id, less(remaining, expired), event_id);
        }
        rolled_over
    }

    /// Closes a lot: `rolled_out` of it goes on, the rest expires.
    fn expire(&mut self, id: &Id, rolled_out: Credits, event_id: &EventId) {
        let waiting = self.core.lots.is_waiting(id);
        let Some(mut lot) = self.core.lots.remove(id) else { return };
        let expired = less(lot.remaining, rolled_out);
        lot.remaining = Credits::ZERO;
        lot.lapsed = more(lot.lapsed, expired);
        let source = lot.source;
        self.pages.touched.insert(id.clone());
        self.pages.put(lot);
        if waiting {
            return;
        }
        // Both parts have left by now, so the first line's balance is put right by what the second takes.
        if expired.is_positive() {
            self.core.figures.expired = more(self.core.figures.expired, expired);
            self.core.totals.expired = more(self.core.totals.expired, expired);
            self.book_out(EntryType::Expired, id, source, expired, event_id);
            if let Some(entry) = self.applied.entries.last_mut() {
                entry.balance_after = more(entry.balance_after, rolled_out);
            }
        }
        if rolled_out.is_positive() {
            self.core.totals.rolled_out = more(self.core.totals.rolled_out, rolled_out);
            self.book_out(EntryType::RolledOut, id, source, rolled_out, event_id);
        }
    }

    fn book_out(
        &mut self,
        entry_type: EntryType,
        id: &Id,
        source: LotSource,
        amount: Credits,
        event_id: &EventId,
    ) {
        let mut changes = LotChanges::new();
        change(&mut changes, id, source, amount.negated());
        self.book(entry_type, event_id.clone(), changes, Credits::ZERO);
    }

    fn roll_in(&mut self, amount: Credits, event_id: &EventId) {
        let lot = Lot {
            grant_id: period_lot_id("rollover", self.core.period.index),
            expires_at: Some(self.core.period.ends_at),
            ..new_lot(LotSource::Rollover, amount, self.at, event_id, (self.offset, self.applied.next_seq()))
        };
        self.core.figures.granted = more(self.core.figures.granted, amount);
        self.core.totals.rolled_in = more(self.core.totals.rolled_in, amount);
        let (changes, overdraft) = self.put_lot(lot);
        self.book(EntryType::RolledIn, event_id.clone(), changes, overdraft);
    }

    fn forgive(&mut self, event_id: &EventId) {
        let forgiven = self.core.overdraft.forgive();
        if forgiven.is_positive() {
            self.core.totals.adjusted = more(self.core.totals.adjusted, forgiven);
            self.book(EntryType::Adjusted, event_id.clone(), LotChanges::new(), forgiven.negated());
        }
    }

    /// Closes the lots that end here, in burn order.
    fn end_lots(&mut self, observer: &mut impl Observer) {
        let ending = self.core.lots.ending(self.at);
        if ending.is_empty() {
            return;
        }
        let event_id = derive::tick_id(&self.core.account, self.at);
        for id in ending {
            self.expire(&id, Credits::ZERO, &event_id);
            self.seen_by(observer, &event_id, false);
        }
    }

    /// Lets the lots count that start here.
    fn start_lots(&mut self, observer: &mut impl Observer) {
        for id in self.core.lots.starting(self.at) {
            let Some(lot) = self.core.lots.remove(&id) else { continue };
            let event_id = lot.event_id.clone();
            self.core.figures.added = more(self.core.figures.added, lot.amount);
            self.core.figures.granted = more(self.core.figures.granted, lot.amount);
            self.core.totals.granted = more(self.core.totals.granted, lot.amount);
            let (changes, overdraft) = self.put_lot(lot);
            self.book(EntryType::Granted, event_id.clone(), changes, overdraft);
            self.seen_by(observer, &event_id, true);
        }
    }
}

/// One event being applied.
struct Step<'a> {
    core: &'a mut Core,
    pages: &'a mut Pages,
    fact: &'a Fact,
    applied: &'a mut Applied,
}

impl Booking for Step<'_> {
    fn parts(&mut self) -> (&mut Core, &mut Pages, &mut Applied) {
        (self.core, self.pages, self.applied)
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            recorded_at: self.core.ledger_time,
            occurred_at: self.fact.event.occurred_at,
            offset: self.fact.offset,
        }
    }
}

/// Outer: a page is missing. Inner: a rule refuses.
type Decision = Result<Result<(), Reason>, Missing>;

impl Step<'_> {
    fn use_credits(&mut self, usage: &Usage) -> Result<(), Reason> {
        let credits = usage.credits.filter(|credits| !credits.is_negative()).ok_or(Reason::UnpricedUsage)?;
        let (draws, line) = self.take(credits, true);
        let core = &mut *self.core;
        core.figures.used = more(core.figures.used, credits);
        core.totals.consumed = more(core.totals.consumed, credits);
        core.totals.turnover = more(core.totals.turnover, credits);
        let taking =
            Taking { event: self.fact.event.clone(), period_index: core.period.index, credits, draws, line };
        self.applied.usage = Some(UsageChange { sign: 1, taking: Arc::new(taking) });
        Ok(())
    }

    /// Gives a usage's credits back to the lots they came from and cancels what is left of its overdraft.
    fn reverse(&mut self, reversal: &ReverseUsage) -> Decision {
        let key = dedupe_key(&self.core.account, &reversal.source, &reversal.event_id);
        let missing = || Missing::Event(reversal.source.clone(), reversal.event_id.clone());
        let Some(seen) = self.pages.seen.get(&key).ok_or_else(missing)? else {
            return Ok(Err(Reason::EventUnknown));
        };
        if seen.reversed {
            return Ok(Err(Reason::AlreadyReversed));
        }
        let Some(taking) = seen.taking.clone() else { return Ok(Err(Reason::EventUnknown)) };
        let returns = self.returns_of(&taking)?;
        let amount = self.undo(&taking, returns);

        let core = &mut *self.core;
        core.totals.consumed = less(core.totals.consumed, amount);
        if taking.period_index == core.period.index {
            core.figures.used = less(core.figures.used, taking.credits);
            self.applied.usage = Some(UsageChange { sign: -1, taking });
        } else {
            core.figures.added = more(core.figures.added, amount);
        }
        self.note_reversed(key);
        Ok(Ok(()))
    }

    fn note_reversed(&mut self, key: DedupeKey) {
        if let Some(Some(seen)) = self.pages.seen.get_mut(&key) {
            seen.reversed = true;
        }
        self.applied.reversed = Some(key);
    }

    /// Returns a taking's credits to lots, cancels what is left of its overdraft, and books both; returns what came back.
    fn undo(&mut self, taking: &Taking, returns: SmallVec<[(Id, Credits); 2]>) -> Credits {
        let is_usage = matches!(taking.event.data, Data::UsageRecorded(_));
        let mut changes = LotChanges::new();
        for (grant_id, amount) in returns {
            self.give_back(&grant_id, amount, is_usage, &mut changes);
        }
        let cancelled = taking.line.map_or(Credits::ZERO, |line| self.core.overdraft.cancel(&line));
        let repaid = self.settle_into(&mut changes);
        let overdraft = less(repaid, cancelled);
        self.book(EntryType::Reversed, self.fact.event.id.clone(), changes, overdraft)
    }

    /// What goes back to which lot: what each gave, and what it repaid of the taking's overdraft. Sees to it that
    /// every lot is at hand.
    fn returns_of(&self, taking: &Taking) -> Result<SmallVec<[(Id, Credits); 2]>, Missing> {
        let mut returns: SmallVec<[(Id, Credits); 2]> =
            taking.draws.iter().map(|draw| (draw.grant_id.clone(), draw.amount)).collect();
        if let Some(line) = taking.line {
            let covered = self.pages.covered.iter().any(|c| c.start <= line.start && line.end <= c.end);
            if !covered {
                return Err(Missing::Repayments(line));
            }
            for repayment in self.pages.repayments.range(..line.end).map(|(_, repayment)| repayment) {
                if let Some(both) = repayment.stretch.overlap(&line) {
                    returns.push((repayment.grant_id.clone(), both.length()));
                }
            }
        }
        for (grant_id, _) in &returns {
            if self.core.lots.get(grant_id).is_none() {
                self.pages.lot(grant_id)?;
            }
        }
        Ok(returns)
    }

    /// Returns credits to an open lot; those of a closed one count as lapsed.
    fn give_back(&mut self, grant_id: &Id, amount: Credits, is_usage: bool, changes: &mut LotChanges) {
        let now = self.core.ledger_time;
        let in_core = self.core.lots.remove(grant_id);
        let Some(mut lot) = in_core.or_else(|| self.pages.lots.get(grant_id).cloned().flatten()) else {
            return;
        };
        if is_usage && lot.is_paid() {
            self.core.totals.spent = less(self.core.totals.spent, amount);
        }
        self.pages.touched.insert(grant_id.clone());
        if lot.is_closed(now) {
            lot.lapsed = more(lot.lapsed, amount);
            self.pages.put(lot);
        } else {
            lot.remaining = more(lot.remaining, amount);
            change(changes, grant_id, lot.source, amount);
            self.core.lots.insert(lot, now);
        }
    }

    fn grant(&mut self, grant: &Grant) -> Decision {
        let now = self.core.ledger_time;
        if is_fold_lot(&grant.grant_id) {
            return Ok(Err(Reason::GrantReserved));
        }
        if self.lot_exists(&grant.grant_id)? {
            return Ok(Err(Reason::GrantExists));
        }
        if grant.expires_at.is_some_and(|expires| expires <= now.max(grant.effective_at.unwrap_or(now))) {
            return Ok(Err(Reason::GrantExpired));
        }
        if self.core.lots.len() >= OPEN_LOTS_MAX {
            return Ok(Err(Reason::TooManyLots));
        }
        let source = grant.source.into();
        let lot = Lot {
            grant_id: grant.grant_id.clone(),
            priority: grant.priority.unwrap_or_else(|| default_priority(source)),
            effective_at: grant.effective_at.unwrap_or(now),
            expires_at: grant.expires_at,
            reason: grant.reason.clone(),
            ..self.new_lot(source, grant.amount)
        };
        if lot.effective_at > now {
            self.pages.touched.insert(lot.grant_id.clone());
            self.core.lots.insert(lot, now);
        } else {
            self.core.totals.granted = more(self.core.totals.granted, grant.amount);
            self.add_lot(EntryType::Granted, lot);
        }
        Ok(Ok(()))
    }

    fn purchase(&mut self, purchase: &Purchase) -> Decision {
        let payment = &purchase.payment_id;
        let known = self.pages.payments.get(payment).ok_or_else(|| Missing::Payment(payment.clone()))?;
        if known.is_some() {
            return Ok(Err(Reason::PaymentExists));
        }
        if is_fold_lot(payment) {
            return Ok(Err(Reason::GrantReserved));
        }
        if self.lot_exists(payment)? {
            return Ok(Err(Reason::GrantExists));
        }
        let lot = self.paid_lot(LotSource::Purchase, payment, payment, purchase.amount);
        self.core.totals.purchased = more(self.core.totals.purchased, purchase.amount);
        self.core.top_ups.start_afresh();
        self.add_lot(EntryType::Purchased, lot);
        Ok(Ok(()))
    }

    /// Credits an attempt that was paid, whatever was said of it before.
    fn top_up(&mut self, top_up: &TopUp) -> Decision {
        let (attempt, payment) = (&top_up.attempt_id, &top_up.payment_id);
        let known = self.pages.payments.get(payment).ok_or_else(|| Missing::Payment(payment.clone()))?;
        if known.is_some() || self.is_paid_lot(attempt)? {
            return Ok(Err(Reason::PaymentExists));
        }
        if is_fold_lot(attempt) {
            return Ok(Err(Reason::GrantReserved));
        }
        if self.lot_exists(attempt)? {
            return Ok(Err(Reason::GrantExists));
        }
        let lot = self.paid_lot(LotSource::TopUp, attempt, payment, top_up.amount);
        let core = &mut *self.core;
        core.totals.topped_up = more(core.totals.topped_up, top_up.amount);
        core.top_ups.succeed(attempt, top_up.amount, core.period.index);
        self.add_lot(EntryType::ToppedUp, lot);
        Ok(Ok(()))
    }

    /// A lot that was paid for, from now on, and its payment.
    fn paid_lot(&mut self, source: LotSource, id: &Id, payment: &Id, amount: Credits) -> Lot {
        let expires_at = match self.core.plan.pack_expiry {
            PackExpiry::PeriodEnd => Some(self.core.period.ends_at),
            PackExpiry::Never => None,
        };
        self.pages.payments.insert(payment.clone(), Some(id.clone()));
        Lot {
            grant_id: id.clone(),
            expires_at,
            payment_id: Some(payment.clone()),
            ..self.new_lot(source, amount)
        }
    }

    /// Takes the number of an attempt, and opens it where it is still wanted.
    fn start_top_up(&mut self, start: &StartTopUp) -> Result<(), Reason> {
        let number = self.core.top_ups.asked + 1;
        if start.attempt_id != derive::attempt_id(&self.core.account, number) {
            return Err(Reason::AttemptOutOfOrder);
        }
        let StartTopUp { attempt_id, amount, payment_method } = start.clone();
        let attempt = Attempt { attempt_id, number, amount, payment_method };
        let is_wanted = top_up::want(self.core) == Want::Start(attempt.clone());
        let top_ups = &mut self.core.top_ups;
        top_ups.asked = number;
        if !is_wanted {
            return Err(Reason::TopUpNotDue);
        }
        top_ups.last = Some(attempt);
        top_ups.is_open = true;
        Ok(())
    }

    fn fail_top_up(&mut self, failure: &FailTopUp) -> Result<(), Reason> {
        if !self.core.top_ups.has_open(&failure.attempt_id) {
            return Err(Reason::AttemptNotOpen);
        }
        self.core.top_ups.fail(self.core.ledger_time);
        Ok(())
    }

    /// A refusal that comes after its period or its settings says nothing of those that stand now.
    fn refuse_top_up(&mut self, refusal: &RefuseTopUp) -> Result<(), Reason> {
        if self.fact.event.id == top_up::refused_id(self.core, refusal.reason) {
            self.core.top_ups.refuse(self.core.period.index, refusal.reason);
        }
        Ok(())
    }

    /// A signed correction: a new lot, or a taking.
    fn adjust(&mut self, adjustment: &Adjust) -> Result<(), Reason> {
        let event_id = self.fact.event.id.clone();
        let amount = adjustment.amount;
        if amount.is_positive() {
            if self.core.lots.len() >= OPEN_LOTS_MAX {
                return Err(Reason::TooManyLots);
            }
            let grant_id = Id::new(event_id.as_str()).map_err(|_| Reason::GrantUnknown)?;
            let reason = Some(adjustment.reason.clone());
            let lot = Lot { grant_id, reason, ..self.new_lot(LotSource::Adjustment, amount) };
            self.core.totals.adjusted = more(self.core.totals.adjusted, amount);
            self.add_lot(EntryType::Adjusted, lot);
        } else {
            let taken = amount.negated();
            self.core.totals.adjusted = less(self.core.totals.adjusted, taken);
            self.core.figures.added = less(self.core.figures.added, taken);
            let (draws, line) = self.take(taken, false);
            self.book_taking(EntryType::Adjusted, draws, line);
        }
        Ok(())
    }

    fn void(&mut self, void: &VoidGrant) -> Decision {
        let now = self.core.ledger_time;
        let id = &void.grant_id;
        let lot = match self.core.lots.get(id) {
            Some(lot) => lot,
            None => match self.pages.lot(id)? {
                Some(lot) => lot,
                None => return Ok(Err(Reason::GrantUnknown)),
            },
        };
        if lot.is_of_plan() || lot.is_closed(now) {
            return Ok(Err(Reason::GrantNotVoidable));
        }
        let waiting = self.core.lots.is_waiting(id);
        let mut lot = self.core.lots.remove(id).unwrap_or_else(|| lot_from(self.pages, id));
        let taken = std::mem::take(&mut lot.remaining);
        lot.voided_at = Some(now);
        lot.lapsed = more(lot.lapsed, taken);
        let source = lot.source;
        self.pages.touched.insert(id.clone());
        self.pages.put(lot);
        if taken.is_positive() && !waiting {
            self.core.figures.added = less(self.core.figures.added, taken);
            self.core.totals.voided = more(self.core.totals.voided, taken);
            let mut changes = LotChanges::new();
            change(&mut changes, id, source, taken.negated());
            self.book(EntryType::Voided, self.fact.event.id.clone(), changes, Credits::ZERO);
        }
        Ok(Ok(()))
    }

    fn refund(&mut self, refund: &Refund) -> Decision {
        self.take_payment(&refund.payment_id, refund.amount)
    }

    /// Takes a payment back: first what remains of its lot, then what lapsed of it (nothing to take), then what was
    /// spent, by the rule for taking.
    fn take_payment(&mut self, payment: &Id, amount: Credits) -> Decision {
        let known = self.pages.payments.get(payment).ok_or_else(|| Missing::Payment(payment.clone()))?;
        let Some(id) = known.clone() else { return Ok(Err(Reason::PaymentUnknown)) };
        let lot = match self.core.lots.get(&id) {
            Some(lot) => lot,
            None => match self.pages.lot(&id)? {
                Some(lot) => lot,
                None => return Ok(Err(Reason::PaymentUnknown)),
            },
        };
        if more(lot.refunded, amount) > lot.amount {
            return Ok(Err(Reason::RefundExceedsPayment));
        }
        let mut lot = self.core.lots.remove(&id).unwrap_or_else(|| lot_from(self.pages, &id));
        let remaining = amount.min(lot.remaining);
        let lapsed = less(amount, remaining).min(lot.lapsed);
        let spent = less(less(amount, remaining), lapsed);
        lot.remaining = less(lot.remaining, remaining);
        lot.lapsed = less(lot.lapsed, lapsed);
        lot.refunded = more(lot.refunded, amount);
        let own = crate::lot::Draw { grant_id: id.clone(), source: lot.source, amount: remaining };
        self.pages.touched.insert(id);
        if lot.remaining.is_positive() {
            let now = self.core.ledger_time;
            self.core.lots.insert(lot, now);
        } else {
            self.pages.put(lot);
        }
        let (mut draws, line) = self.take(spent, false);
        if own.amount.is_positive() {
            draws.insert(0, own);
        }
        let moved = self.book_taking(EntryType::Refunded, draws, line).negated();
        self.core.figures.added = less(self.core.figures.added, moved);
        self.core.totals.refunded = more(self.core.totals.refunded, moved);
        Ok(Ok(()))
    }

    /// Undoes what a dispute took, which is decided for the account.
    fn win(&mut self, dispute: &Dispute) -> Decision {
        let (source, opened) = opening_of(&self.core.account, dispute);
        let key = dedupe_key(&self.core.account, &source, &opened);
        let seen = self.pages.seen.get(&key).ok_or(Missing::Event(source, opened))?;
        let (taking, is_won) = match seen {
            Some(Seen { taking: Some(taking), reversed, .. }) => (taking.clone(), *reversed),
            _ => return Ok(Err(Reason::DisputeUnknown)),
        };
        let Data::DisputeOpened(Dispute { payment_id, .. }) = &taking.event.data else {
            return Ok(Err(Reason::DisputeUnknown));
        };
        if *payment_id != dispute.payment_id {
            return Ok(Err(Reason::DisputeUnknown));
        }
        if is_won {
            return Ok(Err(Reason::AlreadyReversed));
        }
        let payment =
            self.pages.payments.get(payment_id).ok_or_else(|| Missing::Payment(payment_id.clone()))?;
        let Some(id) = payment.clone() else { return Ok(Err(Reason::PaymentUnknown)) };
        if !self.lot_exists(&id)? {
            return Ok(Err(Reason::PaymentUnknown));
        }
        let returns = self.returns_of(&taking)?;
        self.uncontest(&id, &taking);
        let amount = self.undo(&taking, returns);
        self.core.figures.added = more(self.core.figures.added, amount);
        self.core.totals.refunded = less(self.core.totals.refunded, amount);
        self.note_reversed(key);
        Ok(Ok(()))
    }

    /// Puts back what a dispute noted in its payment's lot: what was paid back of it, and what had lapsed.
    fn uncontest(&mut self, id: &Id, taking: &Taking) {
        let mut lot = self.core.lots.remove(id).unwrap_or_else(|| lot_from(self.pages, id));
        let moved = taking.draws.iter().fold(Credits::ZERO, |sum, draw| more(sum, draw.amount));
        let moved = more(moved, taking.line.map_or(Credits::ZERO, |line| line.length()));
        lot.lapsed = more(lot.lapsed, less(taking.credits, moved));
        lot.refunded = less(lot.refunded, taking.credits);
        self.pages.touched.insert(id.clone());
        if lot.remaining.is_positive() {
            self.core.lots.insert(lot, self.core.ledger_time);
        } else {
            self.pages.put(lot);
        }
    }

    fn change_account(&mut self, change: &ChangeAccount) -> Result<(), Reason> {
        if let Some(name) = &change.name {
            self.core.name = Some(name.clone());
        }
        if let Some(policy) = change.overdraft {
            self.core.overdraft_policy = policy;
        }
        if let Some(threshold) = change.low_balance_threshold {
            self.core.low_balance_threshold = threshold;
        }
        Ok(())
    }

    /// Changes the plan at once or at the next boundary; its schedule waits for the boundary either way.
    fn change_plan(&mut self, change: &ChangePlan) -> Decision {
        let plan = Plan::of(&change.plan, self.core.plan.schedule.anchor);
        if change.at.unwrap_or_default() == ChangeAt::NextPeriod {
            self.core.next_plan = Some(plan);
            return Ok(Ok(()));
        }
        if plan.allowance != self.core.plan.allowance {
            self.move_allowance(plan.allowance)?;
        }
        self.core.plan = plan;
        self.core.next_plan = None;
        Ok(Ok(()))
    }

    /// Moves the open period's plan lot by the difference of the allowances, never below zero remaining.
    fn move_allowance(&mut self, allowance: Credits) -> Result<(), Missing> {
        let now = self.core.ledger_time;
        let id = period_lot_id("plan", self.core.period.index);
        if self.core.lots.get(&id).is_none() {
            self.pages.lot(&id)?;
        }
        let mut lot = self.core.lots.remove(&id).unwrap_or_else(|| lot_from(self.pages, &id));
        let difference = less(allowance, self.core.plan.allowance);
        let moved = difference.max(lot.remaining.negated());
        lot.amount = more(lot.amount, difference).max(Credits::ZERO);
        lot.remaining = more(lot.remaining, moved);
        let mut changes = LotChanges::new();
        change(&mut changes, &id, lot.source, moved);
        self.pages.touched.insert(id);
        if lot.remaining.is_positive() {
            self.core.lots.insert(lot, now);
        } else {
            self.pages.put(lot);
        }
        self.core.figures.added = more(self.core.figures.added, moved);
        self.core.totals.adjusted = more(self.core.totals.adjusted, moved);
        let overdraft = self.settle_into(&mut changes);
        if !moved.is_zero() {
            self.book(EntryType::Adjusted, self.fact.event.id.clone(), changes, overdraft);
        }
        Ok(())
    }

    /// The boundary was crossed before any event at or after it, so a reset only shows that it was.
    fn reset(&mut self, reset: &ResetPeriod) -> Result<(), Reason> {
        if reset.index > self.core.period.index { Err(Reason::PeriodNotBegun) } else { Ok(()) }
    }

    fn set_org_alert(&mut self, alert: &SetOrgAlert) -> Result<(), Reason> {
        let alerts = &mut self.core.org_alerts;
        if alerts.len() >= ORG_ALERTS_MAX && !alerts.contains_key(&alert.alert_id) {
            return Err(Reason::TooManyAlerts);
        }
        alerts.insert(alert.alert_id.clone(), OrgAlert::from(alert));
        Ok(())
    }

    fn remove_org_alert(&mut self, removal: &RemoveOrgAlert) -> Result<(), Reason> {
        let removed = self.core.org_alerts.remove(&removal.alert_id);
        removed.map(drop).ok_or(Reason::AlertUnknown)
    }

    fn set_user_alert(&mut self, alert: &SetUserAlert) -> Result<(), Reason> {
        self.core.user_alert = Some(UserAlert::of(alert, self.core.user_alert.as_ref()));
        Ok(())
    }

    fn is_paid_lot(&self, id: &Id) -> Result<bool, Missing> {
        match self.core.lots.get(id) {
            Some(lot) => Ok(lot.is_paid()),
            None => Ok(self.pages.lot(id)?.is_some_and(Lot::is_paid)),
        }
    }

    fn lot_exists(&self, id: &Id) -> Result<bool, Missing> {
        Ok(self.core.lots.get(id).is_some() || self.pages.lot(id)?.is_some())
    }

    fn new_lot(&self, source: LotSource, amount: Credits) -> Lot {
        let place = (self.fact.offset, self.applied.next_seq());
        new_lot(source, amount, self.core.ledger_time, &self.fact.event.id, place)
    }

    /// Adds a lot that counts at once, with its entry.
    fn add_lot(&mut self, entry_type: EntryType, lot: Lot) {
        self.core.figures.added = more(self.core.figures.added, lot.amount);
        self.core.figures.granted = more(self.core.figures.granted, lot.amount);
        let (changes, overdraft) = self.put_lot(lot);
        self.book(entry_type, self.fact.event.id.clone(), changes, overdraft);
    }

    /// Books what a taking other than usage took, and keeps its draws for a later undoing.
    fn book_taking(&mut self, entry_type: EntryType, draws: Draws, line: Option<Stretch>) -> Credits {
        let mut changes = LotChanges::new();
        for draw in &draws {
            change(&mut changes, &draw.grant_id, draw.source, draw.amount.negated());
        }
        let overdraft = line.map_or(Credits::ZERO, |line| line.length());
        self.applied.draws = draws;
        self.applied.line = line;
        self.book(entry_type, self.fact.event.id.clone(), changes, overdraft)
    }
}

/// Says whether the fold itself makes lots of this id.
fn is_fold_lot(id: &Id) -> bool {
    id.as_str().starts_with("plan:") || id.as_str().starts_with("rollover:")
}

/// A lot whose page has been checked to be there.
fn lot_from(pages: &Pages, id: &Id) -> Lot {
    pages.lots.get(id).cloned().flatten().expect("the lot's page was looked at before")
}
