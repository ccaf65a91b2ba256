//! Decides whether work may begin, given the account's balance and the user's limit.
//!
//! Pure, and only as good as its figures: a caller that holds credits must lock the account, so that no other decision
//! uses the same figures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::account::Core;
use crate::account::limit::OwnLimit;
use crate::event::OnExhausted;
use crate::policy::wording;
use crate::value::credits::{Credits, add, sub};
use crate::value::id::{Label, UserId};
use crate::value::time::Time;

/// Body of `check`: work that is about to begin. Without an amount, any available credit is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Absent: no user's limit applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Limits do not apply in excluded features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Credits>,
}

/// What is outside the core: open holds, and of the user their own limit and the usage that counts toward it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Commitments {
    pub held: Credits,
    /// The user's usage of the open period that counts toward the limit.
    pub counted: Credits,
    pub user_held: Credits,
    /// The user's own limit, as stored.
    pub own_limit: Option<OwnLimit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RefusalCode")]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The user's limit does not cover it.
    UserLimitReached,
    /// The account's balance does not cover it.
    CreditsExhausted,
}

impl Refusal {
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::UserLimitReached => "user_limit_reached",
            Refusal::CreditsExhausted => "credits_exhausted",
        }
    }
}

/// A decision with its figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// `None`: work may begin.
    pub refusal: Option<Refusal>,
    /// As requested; `None` means the smallest amount.
    pub amount: Option<Credits>,
    pub settled: Credits,
    /// Settled minus all open holds.
    pub available: Credits,
    /// Lowest allowed value of available; `None` if unbounded.
    pub floor: Option<Credits>,
    /// The limit that applies to this work.
    pub limit: Option<Credits>,
    /// The usage that counts toward the limit.
    pub used: Credits,
    /// What the user's open holds will add to `used`.
    pub held: Credits,
    pub period_index: i64,
    pub resets_at: Time,
}

impl Decision {
    /// Returns the reason of a refusal as a sentence for the user; `None` if work may begin.
    pub fn message(&self, core: &Core) -> Option<String> {
        let amount = |amount| wording::amount(amount, core.unit);
        let number = |figure| wording::number(figure, core.unit);
        let day = wording::day(self.resets_at, core.periods.schedule.timezone);
        Some(match self.refusal? {
            Refusal::UserLimitReached => {
                let limit = amount(self.limit.unwrap_or_default());
                let held = match self.held.is_positive() {
                    true => {
                        let figure = number(self.held);
                        let verb = if figure == "1" { "is" } else { "are" };
                        format!(", and {figure} {verb} held for work in progress")
                    }
                    false => String::new(),
                };
                format!(
                    "You have used {} of your {limit}{held}; your limit resets on {day}.",
                    number(self.used)
                )
            }
            Refusal::CreditsExhausted if self.available.is_positive() => {
                format!("Your team has {} left, which is not enough for this.", amount(self.available))
            }
            Refusal::CreditsExhausted if self.settled.is_positive() => {
                "All that your team has left is held for work in progress.".to_owned()
            }
            Refusal::CreditsExhausted => {
                format!("Your team has used all its credits; the next period begins on {day}.")
            }
        })
    }
}

/// Decides for a core rolled to now. Checks the user's limit first.
pub fn decide(core: &Core, work: &Work, commitments: &Commitments) -> Decision {
    let settled = core.settled();
    let available = sub(settled, commitments.held);
    let (limit, floor) = (limit_of(core, work, commitments.own_limit.as_ref()), floor(core));
    let taken = add(commitments.counted, commitments.user_held);
    let refusal = if limit.is_some_and(|limit| passes(taken, work.amount, limit)) {
        Some(Refusal::UserLimitReached)
    } else if floor.is_some_and(|floor| sinks(available, work.amount, floor)) {
        Some(Refusal::CreditsExhausted)
    } else {
        None
    };
    Decision {
        refusal,
        amount: work.amount,
        settled,
        available,
        floor,
        limit,
        used: commitments.counted,
        held: commitments.user_held,
        period_index: core.period.index,
        resets_at: core.period.ends_at,
    }
}

/// Limits apply neither without a user nor in excluded features.
fn limit_of(core: &Core, work: &Work, own: Option<&OwnLimit>) -> Option<Credits> {
    let counts = core.limits.as_ref().is_some_and(|limits| limits.counts(work.feature.as_ref()));
    work.user_id.as_ref().filter(|_| counts).and_then(|_| core.limit_of(own))
}

/// Returns the lowest allowed balance; `None` if unbounded.
fn floor(core: &Core) -> Option<Credits> {
    match core.plan.on_exhausted {
        OnExhausted::Block => Some(Credits::ZERO),
        OnExhausted::Allow => core.plan.overage_limit.map(Credits::negated),
    }
}

fn passes(taken: Credits, amount: Option<Credits>, limit: Credits) -> bool {
    match amount {
        Some(amount) => add(taken, amount) > limit,
        None => taken >= limit,
    }
}

fn sinks(available: Credits, amount: Option<Credits>, floor: Credits) -> bool {
    match amount {
        Some(amount) => sub(available, amount) < floor,
        None => available <= floor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::limit::Limits;
    use crate::account::lot::Lot;
    use crate::event::{Limit, OpenAccount};
    use crate::value::id::AccountId;

    const OPENED: Time = Time::from_micros(1_767_225_600_000_000);

    /// An account with 10 credits left, under a plan.
    fn account(plan: &str, limits: Option<&str>) -> Core {
        let body = format!(r#"{{"plan":{{"cycle":"monthly","allowance":"10"{plan}}}}}"#);
        let opening: OpenAccount = serde_json::from_str(&body).expect("a body");
        let mut core = Core::open(AccountId::new("acme").expect("an id"), &opening, OPENED);
        core.limits =
            limits.map(|body| Limits::of(&serde_json::from_str(body).expect("a body of limits"), None));
        let lot: Lot = serde_json::from_value(serde_json::json!({
            "grant_id": "g1", "source": "adjustment", "amount": "10", "remaining": "10", "lapsed": "0", "refunded": "0",
            "priority": 30, "effective_at": OPENED, "expires_at": null, "granted_at": OPENED, "voided_at": null,
            "event_id": "e", "payment_id": null, "reason": null, "offset": 1, "seq": 0,
        }))
        .expect("a lot");
        core.with_lots([lot])
    }

    fn credits(text: &str) -> Credits {
        text.parse().expect("an amount")
    }

    fn commitments(held: &str, counted: &str, user_held: &str) -> Commitments {
        let (held, counted, user_held) = (credits(held), credits(counted), credits(user_held));
        Commitments { held, counted, user_held, own_limit: None }
    }

    fn check(core: &Core, work: &str, commitments: Commitments, expected: &str) {
        let work: Work = serde_json::from_str(work).expect("work");
        let decision = decide(core, &work, &commitments);
        assert_eq!(
            decision.refusal.map_or("allowed", |refusal| refusal.code()),
            expected,
            "{work:?} {commitments:?}"
        );
    }

    #[test]
    fn a_balance_covers_what_it_has_less_what_is_held() {
        let core = account("", None);
        check(&core, r#"{"amount":"10"}"#, commitments("0", "0", "0"), "allowed");
        check(&core, r#"{"amount":"10.000000001"}"#, commitments("0", "0", "0"), "credits_exhausted");
        check(&core, r#"{"amount":"4"}"#, commitments("6", "0", "0"), "allowed");
        check(&core, r#"{"amount":"4.1"}"#, commitments("6", "0", "0"), "credits_exhausted");
        check(&core, "{}", commitments("9.999999999", "0", "0"), "allowed");
        check(&core, "{}", commitments("10", "0", "0"), "credits_exhausted");
    }

    #[test]
    fn a_refusal_says_its_figures_in_a_sentence() {
        let said = |limits: Option<&str>, commitments: Commitments| {
            let work: Work = serde_json::from_str(r#"{"user_id":"ana","amount":"20"}"#).expect("work");
            let core = account("", limits);
            decide(&core, &work, &commitments).message(&core)
        };
        let limits = Some(r#"{"default_limit":"5"}"#);
        let check = |said: Option<String>, expected: &str| assert_eq!(said.as_deref(), Some(expected));
        check(
            said(limits, commitments("0", "2", "0")),
            "You have used 2 of your 5 credits; your limit resets on 1 February.",
        );
        check(
            said(limits, commitments("3", "2", "3")),
            "You have used 2 of your 5 credits, and 3 are held for work in progress; your limit resets on 1 February.",
        );
        check(
            said(None, commitments("3", "0", "0")),
            "Your team has 7 credits left, which is not enough for this.",
        );
        check(
            said(None, commitments("10", "0", "0")),
            "All that your team has left is held for work in progress.",
        );
    }

    #[test]
    fn a_plan_may_let_the_balance_sink_to_a_bound_or_without_one() {
        let bounded = account(r#","on_exhausted":"allow","overage_limit":"5""#, None);
        check(&bounded, r#"{"amount":"15"}"#, commitments("0", "0", "0"), "allowed");
        check(&bounded, r#"{"amount":"15.1"}"#, commitments("0", "0", "0"), "credits_exhausted");
        check(&bounded, "{}", commitments("15", "0", "0"), "credits_exhausted");
        let unbounded = account(r#","on_exhausted":"allow""#, None);
        check(&unbounded, r#"{"amount":"1000000"}"#, commitments("0", "0", "0"), "allowed");
    }

    #[test]
    fn a_limit_covers_what_counts_and_what_the_user_holds_and_is_tested_first() {
        let core = account("", Some(r#"{"default_limit":"5"}"#));
        check(&core, r#"{"user_id":"ana","amount":"2"}"#, commitments("0", "2", "1"), "allowed");
        check(&core, r#"{"user_id":"ana","amount":"2.1"}"#, commitments("0", "2", "1"), "user_limit_reached");
        check(&core, r#"{"user_id":"ana"}"#, commitments("0", "4", "1"), "user_limit_reached");
        check(&core, r#"{"user_id":"ana"}"#, commitments("10", "5", "0"), "user_limit_reached");
        check(&core, r#"{"amount":"9"}"#, commitments("0", "9", "0"), "allowed");
        let own = |series: u64| {
            let own_limit = Some(OwnLimit { series, limit: Limit::Unlimited });
            Commitments { own_limit, ..commitments("0", "9", "0") }
        };
        check(&core, r#"{"user_id":"bo","amount":"9"}"#, own(0), "allowed");
        // Since then all users' own limits were replaced.
        let replaced = account("", Some(r#"{"default_limit":"5","custom":{}}"#));
        check(&replaced, r#"{"user_id":"bo","amount":"9"}"#, own(0), "user_limit_reached");
        check(&replaced, r#"{"user_id":"bo","amount":"9"}"#, own(1), "allowed");
    }

    #[test]
    fn limits_do_not_hold_in_excluded_features_nor_while_they_are_off() {
        let excluded = account("", Some(r#"{"default_limit":"0","excluded_features":["workflow"]}"#));
        check(&excluded, r#"{"user_id":"ana","feature":"workflow"}"#, commitments("0", "0", "0"), "allowed");
        check(
            &excluded,
            r#"{"user_id":"ana","feature":"chat"}"#,
            commitments("0", "0", "0"),
            "user_limit_reached",
        );
        let off = account("", Some(r#"{"enabled":false,"default_limit":"0"}"#));
        check(&off, r#"{"user_id":"ana"}"#, commitments("0", "0", "0"), "allowed");
    }
}
