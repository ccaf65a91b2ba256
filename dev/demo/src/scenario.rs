//! Scenario: the plan, the story and the steps of each account.
//!
//! All accounts run on test clocks that follow the stretched trace, so three months pass in seconds.

use anyhow::{Context, Result};
use ledger_core::value::credits::Credits;
use ledger_core::value::time::Time;
use serde_json::{Value, json};

use crate::prices::Unit;
use crate::trace::Call;
use crate::workload::{self, Account, Item, Way};

/// When the accounts open: before the first call.
const OPENING: &str = "2023-11-16T18:00:00Z";
/// The last time of every clock: after the last call.
const END: &str = "2024-02-11T00:00:00Z";
/// Longest stretch of usage recorded at one time, in days: usage older than 35 days is refused.
const SEGMENT_DAYS: i64 = 15;
/// Most events of one HTTP batch.
const BATCH_ITEMS_MAX: usize = 250;

const SECONDS_PER_DAY: i64 = 86_400;

/// How unused credits roll over, as far as the demo's plans use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollover {
    /// They expire.
    None,
    /// Up to a cap.
    Capped(Credits),
}

/// A plan, as the demo's own arithmetic needs it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Credits of each period.
    pub allowance: Credits,
    /// How unused credits roll over.
    pub rollover: Rollover,
    /// Whether bought credits end with the period.
    pub packs_reset: bool,
    pub body: Value,
}

/// What happens in an account besides usage.
#[derive(Debug, Clone)]
pub enum Action {
    Purchase {
        payment: &'static str,
        amount: Credits,
    },
    /// A part of a payment is refunded.
    Refund {
        payment: &'static str,
        amount: Credits,
    },
    /// Credits that don't expire are granted.
    Grant {
        grant: &'static str,
        /// `promo`, `adjustment`, …
        source: &'static str,
        amount: Credits,
    },
    /// Reverses one usage event: the first sent through HTTP at or after this time that cost anything.
    ReverseFirstSince(Time),
    /// The next period has another allowance.
    AllowanceFromNextPeriod(Credits),
}

#[derive(Debug)]
pub struct Scenario {
    pub account: Account,
    /// Its id in the ledger.
    pub id: String,
    /// Its plan in a few words.
    pub title: &'static str,
    /// Its plan at opening.
    pub plan: Plan,
    /// The number of the period that it opens in.
    pub first_period: i64,
    /// The boundaries that it crosses, as literals: the ledger must compute the same.
    pub boundaries: Vec<Time>,
    /// What happens, by time.
    pub actions: Vec<(Time, Action)>,
    /// Its usage, by time.
    pub items: Vec<Item>,
}

/// One write, at one ledger time.
#[derive(Debug)]
pub enum Step<'a> {
    Act(Time, &'a Action),
    Http(Time, Vec<&'a Item>),
    /// The clock moves, then records go to Kafka.
    Kafka(Time, Vec<&'a Item>),
    /// The clock moves to the end.
    End(Time),
}

impl Step<'_> {
    /// Returns the ledger time at which it is recorded.
    pub fn at(&self) -> Time {
        match self {
            Step::Act(at, _) | Step::Http(at, _) | Step::Kafka(at, _) | Step::End(at) => *at,
        }
    }
}

/// Returns the rate card of accounts that count in this unit.
pub fn card(unit: Unit) -> &'static str {
    match unit {
        Unit::Credits => "demo-credits",
        Unit::Usd => "demo-usd",
    }
}

/// Returns the stories of all accounts, which are called `<name>-team` and so on.
pub fn all(name: &str, calls: &[Call]) -> Result<Vec<Scenario>> {
    Account::ALL.iter().map(|account| of(*account, name, calls)).collect()
}

fn of(account: Account, name: &str, calls: &[Call]) -> Result<Scenario> {
    let items = workload::items(account, calls)?;
    let story = match account {
        Account::Team => team()?,
        Account::Crew => crew()?,
        Account::Monthly => monthly()?,
        Account::Yearly => yearly()?,
        Account::Wallet => wallet()?,
    };
    let mut plan = story.plan;
    plan.body["rate_card"] = json!(card(account.unit()));
    let boundaries = story.boundaries.iter().map(|text| time(text)).collect::<Result<_>>()?;
    let id = format!("{name}-{}", story.suffix);
    let Story { title, first_period, actions, .. } = story;
    Ok(Scenario { account, id, title, plan, first_period, boundaries, actions, items })
}

/// The constant part of a scenario.
struct Story {
    suffix: &'static str,
    title: &'static str,
    plan: Plan,
    first_period: i64,
    boundaries: &'static [&'static str],
    actions: Vec<(Time, Action)>,
}

fn team() -> Result<Story> {
    Ok(Story {
        suffix: "team",
        title: "1,500 a month",
        plan: plan(
            json!({ "name": "team", "cycle": "monthly", "anchor": "2023-10-31T00:00:00+01:00",
                    "timezone": "Europe/Berlin", "allowance": "1500" }),
            Rollover::None,
        )?,
        first_period: 0,
        // The 31st, clamped to the month, at midnight in Berlin.
        boundaries: &["2023-11-29T23:00:00Z", "2023-12-30T23:00:00Z", "2024-01-30T23:00:00Z"],
        actions: vec![
            act("2023-12-20T09:00:00Z", Action::ReverseFirstSince(time("2023-12-05T00:00:00Z")?))?,
            act("2024-01-10T09:00:00Z", Action::AllowanceFromNextPeriod(Credits::whole(2_000)))?,
        ],
    })
}

fn crew() -> Result<Story> {
    let pack = |payment, amount| Action::Purchase { payment, amount: Credits::whole(amount) };
    Ok(Story {
        suffix: "crew",
        title: "1,200 a month, packs",
        plan: plan(
            json!({ "name": "ai-employees", "cycle": "monthly", "anchor": "2023-11-16T00:00:00Z",
                    "allowance": "1200", "pack_expiry": "period_end", "on_exhausted": "allow" }),
            Rollover::None,
        )?,
        first_period: 0,
        boundaries: &["2023-12-16T00:00:00Z", "2024-01-16T00:00:00Z"],
        actions: vec![
            act("2023-12-01T12:00:00Z", pack("crew-pack-1", 2_000))?,
            act("2024-01-14T12:00:00Z", pack("crew-pack-2", 1_000))?,
        ],
    })
}

fn monthly() -> Result<Story> {
    Ok(Story {
        suffix: "monthly",
        title: "100 a month, rollover",
        plan: plan(
            json!({ "name": "solo", "cycle": "monthly", "anchor": "2023-11-01T00:00:00-04:00",
                    "timezone": "America/New_York", "allowance": "100" }),
            Rollover::Capped(Credits::whole(50)),
        )?,
        first_period: 0,
        // Midnight in New York, an hour later in UTC once summer time is over.
        boundaries: &["2023-12-01T05:00:00Z", "2024-01-01T05:00:00Z", "2024-02-01T05:00:00Z"],
        actions: vec![act(
            "2023-12-10T12:00:00Z",
            Action::Grant { grant: "spring-promo", source: "promo", amount: Credits::whole(25) },
        )?],
    })
}

fn yearly() -> Result<Story> {
    Ok(Story {
        suffix: "yearly",
        title: "1,200 a year, rollover",
        plan: plan(
            json!({ "name": "solo-yearly", "cycle": "yearly", "anchor": "2023-01-01T00:00:00Z", "allowance": "1200" }),
            Rollover::Capped(Credits::whole(600)),
        )?,
        first_period: 0,
        boundaries: &["2024-01-01T00:00:00Z"],
        actions: vec![act(
            "2023-12-15T12:00:00Z",
            Action::Grant { grant: "goodwill", source: "adjustment", amount: Credits::whole(10) },
        )?],
    })
}

fn wallet() -> Result<Story> {
    let pay = |payment, amount| Action::Purchase { payment, amount: Credits::whole(amount) };
    Ok(Story {
        suffix: "wallet",
        title: "wallet in US dollars",
        plan: plan(
            json!({ "name": "wallet", "cycle": "monthly", "anchor": "2023-11-16T18:00:00Z", "allowance": "0",
                    "pack_expiry": "never" }),
            Rollover::None,
        )?,
        first_period: 0,
        boundaries: &["2023-12-16T18:00:00Z", "2024-01-16T18:00:00Z"],
        actions: vec![
            act("2023-11-16T18:05:00Z", pay("wallet-pay-1", 5))?,
            act("2023-12-20T12:00:00Z", pay("wallet-pay-2", 20))?,
            act(
                "2024-01-05T12:00:00Z",
                Action::Refund { payment: "wallet-pay-2", amount: Credits::whole(8) },
            )?,
        ],
    })
}

fn plan(mut body: Value, rollover: Rollover) -> Result<Plan> {
    body["rollover"] = match rollover {
        Rollover::None => json!({ "mode": "none" }),
        Rollover::Capped(cap) => json!({ "mode": "capped", "cap": cap }),
    };
    let allowance = body["allowance"].as_str().context("a plan has an allowance")?.parse()?;
    Ok(Plan { allowance, rollover, packs_reset: body["pack_expiry"] == "period_end", body })
}

fn act(at: &str, action: Action) -> Result<(Time, Action)> {
    Ok((time(at)?, action))
}

fn time(text: &str) -> Result<Time> {
    text.parse().with_context(|| format!("{text} is no time"))
}

impl Scenario {
    /// Returns when the account opens.
    pub fn opening() -> Result<Time> {
        time(OPENING)
    }

    /// Returns the final time of its clock.
    pub fn end() -> Result<Time> {
        time(END)
    }

    /// Returns the body of `POST /v1/accounts`.
    pub fn opening_body(&self) -> Value {
        let mut body = json!({
            "account_id": self.id, "name": self.title, "unit": "credits", "usd_per_unit": "0.01", "clock": "test",
            "plan": self.plan.body,
        });
        if self.account.unit() == Unit::Usd {
            body["unit"] = json!("usd");
            body["usd_per_unit"] = json!("1");
        }
        body
    }

    /// Returns the number of the period that holds a time.
    pub fn period_at(&self, time: Time) -> Result<i64> {
        let crossed = self.boundaries.iter().filter(|boundary| **boundary <= time).count();
        Ok(self.first_period + i64::try_from(crossed)?)
    }

    /// Returns the event that `ReverseFirstSince` takes back.
    pub fn reversed(&self, since: Time) -> Option<&Item> {
        self.items.iter().find(|item| item.at >= since && item.way == Way::Http && item.credits.is_positive())
    }

    /// Returns everything after the opening, in order of ledger time.
    ///
    /// Splits usage at each boundary and action, so that it is recorded in the period in which it happened.
    pub fn steps(&self) -> Result<Vec<Step<'_>>> {
        let end = Scenario::end()?;
        let mut steps = Vec::new();
        let mut rest = self.items.as_slice();
        for cut in self.cuts(end)? {
            let (segment, later) = rest.split_at(rest.partition_point(|item| item.at < cut));
            rest = later;
            add_usage(segment, &mut steps);
            let due = self.actions.iter().filter(|(at, _)| *at == cut);
            steps.extend(due.map(|(at, action)| Step::Act(*at, action)));
        }
        steps.push(Step::End(end));
        Ok(steps)
    }

    fn cuts(&self, end: Time) -> Result<Vec<Time>> {
        let mut cuts = self.boundaries.clone();
        cuts.extend(self.actions.iter().map(|(at, _)| *at));
        let mut cut = Scenario::opening()?;
        while cut < end {
            cut = cut.plus_seconds(SEGMENT_DAYS * SECONDS_PER_DAY);
            cuts.push(cut.min(end));
        }
        cuts.sort_unstable();
        cuts.dedup();
        Ok(cuts)
    }
}

/// Adds a segment's usage: batches through HTTP, then the records for Kafka, at the segment's last time.
fn add_usage<'a>(segment: &'a [Item], steps: &mut Vec<Step<'a>>) {
    let by = |way| segment.iter().filter(|item| item.way == way).collect::<Vec<&Item>>();
    for batch in by(Way::Http).chunks(BATCH_ITEMS_MAX) {
        let at = batch[batch.len() - 1].at;
        steps.push(Step::Http(at, batch.to_vec()));
    }
    let records = by(Way::Kafka);
    if let Some(last) = segment.last().filter(|_| !records.is_empty()) {
        steps.push(Step::Kafka(last.at, records));
    }
}

#[cfg(test)]
mod tests {
    use ledger_core::event::{OpenAccount, PlanBody};
    use ledger_core::value::period::Schedule;
    use ledger_core::value::time::Zone;

    use super::super::trace;
    use super::*;

    fn scenarios() -> Vec<Scenario> {
        all("demo", &trace::calls().expect("the trace reads")).expect("scenarios")
    }

    #[test]
    fn the_boundaries_written_out_are_those_of_the_calendar() {
        for scenario in scenarios() {
            let plan: PlanBody = serde_json::from_value(scenario.plan.body.clone()).expect("a plan");
            let schedule = Schedule {
                cycle: plan.cycle,
                anchor: plan.anchor.expect("an anchor"),
                timezone: plan.timezone.unwrap_or(Zone::UTC),
            };
            let opening = Scenario::opening().expect("a time");
            assert_eq!(schedule.index_at(opening), scenario.first_period, "{}", scenario.id);
            let last = scenario.first_period + i64::try_from(scenario.boundaries.len()).expect("few");
            assert_eq!(schedule.index_at(time(END).expect("a time")), last, "{}", scenario.id);
            for (boundary, index) in scenario.boundaries.iter().zip(scenario.first_period + 1..) {
                assert_eq!(schedule.boundary(index), Some(*boundary), "{}", scenario.id);
            }
        }
    }

    #[test]
    fn every_opening_passes_the_strict_reading() {
        for scenario in scenarios() {
            let mut body = scenario.opening_body();
            body.as_object_mut().expect("an object").remove("account_id");
            serde_json::from_value::<OpenAccount>(body).expect("an opening");
        }
    }

    #[test]
    fn steps_send_everything_once_and_never_go_back() {
        for scenario in scenarios() {
            let steps = scenario.steps().expect("steps");
            let mut sent = 0;
            let mut acted = 0;
            for step in &steps {
                match step {
                    Step::Http(_, items) | Step::Kafka(_, items) => sent += items.len(),
                    Step::Act(..) => acted += 1,
                    Step::End(_) => {}
                }
            }
            assert_eq!(sent, scenario.items.len(), "{}", scenario.id);
            assert_eq!(acted, scenario.actions.len(), "{}", scenario.id);
            let period = |at: Time| scenario.boundaries.iter().filter(|boundary| **boundary <= at).count();
            for (before, after) in steps.iter().zip(&steps[1..]) {
                assert!(period(before.at()) <= period(after.at()), "{}", scenario.id);
            }
        }
    }

    #[test]
    fn usage_is_recorded_in_the_period_in_which_it_happened() {
        for scenario in scenarios() {
            let period = |at: Time| scenario.boundaries.iter().filter(|boundary| **boundary <= at).count();
            for step in scenario.steps().expect("steps") {
                let (Step::Http(at, items) | Step::Kafka(at, items)) = step else { continue };
                assert!(items.iter().all(|item| period(item.at) == period(at)), "{}", scenario.id);
            }
        }
    }
}
