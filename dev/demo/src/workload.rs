//! Workload: assigns the trace's calls to users, and adds other usage.
//!
//! The trace names no users, so they are assigned by rule. The same trace gives the same events on every run.
//!
//! - account: by row number mod 20, see `Account::of_row`.
//! - user: the k-th user of an account has 60/k of the slots of a wheel (a Zipf-like share); the account's n-th call
//!   goes to slot 7,919 x n of it.
//! - model, and with it the tier: by a wheel of 16, see `MODEL_WHEEL`.
//! - way: all calls of the wallet, and every second one of the team, go through Kafka; the others through HTTP.
//! - other work: only the crew does any, after every n-th of its calls, see `others`.

use anyhow::Result;
use ledger_core::value::credits::Credits;
use ledger_core::value::time::Time;
use serde_json::{Value, json};

use crate::prices::{self, Meter, Unit};
use crate::trace::{Call, GROUP_ROWS};

/// Slots of the first user in an account's wheel; the k-th has this divided by k.
const FIRST_USER_SLOTS: usize = 60;
/// Spreads an account's calls over its wheel; prime, so it meets every slot.
const WHEEL_STEP: usize = 7_919;
/// Which of `prices::MODELS` a row calls, by group of rows mod 16.
const MODEL_WHEEL: [usize; 16] = [1, 3, 2, 1, 4, 1, 3, 0, 1, 2, 5, 1, 3, 4, 2, 6];
/// Calls of one session.
const SESSION_CALLS: usize = 8;

/// The `source` of events sent through HTTP.
pub const HTTP_SOURCE: &str = "/demo/app";
/// The `source` of events sent through Kafka.
pub const KAFKA_SOURCE: &str = "/demo/worker";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// A team on a monthly allowance that does not roll over.
    Team,
    /// AI employees: a full rate card, packs that end with the month.
    Crew,
    /// A small monthly allowance with capped rollover.
    Monthly,
    /// A small yearly allowance with capped rollover.
    Yearly,
    /// A wallet in USD: no allowance, what is bought never expires.
    Wallet,
}

/// How an event reaches the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `POST /v1/events`.
    Http,
    /// A record in `ledger.usage`.
    Kafka,
}

/// One usage event, with what it must cost.
#[derive(Debug, Clone)]
pub struct Item {
    pub id: String,
    /// When it happened.
    pub at: Time,
    pub way: Way,
    pub user: &'static str,
    pub feature: &'static str,
    /// What it is priced by.
    pub meter: &'static Meter,
    /// Quantities by name.
    pub quantities: Vec<(&'static str, u64)>,
    /// The expected cost, by the demo's own arithmetic.
    pub credits: Credits,
    /// The message that it belongs to.
    pub message: String,
    /// The session that the message belongs to.
    pub session: String,
}

impl Account {
    pub const ALL: [Account; 5] =
        [Account::Team, Account::Crew, Account::Monthly, Account::Yearly, Account::Wallet];

    /// Of 20 rows the team has 10, the crew 6, the wallet 2, the two small ones 1 each.
    fn of_row(row: usize) -> Account {
        match row % GROUP_ROWS {
            0..=9 => Account::Team,
            10..=15 => Account::Crew,
            16 | 17 => Account::Wallet,
            18 => Account::Monthly,
            _ => Account::Yearly,
        }
    }

    /// Returns the unit of its amounts.
    pub fn unit(self) -> Unit {
        if self == Account::Wallet { Unit::Usd } else { Unit::Credits }
    }

    fn users(self) -> &'static [&'static str] {
        match self {
            Account::Team => {
                &["ana", "bo", "carl", "dora", "emil", "fay", "gil", "hana", "ivo", "june", "kai", "lea"]
            }
            Account::Crew => &["ava-sales", "ben-support", "cleo-finance", "dan-recruiting", "eve-research"],
            Account::Monthly => &["mia"],
            Account::Yearly => &["yuri"],
            Account::Wallet => &["walt", "wendy", "will"],
        }
    }
}

/// Returns an account's events in the order in which they happened.
pub fn items(account: Account, calls: &[Call]) -> Result<Vec<Item>> {
    let wheel = wheel(account.users());
    let mut items = Vec::new();
    let own = calls.iter().filter(|call| Account::of_row(call.row) == account);
    for (n, call) in own.enumerate() {
        let user = wheel[n * WHEEL_STEP % wheel.len()];
        items.push(llm_call(account, user, n, call)?);
        if account == Account::Crew {
            others(user, n, call, &mut items)?;
        }
    }
    Ok(items)
}

/// Returns users in the shares of their rank.
fn wheel(users: &'static [&'static str]) -> Vec<&'static str> {
    let slots = |rank: usize| FIRST_USER_SLOTS / (rank + 1);
    users.iter().enumerate().flat_map(|(rank, user)| std::iter::repeat_n(*user, slots(rank))).collect()
}

fn llm_call(account: Account, user: &'static str, n: usize, call: &Call) -> Result<Item> {
    let meter = &prices::MODELS[MODEL_WHEEL[call.row / GROUP_ROWS % MODEL_WHEEL.len()]];
    let quantities = vec![("input_tokens", call.input_tokens), ("output_tokens", call.output_tokens)];
    let way = match account {
        Account::Wallet => Way::Kafka,
        Account::Team if n % 2 == 1 => Way::Kafka,
        Account::Team | Account::Crew | Account::Monthly | Account::Yearly => Way::Http,
    };
    Ok(Item {
        id: format!("trace-{}", call.row),
        at: call.at,
        way,
        user,
        feature: ["agent_chat", "workflow", "agent_chat", "external_agent"][n % 4],
        meter,
        credits: meter.charge(&quantities, account.unit())?,
        quantities,
        message: format!("msg-{}", call.row),
        session: format!("session-{user}-{}", n / SESSION_CALLS),
    })
}

/// Adds an AI employee's other usage after its n-th call: how often, priced by what, how much.
fn others(user: &'static str, n: usize, call: &Call, items: &mut Vec<Item>) -> Result<()> {
    let seconds = 30 + call.input_tokens % 240;
    let work: [(usize, &str, &'static Meter, u64); 8] = [
        (3, "app", &prices::APP_CALL, 1 + call.output_tokens % 4),
        (4, "runtime", &prices::RUNTIME, seconds),
        (5, "task", &prices::TASK, 1),
        (9, "internal", &prices::INTERNAL, 1),
        (40, "voice", &prices::VOICE, seconds),
        (60, "image-sd", &prices::IMAGE_SD, 1),
        (90, "meeting", &prices::MEETING, 5 * seconds),
        (120, "image-hd", &prices::IMAGE_HD, 1),
    ];
    for (every, name, meter, count) in work {
        if n % every != every - 1 {
            continue;
        }
        let mut item = llm_call(Account::Crew, user, n, call)?;
        item.id = format!("trace-{}-{name}", call.row);
        item.meter = meter;
        item.quantities = vec![(meter.prices[0].quantity, count)];
        item.credits = meter.charge(&item.quantities, Unit::Credits)?;
        items.push(item);
    }
    Ok(())
}

impl Item {
    /// Returns the item as a CloudEvent about an account.
    pub fn cloud_event(&self, account_id: &str) -> Value {
        let quantities: serde_json::Map<String, Value> =
            self.quantities.iter().map(|(name, count)| ((*name).into(), json!(count.to_string()))).collect();
        let mut data = json!({
            "org_id": account_id,
            "user_id": self.user,
            "feature": self.feature,
            "category": self.meter.category,
            "quantities": quantities,
            "message_id": self.message,
            "session_id": self.session,
            "metadata": { "trace": "azure-llm-2023" },
        });
        if let Some(model) = self.meter.model {
            data["model"] = json!(model.name);
            data["provider"] = json!(model.provider);
            data["tier"] = json!(model.tier);
        }
        if let Some(kind) = self.meter.kind {
            data["kind"] = json!(kind);
        }
        json!({
            "specversion": "1.0",
            "id": self.id,
            "source": if self.way == Way::Kafka { KAFKA_SOURCE } else { HTTP_SOURCE },
            "type": "ledger.usage.recorded.v1",
            "subject": account_id,
            "time": self.at,
            "data": data,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::trace;
    use super::*;

    fn all(account: Account) -> Vec<Item> {
        items(account, &trace::calls().expect("the trace reads")).expect("items")
    }

    #[test]
    fn every_call_of_the_trace_becomes_one_event_of_one_account() {
        let mut calls = BTreeSet::new();
        for account in Account::ALL {
            for item in all(account).iter().filter(|item| item.quantities.len() == 2) {
                assert!(calls.insert(item.id.clone()), "{} is there twice", item.id);
            }
        }
        assert_eq!(calls.len(), 8_819);
    }

    #[test]
    fn an_event_id_names_one_event() {
        for account in Account::ALL {
            let items = all(account);
            let ids: BTreeSet<&str> = items.iter().map(|item| item.id.as_str()).collect();
            assert_eq!(ids.len(), items.len(), "{account:?}");
        }
    }

    #[test]
    fn the_same_trace_gives_the_same_events() {
        for account in Account::ALL {
            let events =
                || all(account).iter().map(|item| item.cloud_event("a").to_string()).collect::<Vec<_>>();
            assert_eq!(events(), events());
        }
    }

    #[test]
    fn shares_of_users_fall_by_rank() {
        let mut counts = BTreeMap::new();
        for item in all(Account::Team) {
            *counts.entry(item.user).or_insert(0) += 1;
        }
        let ranked: Vec<i32> = Account::Team.users().iter().map(|user| counts[user]).collect();
        // Equal ranks differ by one where the calls don't fill the last turn of the wheel.
        assert!(ranked.is_sorted_by(|a, b| a + 1 >= *b), "{ranked:?}");
        assert!(ranked[0] > 3 * ranked[3], "{ranked:?}");
    }

    #[test]
    fn every_event_passes_the_strict_reading_of_its_data() {
        for account in Account::ALL {
            for item in all(account) {
                let event = item.cloud_event("demo-team");
                let usage: ledger_core::event::Usage =
                    serde_json::from_value(event["data"].clone()).expect("usage");
                assert_eq!(usage.user_id.map(|id| id.to_string()), Some(item.user.to_string()));
            }
        }
    }

    #[test]
    fn the_crew_does_work_of_every_category() {
        let categories: BTreeSet<&str> = all(Account::Crew).iter().map(|item| item.meter.category).collect();
        let expected = [
            "ai_usage",
            "compute_runtime",
            "internal",
            "meetings",
            "tasks_completed",
            "tool_calls",
            "voice_calls",
        ];
        assert_eq!(categories, expected.into());
    }
}
