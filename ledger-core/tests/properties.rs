//! Properties of any history: conservation, the same result however the log is cut, and a naive model's figures.

mod story;

use std::collections::BTreeMap;

use ledger_core::event::{
    Adjust, ChangeAt, ChangePlan, Data, Grant, OverdraftPolicy, PackExpiry, PlanBody, Purchase, Refund,
    RolloverMode, Usage, VoidGrant,
};
use ledger_core::fold::Fact;
use ledger_core::fold::memory::Memory;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::AccountId;
use proptest::prelude::*;
use story::{ACCOUNT, Story, time};

/// One line of a random history. Small numbers, so that names meet.
#[derive(Debug, Clone)]
enum Line {
    Use { credits: u32, id: u8 },
    Reverse { id: u8 },
    Grant { id: u8, amount: u32, priority: u8, starts: Option<u32>, lasts: Option<u32> },
    Void { id: u8 },
    Adjust { amount: i32 },
    Buy { id: u8, amount: u32 },
    Refund { id: u8, amount: u32 },
    Replan { allowance: u32, next: bool, rollover: u8, packs_end: bool },
    Wait { hours: u32 },
    Forgive { on: bool },
}

fn line() -> impl Strategy<Value = Line> {
    prop_oneof![
        8 => (0..60_u32, 0..40_u8).prop_map(|(credits, id)| Line::Use { credits, id }),
        3 => (0..40_u8).prop_map(|id| Line::Reverse { id }),
        3 => (0..12_u8, 1..50_u32, 0..50_u8, proptest::option::of(1..900_u32), proptest::option::of(1..900_u32))
            .prop_map(|(id, amount, priority, starts, lasts)| Line::Grant { id, amount, priority, starts, lasts }),
        2 => (0..12_u8).prop_map(|id| Line::Void { id }),
        2 => prop_oneof![-40..0_i32, 1..40_i32].prop_map(|amount| Line::Adjust { amount }),
        2 => (0..6_u8, 1..60_u32).prop_map(|(id, amount)| Line::Buy { id, amount }),
        2 => (0..6_u8, 1..40_u32).prop_map(|(id, amount)| Line::Refund { id, amount }),
        1 => (0..40_u32, any::<bool>(), 0..3_u8, any::<bool>())
            .prop_map(|(allowance, next, rollover, packs_end)| Line::Replan { allowance, next, rollover, packs_end }),
        5 => (1..600_u32).prop_map(|hours| Line::Wait { hours }),
        1 => any::<bool>().prop_map(|on| Line::Forgive { on }),
    ]
}

/// One plan, its usage and its changes: nothing else hides what remains of it.
fn line_of_a_plan() -> impl Strategy<Value = Line> {
    prop_oneof![
        4 => (0..12_u32, 0..20_u8).prop_map(|(credits, id)| Line::Use { credits, id }),
        3 => (0..20_u8).prop_map(|id| Line::Reverse { id }),
        3 => (0..20_u32).prop_map(|allowance| Line::Replan { allowance, next: false, rollover: 0, packs_end: false }),
        1 => (100..900_u32).prop_map(|hours| Line::Wait { hours }),
    ]
}

const ROLLOVERS: [&str; 3] =
    [r#"{"mode":"none"}"#, r#"{"mode":"capped","cap":"15"}"#, r#"{"mode":"unlimited"}"#];

fn play(story: &mut Story, line: &Line) {
    match line {
        Line::Use { credits, id } => drop(story.play(&format!("use {credits} u{id}"))),
        Line::Reverse { id } => drop(story.play(&format!("reverse u{id}"))),
        Line::Grant { id, amount, priority, starts, lasts } => {
            let starts_at = story.now.plus_seconds(starts.map_or(0, |hours| i64::from(hours) * 3600));
            let ends_at = lasts.map(|hours| starts_at.plus_seconds(i64::from(hours) * 3600));
            let mut fields = format!(r#""priority":{priority},"effective_at":"{starts_at}""#);
            if let Some(ends_at) = ends_at {
                fields.push_str(&format!(r#","expires_at":"{ends_at}""#));
            }
            story.play(&format!("grant g{id} {amount} {fields}"));
        }
        Line::Void { id } => drop(story.play(&format!("void g{id}"))),
        Line::Adjust { amount } => drop(story.play(&format!("adjust {amount}"))),
        Line::Buy { id, amount } => drop(story.play(&format!("buy p{id} {amount}"))),
        Line::Refund { id, amount } => drop(story.play(&format!("refund p{id} {amount}"))),
        Line::Replan { allowance, next, rollover, packs_end } => {
            let word = if *next { "replan-next" } else { "replan" };
            let packs = if *packs_end { "period_end" } else { "never" };
            let rollover = ROLLOVERS[usize::from(*rollover)];
            story.play(&format!(r#"{word} {allowance} "rollover":{rollover},"pack_expiry":"{packs}""#));
        }
        Line::Wait { hours } => {
            story.now = story.now.plus_seconds(i64::from(*hours) * 3600);
        }
        Line::Forgive { on } => {
            let policy = if *on { "forgive_at_reset" } else { "carry" };
            story.play(&format!(r#"change {{"overdraft":"{policy}"}}"#));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_history_conserves_credits_and_agrees_with_a_naive_model(lines in prop::collection::vec(line(), 1..80)) {
        let mut story = Story::new();
        let mut naive = Naive::default();
        story.play(r#"plan 20 "rollover":{"mode":"capped","cap":"15"}"#);
        naive.apply(&story.facts[0]);
        for line in &lines {
            let folded = story.facts.len();
            play(&mut story, line);
            story.facts[folded..].iter().for_each(|fact| naive.apply(fact));
            let core = story.account().core.as_ref().expect("an open account");
            prop_assert_eq!(core.conserved(), core.settled());
            prop_assert!(core.overdraft.total().is_zero() || core.lots.drawable().is_zero());
            prop_assert_eq!(story.shown(), naive.shown(), "after {:?}", line);
        }
        chains(&story)?;
    }

    #[test]
    fn no_order_of_plan_changes_and_reversals_brings_credits_twice(
        lines in prop::collection::vec(line_of_a_plan(), 1..60),
    ) {
        let mut story = Story::new();
        let mut naive = Naive::default();
        story.play("plan 10");
        naive.apply(&story.facts[0]);
        for line in &lines {
            let folded = story.facts.len();
            play(&mut story, line);
            story.facts[folded..].iter().for_each(|fact| naive.apply(fact));
            let core = story.account().core.as_ref().expect("an open account");
            prop_assert_eq!(core.conserved(), core.settled());
            prop_assert!(core.settled() <= core.plan.allowance, "{} after {:?}", core.settled(), line);
            prop_assert_eq!(story.shown(), naive.shown(), "after {:?}", line);
        }
        chains(&story)?;
    }

    #[test]
    fn however_the_log_is_cut_or_resent_the_rows_are_the_same(
        lines in prop::collection::vec(line(), 1..60),
        cuts in prop::collection::vec(1..9_usize, 1..60),
    ) {
        let mut story = Story::new();
        story.play("plan 20");
        for line in &lines {
            play(&mut story, line);
        }
        let mut cut = Memory::default();
        let mut applied = Vec::new();
        let mut rest: &[Fact] = &story.facts;
        for size in cuts.iter().chain(std::iter::repeat(&5)) {
            if rest.is_empty() {
                break;
            }
            let (batch, later) = rest.split_at((*size).min(rest.len()));
            applied.extend(cut.fold(batch));
            rest = later;
        }
        let account = &cut.accounts[&AccountId::new(ACCOUNT).expect("an id")];
        prop_assert_eq!(&account.core, &story.account().core);
        prop_assert_eq!(&account.lots, &story.account().lots);
        for (one, other) in applied.iter().zip(&story.applied) {
            prop_assert_eq!(one.outcome, other.outcome);
            prop_assert_eq!(&one.entries, &other.entries);
        }
        // A snapshot is the whole state.
        let core = story.account().core.clone().expect("an open account");
        let json = serde_json::to_string(&ledger_core::account::Snapshot::from(&core)).expect("JSON");
        let read: ledger_core::account::Snapshot = serde_json::from_str(&json).expect("a snapshot");
        prop_assert_eq!(ledger_core::account::Core::from(read), core);
    }
}

/// Every entry's balance is the one before it and its amount; amounts are what lots and overdraft moved.
fn chains(story: &Story) -> Result<(), TestCaseError> {
    let mut balance = ledger_core::value::credits::Credits::ZERO;
    for applied in &story.applied {
        for entry in &applied.entries {
            balance = balance.plus(entry.amount).expect("small");
            prop_assert_eq!(entry.balance_after, balance, "{:?}", entry);
        }
        if let Some(usage) = applied.usage.as_ref().filter(|usage| usage.sign > 0) {
            balance = balance.minus(usage.withdrawal.credits).expect("small");
        }
        prop_assert_eq!(applied.balance_after, balance);
    }
    Ok(())
}

impl Story {
    /// Lots with something left by id, overdraft, used, maximum, spent.
    fn shown(&self) -> String {
        let balance = self.balance();
        let lots: BTreeMap<_, _> = balance
            .lots
            .iter()
            .map(|lot| (lot.grant_id.to_string(), lot.remaining.units() / WHOLE))
            .collect();
        format!(
            "{lots:?} owes {} used {} maximum {} spent {}",
            balance.overdraft, balance.used, balance.period_maximum, balance.lifetime_spent
        )
    }
}

const WHOLE: i128 = 1_000_000_000;

/// The same rules, written as plainly as can be: lists, whole numbers, months in UTC from January 2026.
#[derive(Default)]
struct Naive {
    now: i64,
    month: i64,
    lots: Vec<NaiveLot>,
    debts: Vec<Debt>,
    withdrawals: BTreeMap<String, NaiveTaking>,
    ids: BTreeMap<String, String>,
    refunded: BTreeMap<String, i64>,
    plan: NaivePlan,
    next_plan: Option<NaivePlan>,
    forgive: bool,
    used: i64,
    maximum: i64,
    spent: i64,
}

#[derive(Clone, Default)]
struct NaivePlan {
    allowance: i64,
    rollover: Option<Option<i64>>,
    packs_end: bool,
}

#[derive(Clone, Debug)]
struct NaiveLot {
    id: String,
    rank: i64,
    paid: bool,
    of_plan: bool,
    amount: i64,
    left: i64,
    /// What was drawn of it, less what came back.
    drawn: i64,
    lapsed: i64,
    starts: i64,
    ends: Option<i64>,
    started: bool,
    closed: bool,
}

struct Debt {
    withdrawal: Option<String>,
    owed: i64,
}

#[derive(Default)]
struct NaiveTaking {
    credits: i64,
    month: i64,
    from: Vec<(String, i64)>,
    reversed: bool,
}

impl Naive {
    fn shown(&self) -> String {
        let lots: BTreeMap<_, _> = self
            .lots
            .iter()
            .filter(|lot| lot.left > 0)
            .map(|lot| (lot.id.clone(), i128::from(lot.left)))
            .collect();
        let owed: i64 = self.debts.iter().map(|debt| debt.owed).sum();
        format!("{lots:?} owes {owed} used {} maximum {} spent {}", self.used, self.maximum, self.spent)
    }

    fn month_start(month: i64) -> i64 {
        time(&format!("{:04}-{:02}-01T00:00:00Z", 2026 + month.div_euclid(12), month.rem_euclid(12) + 1))
            .micros()
    }

    fn settled(&self) -> i64 {
        let left: i64 = self.lots.iter().filter(|lot| lot.started).map(|lot| lot.left).sum();
        left - self.debts.iter().map(|debt| debt.owed).sum::<i64>()
    }

    fn advance(&mut self, to: i64) {
        loop {
            let boundary = Self::month_start(self.month + 1);
            let open = self.lots.iter().filter(|lot| !lot.closed && lot.left > 0);
            let next = open
                .flat_map(|lot| lot.ends.into_iter().chain((!lot.started).then_some(lot.starts)))
                .chain([boundary])
                .min()
                .expect("a boundary");
            if next > to {
                break;
            }
            self.now = next;
            if next == boundary {
                self.reset(boundary);
            } else {
                self.end_lots(next);
            }
            for at in self.burn_order(|lot| !lot.started && !lot.closed && lot.starts <= next) {
                let lot = &mut self.lots[at];
                lot.started = true;
                self.maximum += lot.amount;
                self.repay();
            }
        }
        self.now = self.now.max(to);
    }

    fn end_lots(&mut self, at: i64) {
        for lot in &mut self.lots {
            if !lot.closed && lot.ends.is_some_and(|ends| ends <= at) {
                lot.closed = true;
                lot.lapsed += lot.left;
                lot.left = 0;
            }
        }
    }

    fn reset(&mut self, boundary: i64) {
        let unused: i64 = self.lots.iter().filter(|lot| lot.of_plan).map(|lot| lot.left).sum();
        let rolled = match self.plan.rollover {
            None => 0,
            Some(None) => unused,
            Some(Some(cap)) => unused.min(cap),
        };
        self.end_lots(boundary);
        self.month += 1;
        if let Some(plan) = self.next_plan.take() {
            self.plan = plan;
        }
        let ends = Some(Self::month_start(self.month + 1));
        if rolled > 0 {
            self.add(NaiveLot {
                of_plan: true,
                ends,
                ..lot(&format!("rollover:{}", self.month), 10, rolled, boundary)
            });
        }
        if self.forgive {
            self.debts.clear();
        }
        self.used = 0;
        self.maximum = self.settled() + self.plan.allowance;
        self.add(NaiveLot {
            of_plan: true,
            ends,
            ..lot(&format!("plan:{}", self.month), 20, self.plan.allowance, boundary)
        });
    }

    fn add(&mut self, lot: NaiveLot) {
        self.lots.push(lot);
        self.repay();
    }

    fn burn_order(&self, wanted: impl Fn(&NaiveLot) -> bool) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.lots.len()).filter(|at| wanted(&self.lots[*at])).collect();
        order.sort_by_key(|at| {
            let lot = &self.lots[*at];
            (lot.rank, lot.ends.unwrap_or(i64::MAX), lot.paid, lot.starts, lot.id.clone())
        });
        order
    }

    /// Takes from lots in burn order; returns what each gave and what was short.
    fn draw(&mut self, mut wanted: i64) -> (Vec<(String, i64)>, i64) {
        let mut from = Vec::new();
        for at in self.burn_order(|lot| lot.started && lot.left > 0) {
            let taken = wanted.min(self.lots[at].left);
            if taken > 0 {
                self.lots[at].left -= taken;
                self.lots[at].drawn += taken;
                wanted -= taken;
                from.push((self.lots[at].id.clone(), taken));
            }
        }
        (from, wanted)
    }

    fn is_paid(id: &str) -> bool {
        id.starts_with('p') && !id.starts_with("plan")
    }

    /// Oldest debt first; what repays a usage's debt is noted as drawn by that usage.
    fn repay(&mut self) {
        while let Some(debt) = self.debts.first_mut() {
            if debt.owed == 0 {
                self.debts.remove(0);
                continue;
            }
            let (owed, withdrawal) = (debt.owed, debt.withdrawal.clone());
            let (from, short) = self.draw(owed);
            self.debts[0].owed = short;
            if from.is_empty() {
                break;
            }
            if let Some(withdrawal) = withdrawal {
                self.spent +=
                    from.iter().filter(|(id, _)| Self::is_paid(id)).map(|(_, amount)| amount).sum::<i64>();
                self.withdrawals.get_mut(&withdrawal).expect("a withdrawal").from.extend(from);
            }
        }
    }

    fn apply(&mut self, fact: &Fact) {
        let id = fact.event.id.to_string();
        if let Data::AccountOpened(opening) = &fact.event.data {
            self.plan = plan_of(&opening.plan);
            self.now = fact.event.recorded_at.micros();
            self.maximum = self.plan.allowance;
            let ends = Some(Self::month_start(1));
            self.add(NaiveLot { of_plan: true, ends, ..lot("plan:0", 20, self.plan.allowance, self.now) });
            return;
        }
        self.advance(fact.event.recorded_at.micros());
        let content = format!("{:?}", fact.content);
        if self.ids.contains_key(&id) {
            return;
        }
        self.ids.insert(id.clone(), content);
        match &fact.event.data {
            Data::UsageRecorded(usage) => self.record(usage, id),
            Data::UsageReversed(reversal) => self.reverse(reversal.event_id.as_str()),
            Data::CreditsGranted(grant) => self.grant(grant),
            Data::GrantVoided(void) => self.void(void),
            Data::CreditsAdjusted(adjustment) => self.adjust(adjustment, &id),
            Data::CreditsPurchased(purchase) => self.purchase(purchase),
            Data::CreditsRefunded(refund) => self.refund(refund),
            Data::PlanChanged(change) => self.change_plan(change),
            Data::AccountChanged(change) => {
                self.forgive = change.overdraft == Some(OverdraftPolicy::ForgiveAtReset);
            }
            Data::AccountOpened(_)
            | Data::AccountClosed(_)
            | Data::ClockAdvanced(_)
            | Data::PeriodReset(_)
            | Data::UserLimitSet(_)
            | Data::RefundFailed(_)
            | Data::LimitsSet(_)
            | Data::OrgAlertSet(_)
            | Data::OrgAlertRemoved(_)
            | Data::UserAlertSet(_)
            | Data::AutoTopUpSet(_)
            | Data::TopUpStarted(_)
            | Data::TopUpFailed(_)
            | Data::TopUpRefused(_)
            | Data::CreditsToppedUp(_)
            | Data::DisputeOpened(_)
            | Data::DisputeWon(_) => panic!("no such line: {:?}", fact.event.data),
        }
    }

    fn record(&mut self, usage: &Usage, id: String) {
        let credits = whole(usage.credits.expect("credits"));
        let (from, short) = self.draw(credits);
        self.used += credits;
        self.spent += from.iter().filter(|(id, _)| Self::is_paid(id)).map(|(_, amount)| amount).sum::<i64>();
        self.debts.push(Debt { withdrawal: Some(id.clone()), owed: short });
        self.withdrawals.insert(id, NaiveTaking { credits, month: self.month, from, reversed: false });
    }

    fn grant(&mut self, grant: &Grant) {
        let name = grant.grant_id.to_string();
        let starts = grant.effective_at.map_or(self.now, |at| at.micros());
        let ends = grant.expires_at.map(|at| at.micros());
        let late = ends.is_some_and(|ends| ends <= self.now.max(starts));
        if late || self.lots.iter().any(|lot| lot.id == name) {
            return;
        }
        let rank = i64::from(grant.priority.expect("a priority"));
        let started = starts <= self.now;
        let amount = whole(grant.amount);
        if started {
            self.maximum += amount;
        }
        self.add(NaiveLot { starts, ends, started, ..lot(&name, rank, amount, starts) });
    }

    fn void(&mut self, void: &VoidGrant) {
        let now = self.now;
        let found = self.lots.iter_mut().find(|lot| lot.id == void.grant_id.as_str());
        if let Some(lot) = found.filter(|lot| !lot.closed && lot.ends.is_none_or(|ends| ends > now)) {
            if lot.started {
                self.maximum -= lot.left;
            }
            lot.lapsed += lot.left;
            lot.left = 0;
            lot.closed = true;
        }
    }

    fn adjust(&mut self, adjustment: &Adjust, id: &str) {
        let amount = whole(adjustment.amount);
        self.maximum += amount;
        if amount > 0 {
            self.add(lot(id, 30, amount, self.now));
        } else {
            let (_, short) = self.draw(-amount);
            self.debts.push(Debt { withdrawal: None, owed: short });
        }
    }

    fn purchase(&mut self, purchase: &Purchase) {
        let name = purchase.payment_id.to_string();
        if self.lots.iter().any(|lot| lot.id == name) {
            return;
        }
        let amount = whole(purchase.amount);
        let ends = self.plan.packs_end.then(|| Self::month_start(self.month + 1));
        self.maximum += amount;
        self.add(NaiveLot { paid: true, ends, ..lot(&name, 40, amount, self.now) });
    }

    fn refund(&mut self, refund: &Refund) {
        let name = refund.payment_id.to_string();
        let Some(at) = self.lots.iter().position(|lot| lot.id == name) else { return };
        let amount = whole(refund.amount);
        let refunded = self.refunded.entry(name).or_default();
        if *refunded + amount > self.lots[at].amount {
            return;
        }
        *refunded += amount;
        let lot = &mut self.lots[at];
        let own = amount.min(lot.left);
        let lapsed = (amount - own).min(lot.lapsed);
        lot.left -= own;
        lot.lapsed -= lapsed;
        let (_, short) = self.draw(amount - own - lapsed);
        self.debts.push(Debt { withdrawal: None, owed: short });
        self.maximum -= amount - lapsed;
    }

    fn change_plan(&mut self, change: &ChangePlan) {
        let plan = plan_of(&change.plan);
        if change.at == Some(ChangeAt::NextPeriod) {
            self.next_plan = Some(plan);
            return;
        }
        let name = format!("plan:{}", self.month);
        let lot = self.lots.iter_mut().find(|lot| lot.id == name).expect("the plan's lot");
        let before = lot.left;
        lot.amount = plan.allowance;
        lot.left = (lot.amount - lot.drawn).max(0);
        self.maximum += lot.left - before;
        self.plan = plan;
        self.next_plan = None;
        self.repay();
    }

    fn reverse(&mut self, id: &str) {
        let Some(withdrawal) = self.withdrawals.get_mut(id).filter(|withdrawal| !withdrawal.reversed) else {
            return;
        };
        withdrawal.reversed = true;
        let (credits, same_period, from) =
            (withdrawal.credits, withdrawal.month == self.month, withdrawal.from.clone());
        let before = self.settled();
        let mut too_much = 0;
        for (lot_id, amount) in from {
            let now = self.now;
            let lot = self.lots.iter_mut().find(|lot| lot.id == lot_id).expect("a lot that gave");
            if lot.paid {
                self.spent -= amount;
            }
            if lot.closed || lot.ends.is_some_and(|ends| ends <= now) {
                lot.lapsed += amount;
            } else {
                lot.left += amount;
                lot.drawn -= amount;
                if lot.id.starts_with("plan") {
                    too_much += lot.left - (lot.amount - lot.drawn).max(0);
                    lot.left = (lot.amount - lot.drawn).max(0);
                }
            }
        }
        self.debts.retain(|debt| debt.withdrawal.as_deref() != Some(id));
        let back = self.settled() - before;
        self.repay();
        if same_period {
            self.used -= credits;
            self.maximum -= too_much;
        } else {
            self.maximum += back;
        }
    }
}

fn whole(credits: Credits) -> i64 {
    i64::try_from(credits.units() / WHOLE).expect("small")
}

fn plan_of(plan: &PlanBody) -> NaivePlan {
    NaivePlan {
        allowance: whole(plan.allowance),
        rollover: match plan.rollover.unwrap_or_default().mode {
            RolloverMode::None => None,
            RolloverMode::Unlimited => Some(None),
            RolloverMode::Capped => Some(plan.rollover.and_then(|r| r.cap).map(whole)),
        },
        packs_end: plan.pack_expiry == Some(PackExpiry::PeriodEnd),
    }
}

fn lot(id: &str, rank: i64, amount: i64, starts: i64) -> NaiveLot {
    NaiveLot {
        id: id.into(),
        rank,
        paid: Naive::is_paid(id),
        of_plan: false,
        amount,
        left: amount,
        drawn: 0,
        lapsed: 0,
        starts,
        ends: None,
        started: true,
        closed: false,
    }
}
