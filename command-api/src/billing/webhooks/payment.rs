//! Payment: merges what webhooks report about one payment, and decides which events follow.

use std::collections::{BTreeMap, BTreeSet};

use ledger_core::event::Price;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, AttemptId, DisputeId, PaymentId};
use serde::{Deserialize, Serialize};

use super::event::{WebhookEvent, What};
use super::refunds::{Part, Refunds};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub payment_id: PaymentId,
    /// None until a webhook names it.
    pub account: Option<AccountId>,
    pub attempt: Option<AttemptId>,
    /// The amount that it buys, in the account's unit.
    pub(super) amount: Option<Credits>,
    /// Its cost, in the provider's smallest unit; the next amounts use the same unit.
    pub(super) charged: Option<i64>,
    /// Of the cost, in lower case; none where no webhook has named it.
    pub(super) currency: Option<String>,
    /// The payment's id in the journal, where a person gave it another.
    pub(super) credited_as: Option<PaymentId>,
    /// The total of all refunds.
    pub(super) refunded: i64,
    pub(super) disputes: BTreeMap<DisputeId, Disputed>,
    pub(super) reported: Reported,
    /// What sources other than webhooks, such as an operator, have taken back; read anew each time, not stored.
    otherwise: Credits,
}

/// The known state of a dispute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Disputed {
    amount: i64,
    opened: bool,
    won: bool,
}

/// What the journal has received, and what it must still receive about the success of the payment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reported {
    is_paid: bool,
    paid: bool,
    /// Whether the payment waits for a person, or a person has decided not to credit it: then nothing follows from it.
    #[serde(default)]
    held: bool,
    /// The reason of the failure, if a webhook reported one.
    failure: Option<String>,
    failed: bool,
    /// The refunds that the journal received before refunds had names.
    refunded: Part,
    #[serde(default)]
    refunds: Refunds,
    opened: BTreeMap<DisputeId, Part>,
    won: BTreeSet<DisputeId>,
}

/// What was ordered at the provider, so far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    pub account: Option<AccountId>,
    /// In the account's unit.
    pub amount: Option<Credits>,
    /// The price in the currency's smallest unit; none if the account's unit has no price.
    pub charged: Option<i64>,
    pub currency: String,
}

/// Why a payment is not its order's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    Amount,
    Currency,
    /// The order is unknown and the account's unit has no price, so nothing says what it should cost.
    NoPrice,
}

impl Mismatch {
    pub fn code(self) -> &'static str {
        match self {
            Mismatch::Amount => "amount_differs",
            Mismatch::Currency => "currency_differs",
            Mismatch::NoPrice => "no_price",
        }
    }
}

impl Order {
    /// Compares what the provider has reported with the order. What it has not reported can't differ.
    fn mismatch(&self, charged: Option<i64>, currency: Option<&str>) -> Option<Mismatch> {
        if currency.is_some_and(|currency| currency != self.currency) {
            return Some(Mismatch::Currency);
        }
        match (charged, self.charged) {
            (None, _) => None,
            (Some(_), None) => Some(Mismatch::NoPrice),
            (Some(reported), Some(price)) => (reported != price).then_some(Mismatch::Amount),
        }
    }
}

/// What the ledger has credited for a payment, from any source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credited {
    pub account: AccountId,
    pub attempt: Option<AttemptId>,
    /// The amount that it bought, in the account's unit.
    pub amount: Credits,
    /// The amount taken back, from any source.
    pub refunded: Credits,
}

/// An effect to append; amounts are in the account's unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerEffect {
    Paid {
        amount: Credits,
    },
    Failed {
        reason: String,
    },
    /// This much more was refunded; named by the provider's id, or by one of ours if only the total is known.
    Refunded {
        amount: Credits,
        name: String,
        is_named: bool,
    },
    /// A refund under this name gave nothing back.
    RefundFailed {
        amount: Credits,
        name: String,
    },
    Opened {
        dispute: DisputeId,
        amount: Credits,
    },
    /// The dispute ended against the payer.
    Won {
        dispute: DisputeId,
        amount: Credits,
    },
}

impl Payment {
    pub fn new(payment_id: PaymentId) -> Self {
        Self {
            payment_id,
            account: None,
            attempt: None,
            amount: None,
            charged: None,
            currency: None,
            credited_as: None,
            refunded: 0,
            disputes: BTreeMap::new(),
            reported: Reported::default(),
            otherwise: Credits::ZERO,
        }
    }

    /// Merges a webhook about an order. Returns why a payment is not the order's, and so is not credited.
    pub fn apply(&mut self, webhook: &WebhookEvent, order: &Order) -> Option<Mismatch> {
        self.account = self.account.take().or_else(|| order.account.clone());
        self.attempt = self.attempt.take().or_else(|| webhook.attempt.clone());
        self.amount = self.amount.or(order.amount);
        match &webhook.what {
            What::Paid { .. } if self.reported.is_paid => {}
            What::Paid { charged, currency } => {
                self.currency = self.currency.take().or_else(|| currency.clone());
                self.charged = charged.or(self.charged);
                let mismatch = order.mismatch(*charged, currency.as_deref());
                if mismatch.is_some() {
                    return mismatch;
                }
                self.reported.is_paid = true;
                self.charged = self.charged.or(order.charged);
            }
            What::Failed { reason } => self.reported.failure = Some(reason.clone()),
            What::Refunded { total, charged, refunds } => {
                self.refunded = self.refunded.max(*total);
                self.charged = charged.or(self.charged);
                refunds.iter().for_each(|refund| self.reported.refunds.merge(refund));
            }
            What::Refund(refund) => self.reported.refunds.merge(refund),
            What::Opened { dispute, amount } => {
                let known = self.disputes.entry(dispute.clone()).or_default();
                (known.amount, known.opened) = (*amount, true);
            }
            What::Won { dispute, amount } => {
                let known = self.disputes.entry(dispute.clone()).or_default();
                (known.amount, known.won) = (*amount, true);
            }
        }
        None
    }

    /// Returns the payment's id in the journal.
    pub fn journal_id(&self) -> &PaymentId {
        self.credited_as.as_ref().unwrap_or(&self.payment_id)
    }

    /// Returns the money that was paid; none where no webhook has named its currency.
    pub fn price(&self) -> Option<Price> {
        payments::paid_price(self.charged?, self.currency.as_deref()?)
    }

    /// Lets nothing more follow from it until a person has decided.
    pub fn hold(&mut self) {
        self.reported.held = true;
    }

    /// Credits it as a person has decided: this much, under this id in the journal.
    pub fn credit(&mut self, amount: Credits, journal_id: PaymentId) {
        self.amount = Some(amount);
        self.credited_as = Some(journal_id);
        (self.reported.is_paid, self.reported.paid, self.reported.held) = (true, false, false);
    }

    /// Returns whether a webhook has reported a refund or a dispute.
    pub fn goes_back(&self) -> bool {
        self.refunded > 0 || self.reported.refunds.any_reported() || !self.disputes.is_empty()
    }

    /// Returns whether an event takes back part of it, or did.
    pub fn is_taken_from(&self) -> bool {
        let Reported { refunded, refunds, opened, .. } = &self.reported;
        refunded.money > 0 || refunds.is_recorded() || !opened.is_empty()
    }

    /// Returns whether it is known to be paid.
    pub fn is_paid(&self) -> bool {
        self.reported.is_paid
    }

    /// Merges the folded credits and refunds, which must include all that was reported;
    /// `priced` is the cost by the account's price.
    pub fn is_credited(&mut self, credited: Credited, priced: Option<i64>) {
        self.otherwise = credited.refunded.minus(self.taken().credits).unwrap_or_default().max(Credits::ZERO);
        if self.reported.is_paid {
            return;
        }
        self.account = Some(credited.account);
        self.attempt = credited.attempt;
        self.amount = Some(credited.amount);
        self.charged = self.charged.or(priced);
        (self.reported.is_paid, self.reported.paid) = (true, true);
    }

    /// Returns the effects that follow and are not reported yet, in a valid order: the payment before any refund, and
    /// never more taken back at once than was paid.
    pub fn due(&mut self) -> Vec<LedgerEffect> {
        let mut due = Vec::new();
        while let Some(effect) = self.next() {
            due.push(effect);
        }
        due
    }

    fn next(&mut self) -> Option<LedgerEffect> {
        if let Some(reason) = self.reported.failure.clone().filter(|_| !self.reported.failed) {
            self.reported.failed = true;
            return Some(LedgerEffect::Failed { reason });
        }
        let amount = self.amount.filter(|_| self.reported.is_paid && !self.reported.held)?;
        if !self.reported.paid {
            self.reported.paid = true;
            return Some(LedgerEffect::Paid { amount });
        }
        self.next_won()
            .or_else(|| self.next_failed_refund())
            .or_else(|| self.next_refund())
            .or_else(|| self.next_opened())
    }

    fn next_won(&mut self) -> Option<LedgerEffect> {
        let is_won = |(dispute, _): &(&DisputeId, &Part)| {
            self.disputes.get(*dispute).is_some_and(|known| known.won)
                && !self.reported.won.contains(*dispute)
        };
        let (dispute, part) =
            self.reported.opened.iter().find(is_won).map(|(dispute, part)| (dispute.clone(), *part))?;
        self.reported.won.insert(dispute.clone());
        Some(LedgerEffect::Won { dispute, amount: part.credits })
    }

    /// What was recorded for a total is undone whole, and what stands of it is due again.
    fn next_failed_refund(&mut self) -> Option<LedgerEffect> {
        let excess = -self.refund_due();
        if let Some((name, amount)) = self.reported.refunds.undo(excess) {
            return Some(LedgerEffect::RefundFailed { amount, name });
        }
        let nameless = self.reported.refunded;
        let money = excess.min(nameless.money);
        if money <= 0 {
            return None;
        }
        let credits = if money == nameless.money { nameless.credits } else { self.credits(money) };
        let left = nameless.credits.minus(credits).ok()?;
        // The fold does not know it by this name: it refuses, and a person decides.
        let name = self.reported.refunds.undo_nameless(Part { money, credits })?;
        self.reported.refunded = Part { money: nameless.money - money, credits: left };
        Some(LedgerEffect::RefundFailed { amount: credits, name })
    }

    /// A refund beyond the remaining amount waits until a dispute is won.
    fn next_refund(&mut self) -> Option<LedgerEffect> {
        let due = self.refund_due();
        let named = self.reported.refunds.next_named();
        let part = self.take(named.as_ref().map_or(due, |(_, money)| due.min(*money)))?;
        let is_named = named.is_some();
        let name = named.map_or_else(|| self.name_of_total(part), |(name, _)| name);
        self.reported.refunds.record(name.clone(), part);
        Some(LedgerEffect::Refunded { amount: part.credits, name, is_named })
    }

    /// Returns the money of refunds that is still to be taken; below zero, what was taken and came back.
    fn refund_due(&self) -> i64 {
        let Reported { refunded, refunds, .. } = &self.reported;
        let recorded: i64 = refunds.live().map(|part| part.money).sum();
        refunds.standing(self.refunded) - refunded.money - recorded
    }

    /// Returns a name that no part recorded for a total had before.
    fn name_of_total(&self, part: Part) -> String {
        let Reported { refunded, refunds, .. } = &self.reported;
        format!("{}:{}", self.payment_id, refunded.money + refunds.money_ever() + part.money)
    }

    /// A provider may contest more than was paid, or than remains.
    fn next_opened(&mut self) -> Option<LedgerEffect> {
        let is_new = |(dispute, known): &(&DisputeId, &Disputed)| {
            known.opened && !self.reported.opened.contains_key(*dispute)
        };
        let (dispute, contested) =
            self.disputes.iter().find(is_new).map(|(dispute, known)| (dispute.clone(), known.amount))?;
        let part = self.take(contested)?;
        self.reported.opened.insert(dispute.clone(), part);
        Some(LedgerEffect::Opened { dispute, amount: part.credits })
    }

    /// Returns the part that can be taken back for a requested amount of money; none if nothing remains.
    ///
    /// Taking all the remaining money takes all the remaining credits: the parts always add up to the whole.
    fn take(&self, money: i64) -> Option<Part> {
        let left = self.left();
        let money = money.min(left.money);
        let credits = if money == left.money { left.credits } else { self.credits(money).min(left.credits) };
        (money > 0 && credits.is_positive()).then_some(Part { money, credits })
    }

    /// Returns the part of the payment that is not taken back.
    fn left(&self) -> Part {
        let taken = self.taken();
        let bought = self.amount.unwrap_or_default();
        let left = bought.minus(taken.credits).and_then(|left| left.minus(self.otherwise));
        let money = self.charged.unwrap_or_default() - taken.money;
        Part { money, credits: left.unwrap_or_default().max(Credits::ZERO) }
    }

    /// Returns the part reported as taken back: all refunds, and the disputes that are not won.
    fn taken(&self) -> Part {
        let contested =
            self.reported.opened.iter().filter(|(dispute, _)| !self.reported.won.contains(*dispute));
        let refunds = self.reported.refunds.live().chain([&self.reported.refunded]);
        let parts = contested.map(|(_, part)| part).chain(refunds);
        parts.fold(Part::default(), |taken, part| Part {
            money: taken.money + part.money,
            credits: taken.credits.plus(part.credits).unwrap_or(taken.credits),
        })
    }

    /// Returns the value of a part of the charge in the account's unit.
    fn credits(&self, part: i64) -> Credits {
        let (Some(amount), Some(charged)) = (self.amount, self.charged.filter(|charged| *charged > 0)) else {
            return Credits::ZERO;
        };
        amount.mul_div_half_even(Credits::whole(part), Credits::whole(charged)).unwrap_or(amount)
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::super::event::ReportedRefund;
    use super::*;
    use ledger_core::value::id::NameError;

    fn id<T: FromStr<Err = NameError>>(text: &str) -> T {
        text.parse().expect("an id")
    }

    fn webhook(what: What) -> WebhookEvent {
        let (payment_id, account, amount) = (id("pi_1"), Some(id("acme")), "100".parse().ok());
        let (reference, session, log_id) = (None, None, None);
        WebhookEvent { payment_id, account, attempt: None, amount, reference, session, log_id, what }
    }

    fn paid(charged: i64) -> What {
        What::Paid { charged: Some(charged), currency: None }
    }

    /// A total of refunds, none of them named.
    fn refunded(total: i64) -> What {
        What::Refunded { total, charged: None, refunds: Vec::new() }
    }

    fn reported(name: &str, amount: i64, failed: bool) -> ReportedRefund {
        ReportedRefund { refund_id: id(name), amount, failed }
    }

    /// An order at this price.
    fn order(charged: i64) -> Order {
        let (account, amount) = (Some(id("acme")), "100".parse().ok());
        Order { account, amount, charged: Some(charged), currency: "usd".to_owned() }
    }

    fn price_in(all: &[&What]) -> i64 {
        let prices = all.iter().filter_map(|what| match what {
            What::Paid { charged, .. } => *charged,
            What::Failed { .. }
            | What::Refunded { .. }
            | What::Refund(_)
            | What::Opened { .. }
            | What::Won { .. } => None,
        });
        prices.max().unwrap_or_default()
    }

    /// Returns the remaining credits of the payment, and what was reported.
    fn effects_of(all: &[&What]) -> (Credits, Vec<String>) {
        let mut payment = Payment::new(id("pi_1"));
        let mut reported = Vec::new();
        for what in all {
            payment.apply(&webhook((*what).clone()), &order(price_in(all)));
            reported.extend(payment.due().into_iter().map(|effect| format!("{effect:?}")));
        }
        (payment.left().credits, reported)
    }

    fn orders<T: Clone>(all: &[T]) -> Vec<Vec<T>> {
        if all.len() < 2 {
            return vec![all.to_vec()];
        }
        (0..all.len())
            .flat_map(|first| {
                let mut rest = all.to_vec();
                let one = rest.remove(first);
                orders(&rest).into_iter().map(move |rest| [vec![one.clone()], rest].concat())
            })
            .collect()
    }

    #[test]
    fn every_order_of_five_ends_alike_however_often_each_comes() {
        let paid = paid(500);
        let part = refunded(100);
        let all = refunded(200);
        let opened = What::Opened { dispute: id("dp_1"), amount: 300 };
        let won = What::Won { dispute: id("dp_1"), amount: 300 };
        let five = [&paid, &part, &all, &opened, &won];
        for order in orders(&five) {
            let (left, reported) = effects_of(&order);
            assert_eq!(left.to_string(), "60", "{order:?}: {reported:?}");
            let twice: Vec<&What> = order.iter().flat_map(|what| [*what, *what]).collect();
            assert_eq!(effects_of(&twice), (left, reported), "{order:?}");
            let again: Vec<&What> = order.iter().chain(&order).copied().collect();
            assert_eq!(effects_of(&again).0, left, "{order:?}");
        }
    }

    #[test]
    fn a_dispute_of_more_than_is_left_takes_what_is_left() {
        let paid = paid(500);
        let part = refunded(200);
        for amount in [400, 500, 501] {
            let opened = What::Opened { dispute: id("dp_1"), amount };
            let won = What::Won { dispute: id("dp_1"), amount };
            for order in orders(&[&paid, &part, &opened]) {
                let (left, reported) = effects_of(&order);
                assert_eq!(left.to_string(), "0", "{order:?}: {reported:?}");
            }
            for order in orders(&[&paid, &part, &opened, &won]) {
                let (left, reported) = effects_of(&order);
                assert_eq!(left.to_string(), "60", "{order:?}: {reported:?}");
            }
        }
    }

    #[test]
    fn parts_that_do_not_divide_come_to_the_whole_and_never_to_more() {
        // Two thirds of a credit a cent: three parts rounded separately would exceed the bought amount.
        let paid = paid(150);
        let parts = ["a", "b", "c"].map(|name| What::Opened { dispute: id(name), amount: 50 });
        let (left, reported) = effects_of(&[&paid, &parts[0], &parts[1], &parts[2]]);
        assert_eq!((left, reported.len()), (Credits::ZERO, 4), "{reported:?}");
        assert!(reported[3].contains("33.333333334"), "{reported:?}");
    }

    #[test]
    fn what_would_take_more_than_was_paid_waits_until_there_is_room() {
        let paid = paid(500);
        let opened = What::Opened { dispute: id("dp_1"), amount: 500 };
        let won = What::Won { dispute: id("dp_1"), amount: 500 };
        let refunded = refunded(500);
        for order in orders(&[&paid, &opened, &won, &refunded]) {
            let (left, reported) = effects_of(&order);
            assert_eq!(left.to_string(), "0", "{order:?}: {reported:?}");
            assert!(reported.iter().any(|effect| effect.starts_with("Refunded")), "{order:?}: {reported:?}");
        }
    }

    #[test]
    fn what_an_operator_has_refunded_is_not_taken_again() {
        let credited = |refunded: &str| Credited {
            account: id("acme"),
            attempt: None,
            amount: Credits::whole(100),
            refunded: refunded.parse().expect("an amount"),
        };
        let check = |said: &What, operator: &str, expected: &[&str]| {
            let mut payment = Payment::new(id("pi_1"));
            payment.apply(&webhook(paid(500)), &order(500));
            payment.due();
            payment.is_credited(credited(operator), None);
            payment.apply(&webhook(said.clone()), &order(500));
            let reported: Vec<String> = payment.due().iter().map(|effect| format!("{effect:?}")).collect();
            assert_eq!(reported.len(), expected.len(), "{reported:?}");
            for (effect, amount) in reported.iter().zip(expected) {
                assert!(
                    effect.contains(&format!("{:?}", Credits::whole(amount.parse().expect("whole")))),
                    "{effect}"
                );
            }
            // All that was reported is folded: the operator's part is unchanged.
            let before = payment.otherwise;
            payment.is_credited(credited("100"), None);
            assert_eq!(payment.otherwise, before);
        };
        check(&refunded(500), "40", &["60"]);
        check(&What::Opened { dispute: id("dp_1"), amount: 500 }, "40", &["60"]);
        check(&What::Opened { dispute: id("dp_1"), amount: 500 }, "100", &[]);
    }

    #[test]
    fn parts_of_a_refund_come_to_the_whole() {
        let paid = paid(300);
        let parts = [100, 200, 300].map(refunded);
        let (left, reported) = effects_of(&[&paid, &parts[0], &parts[1], &parts[2]]);
        assert_eq!((left, reported.len()), (Credits::ZERO, 4));
    }

    /// Checks that effects undo only what they took, each once, and returns what they take in all.
    fn taken_by(reported: &[LedgerEffect]) -> Credits {
        let mut standing: BTreeMap<&str, Credits> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for effect in reported {
            match effect {
                LedgerEffect::Refunded { amount, name, .. } => {
                    assert!(names.insert(name), "{name} twice: {reported:?}");
                    standing.insert(name, *amount);
                }
                LedgerEffect::RefundFailed { amount, name } => {
                    assert_eq!(standing.remove(name.as_str()), Some(*amount), "{reported:?}");
                }
                LedgerEffect::Paid { .. } => {}
                LedgerEffect::Failed { .. } | LedgerEffect::Opened { .. } | LedgerEffect::Won { .. } => {
                    panic!("{effect:?}")
                }
            }
        }
        standing.values().fold(Credits::ZERO, |sum, amount| sum.plus(*amount).expect("in range"))
    }

    /// In every order, each once and each twice, webhooks about a payment of 100 for 500 leave this much of it.
    fn check_refunds(all: &[What], expected: &str) {
        let all: Vec<&What> = all.iter().collect();
        for order in orders(&all) {
            let twice: Vec<&What> = order.iter().flat_map(|what| [*what, *what]).collect();
            for order in [order, twice] {
                let mut payment = Payment::new(id("pi_1"));
                let mut reported = Vec::new();
                for what in &order {
                    payment.apply(&webhook((*what).clone()), &self::order(500));
                    reported.extend(payment.due());
                }
                let left = Credits::whole(100).minus(taken_by(&reported)).expect("in range");
                assert_eq!(left.to_string(), expected, "{order:?}: {reported:?}");
                assert_eq!(payment.left().credits, left, "{order:?}: {reported:?}");
            }
        }
    }

    #[test]
    fn a_refund_that_failed_is_undone_in_every_order() {
        let refund = |name: &str, amount: i64, failed: bool| What::Refund(reported(name, amount, failed));
        check_refunds(&[paid(500), refunded(200), refund("re_1", 200, true)], "100");
        check_refunds(&[paid(500), refund("re_1", 200, false), refund("re_1", 200, true)], "100");
        // Of two, reported one by one, in one total, in a list.
        let (first, second) = (refund("re_1", 200, false), refund("re_2", 300, false));
        let failed = refund("re_1", 200, true);
        check_refunds(&[paid(500), refunded(200), refunded(500), failed.clone()], "40");
        check_refunds(&[paid(500), refunded(500), first.clone(), second.clone(), failed.clone()], "40");
        check_refunds(&[paid(500), refunded(200), first, second.clone(), failed.clone()], "40");
        let refunds = vec![reported("re_2", 300, false), reported("re_1", 200, false)];
        let listed = What::Refunded { total: 500, charged: Some(500), refunds };
        check_refunds(&[paid(500), listed, refunded(200), failed.clone(), second.clone()], "40");
        check_refunds(&[paid(500), refunded(500), failed, second, refund("re_2", 300, true)], "100");
    }

    #[test]
    fn refunds_that_are_named_count_once_beside_their_total() {
        let refund = |name: &str, amount: i64| What::Refund(reported(name, amount, false));
        check_refunds(&[paid(500), refunded(200), refund("re_1", 200)], "60");
        check_refunds(
            &[paid(500), refunded(100), refunded(300), refund("re_1", 100), refund("re_2", 200)],
            "40",
        );
        check_refunds(&[paid(500), refunded(400), refund("re_1", 100)], "20");
    }

    #[test]
    fn what_was_recorded_before_refunds_had_names_is_not_taken_again() {
        let mut before = Payment::new(id("pi_1"));
        before.apply(&webhook(paid(500)), &order(500));
        before.due();
        before.refunded = 200;
        let old = r#"{"is_paid": true, "paid": true, "failure": null, "failed": false, "opened": {}, "won": [],
                      "refunded": {"money": 200, "credits": "40"}}"#;
        before.reported = serde_json::from_str(old).expect("as it was stored");
        let after = |reported: &[What]| {
            let mut payment = before.clone();
            let mut effects = Vec::new();
            for what in reported {
                payment.apply(&webhook(what.clone()), &order(500));
                effects.extend(payment.due().iter().map(|effect| format!("{effect:?}")));
            }
            (payment.left().credits.to_string(), effects)
        };
        let named = What::Refund(reported("re_1", 200, false));
        assert_eq!(after(&[named.clone(), refunded(200)]), ("60".to_owned(), vec![]));
        let (left, more) = after(&[What::Refund(reported("re_2", 100, false)), refunded(300), named.clone()]);
        assert_eq!((left.as_str(), more.len()), ("40", 1), "{more:?}");
        // The journal can't undo it by a name: it says so once, for a person to decide.
        let failed = What::Refund(reported("re_1", 200, true));
        let (_, undone) = after(&[failed.clone(), failed, refunded(200), named]);
        assert_eq!(undone.len(), 1, "{undone:?}");
        assert!(undone[0].starts_with("RefundFailed") && undone[0].contains("re_1"), "{undone:?}");
    }

    #[test]
    fn money_that_is_not_the_orders_credits_nothing_and_the_right_money_still_does() {
        let check = |what: What, order: &Order, expected: Option<Mismatch>| {
            let mut payment = Payment::new(id("pi_1"));
            assert_eq!(payment.apply(&webhook(what.clone()), order), expected, "{what:?}");
            assert_eq!(payment.due().is_empty(), expected.is_some(), "{what:?}");
            payment.apply(&webhook(refunded(1)), order);
            assert_eq!(payment.due().is_empty(), expected.is_some(), "{what:?}");
            payment.apply(&webhook(paid(500)), &self::order(500));
            assert_eq!(payment.due().is_empty(), expected.is_none(), "{what:?}");
        };
        let in_currency =
            |currency: &str| What::Paid { charged: Some(500), currency: Some(currency.to_owned()) };
        check(in_currency("usd"), &order(500), None);
        check(in_currency("eur"), &order(500), Some(Mismatch::Currency));
        check(paid(1), &order(500), Some(Mismatch::Amount));
        check(paid(501), &order(500), Some(Mismatch::Amount));
        check(paid(500), &Order { charged: None, ..order(500) }, Some(Mismatch::NoPrice));
        check(What::Paid { charged: None, currency: None }, &order(500), None);
    }

    #[test]
    fn nothing_follows_from_a_payment_that_waits_for_a_person() {
        let mut payment = Payment::new(id("pi_1"));
        payment.apply(&webhook(paid(500)), &order(500));
        assert_eq!(payment.due().len(), 1);
        payment.hold();
        payment.apply(&webhook(refunded(250)), &order(500));
        assert_eq!(payment.due(), []);
        payment.credit(Credits::whole(60), id("pi_1:again"));
        let due = payment.due();
        assert_eq!(payment.journal_id().as_str(), "pi_1:again");
        let [LedgerEffect::Paid { amount }, LedgerEffect::Refunded { amount: refunded, .. }] = due.as_slice()
        else {
            panic!("{due:?}")
        };
        assert_eq!((amount.to_string(), refunded.to_string()), ("60".into(), "30".into()));
    }
}
