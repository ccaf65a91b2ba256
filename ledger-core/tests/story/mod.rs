//! A story: the events of one account in words, folded in memory.
//!
//! `at 2026-02-01T00:00:00Z` moves the clock; other lines are events. Only this module of the
//! tests knows the fold's API.

#![allow(dead_code, reason = "each test binary uses a part")]

use ledger_core::event::{CloseAccount, Data, Event, FailRefund, Refund, derive};
use ledger_core::fold::memory::{Account, Memory};
use ledger_core::fold::{Applied, Fact};
use ledger_core::policy::balance::Balance;
use ledger_core::policy::top_up::{self, Want};
use ledger_core::value::id::{AccountId, AttemptId, DisputeId, EventId, Label, RefundId, Source};
use ledger_core::value::time::Time;

pub const ACCOUNT: &str = "acme";

pub struct Story {
    pub memory: Memory,
    pub facts: Vec<Fact>,
    pub applied: Vec<Applied>,
    pub now: Time,
    appended_after: i64,
}

impl Story {
    pub fn new() -> Self {
        let now = time("2026-01-01T00:00:00Z");
        Self { memory: Memory::default(), facts: Vec::new(), applied: Vec::new(), now, appended_after: 0 }
    }

    /// Plays every line; lines are split at `;`.
    pub fn play(&mut self, script: &str) -> &mut Self {
        for line in script.split(';').map(str::trim).filter(|line| !line.is_empty()) {
            self.line(line);
        }
        self
    }

    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_known = self.clock_line(&words)
            || self.account_line(&words)
            || self.usage_line(&words)
            || self.credits_line(&words)
            || self.dispute_line(&words)
            || self.top_up_line(&words)
            || self.alert_line(&words);
        assert!(is_known, "no such line: {line}");
    }

    fn clock_line(&mut self, words: &[&str]) -> bool {
        let number = self.facts.len();
        match words[0] {
            "at" => {
                self.now = time(words[1]);
            }
            "appended" => {
                self.appended_after = words[1].parse().expect("seconds");
            }
            "close" | "close-again" => {
                let data = Data::AccountClosed(CloseAccount { reason: "gone".parse().expect("a reason") });
                self.push(words[0], data);
            }
            "reset" => {
                let body = format!(r#"{{"index":{}}}"#, words[1]);
                self.event(&format!("reset{}", words[1]), "ledger.period.reset.v1", &body);
            }
            "tick" => {
                let body = format!(r#"{{"advance_to":"{}"}}"#, self.now);
                self.event(&format!("e{number}"), "ledger.clock.advanced.v1", &body);
            }
            _ => return false,
        }
        true
    }

    fn account_line(&mut self, words: &[&str]) -> bool {
        let number = self.facts.len();
        match words[0] {
            "open" => self.event("open", "ledger.account.opened.v1", &rest(words, 1)),
            "live" => {
                let body =
                    format!(r#"{{"clock":"live","plan":{{"cycle":"monthly","allowance":"{}"}}}}"#, words[1]);
                self.event("open", "ledger.account.opened.v1", &body);
            }
            // plan <allowance> [more fields of the plan as JSON]
            "plan" => {
                let plan = plan(words[1], &rest(words, 2));
                self.event(
                    "open",
                    "ledger.account.opened.v1",
                    &format!(r#"{{"clock":"test","plan":{plan}}}"#),
                );
            }
            "replan" | "replan-next" => {
                let at = if words[0] == "replan" { "now" } else { "next_period" };
                let plan = plan(words[1], &rest(words, 2));
                let body = format!(r#"{{"plan":{plan},"at":"{at}"}}"#);
                self.event(&format!("e{number}"), "ledger.plan.changed.v1", &body);
            }
            "change" => self.event(&format!("e{number}"), "ledger.account.changed.v1", &rest(words, 1)),
            _ => return false,
        }
        true
    }

    fn usage_line(&mut self, words: &[&str]) -> bool {
        let number = self.facts.len();
        match words[0] {
            // use <credits> [id]
            "use" => {
                let id = words.get(2).map_or_else(|| format!("u{number}"), ToString::to_string);
                self.event(
                    &id,
                    "ledger.usage.recorded.v1",
                    &format!(r#"{{"user_id":"ana","credits":"{}"}}"#, words[1]),
                );
            }
            // call <call> <credits> [id]
            "call" => {
                let id = words.get(3).map_or_else(|| format!("u{number}"), ToString::to_string);
                let body = format!(r#"{{"call_id":"{}","credits":"{}"}}"#, words[1], words[2]);
                self.event(&id, "ledger.usage.recorded.v1", &body);
            }
            // settle <credits>: usage that settles a hold
            "settle" => {
                let body = format!(r#"{{"reservation_id":"r","held":"1","credits":"{}"}}"#, words[1]);
                self.event(&format!("u{number}"), "ledger.usage.recorded.v1", &body);
            }
            // by <user> <credits> [feature]
            "by" => {
                let feature =
                    words.get(3).map_or_else(String::new, |feature| format!(r#","feature":"{feature}""#));
                let body = format!(r#"{{"user_id":"{}","credits":"{}"{feature}}}"#, words[1], words[2]);
                self.event(&format!("u{number}"), "ledger.usage.recorded.v1", &body);
            }
            "nobody" => {
                let body = format!(r#"{{"credits":"{}"}}"#, words[1]);
                self.event(&format!("u{number}"), "ledger.usage.recorded.v1", &body);
            }
            "reverse" => {
                let body = format!(r#"{{"event_id":"{}","source":"/story"}}"#, words[1]);
                self.event(&format!("e{number}"), "ledger.usage.reversed.v1", &body);
            }
            _ => return false,
        }
        true
    }

    fn credits_line(&mut self, words: &[&str]) -> bool {
        let number = self.facts.len();
        match words[0] {
            // grant <id> <amount> [more fields as JSON]
            "grant" => {
                let body = format!(
                    r#"{{"grant_id":"{}","source":"promo","amount":"{}"{}}}"#,
                    words[1],
                    words[2],
                    more(&rest(words, 3))
                );
                self.event(&format!("e{number}"), "ledger.credits.granted.v1", &body);
            }
            "void" => {
                let body = format!(r#"{{"grant_id":"{}"}}"#, words[1]);
                self.event(&format!("e{number}"), "ledger.grant.voided.v1", &body);
            }
            "adjust" => {
                let body = format!(r#"{{"amount":"{}","reason":"r"}}"#, words[1]);
                self.event(&format!("adj{number}"), "ledger.credits.adjusted.v1", &body);
            }
            // adjust-as <event id> <amount>
            "adjust-as" => {
                let body = format!(r#"{{"amount":"{}","reason":"r"}}"#, words[2]);
                self.event(words[1], "ledger.credits.adjusted.v1", &body);
            }
            "buy" => {
                let more = more(&rest(words, 3));
                let body = format!(r#"{{"payment_id":"{}","amount":"{}"{more}}}"#, words[1], words[2]);
                self.event(&format!("e{number}"), "ledger.credits.purchased.v1", &body);
            }
            "refund" => {
                let body = format!(r#"{{"payment_id":"{}","amount":"{}"}}"#, words[1], words[2]);
                self.event(&format!("e{number}"), "ledger.credits.refunded.v1", &body);
            }
            _ => return false,
        }
        true
    }

    fn dispute_line(&mut self, words: &[&str]) -> bool {
        match words[0] {
            // dispute <id> <payment> <amount>, won <id> <payment> <amount>
            "dispute" | "won" => {
                let account = AccountId::new(ACCOUNT).expect("an id");
                let dispute = DisputeId::new(words[1]).expect("an id");
                let body = format!(
                    r#"{{"dispute_id":"{dispute}","payment_id":"{}","amount":"{}"}}"#,
                    words[2], words[3]
                );
                let (id, name) = match words[0] {
                    "won" => (derive::dispute_won_id(&account, &dispute), "won"),
                    _ => (derive::dispute_opened_id(&account, &dispute), "opened"),
                };
                let kind = format!("ledger.dispute.{name}.v1");
                let data =
                    ledger_core::event::wire::data(&kind, &body).expect("a known type").expect("a dispute");
                self.push_from(derive::DISPUTES, id.as_str(), data);
            }
            // refunded <id> <payment> <amount>, unrefunded <id> <payment> <amount>
            "refunded" | "unrefunded" => {
                let account = AccountId::new(ACCOUNT).expect("an id");
                let (refund_id, payment_id) =
                    (RefundId::new(words[1]).expect("an id"), words[2].parse().expect("an id"));
                let amount = words[3].parse().expect("an amount");
                if words[0] == "unrefunded" {
                    let id = format!("e{}", self.facts.len());
                    let data = Data::RefundFailed(FailRefund { payment_id, refund_id, amount });
                    self.push_from(derive::API, &id, data);
                } else {
                    let id = derive::refunded_id(&account, &refund_id);
                    let refund = Refund { payment_id, refund_id: Some(refund_id), amount, reason: None };
                    self.push_from(derive::API, id.as_str(), Data::CreditsRefunded(refund));
                }
            }
            _ => return false,
        }
        true
    }

    fn top_up_line(&mut self, words: &[&str]) -> bool {
        let number = self.facts.len();
        match words[0] {
            // topup <threshold> <amount> [more fields as JSON]
            "topup" => {
                let body = format!(
                    r#"{{"enabled":true,"threshold":"{}","amount":"{}","payment_method":"pm_ok"{}}}"#,
                    words[1],
                    words[2],
                    more(&rest(words, 3))
                );
                self.event(&format!("e{number}"), "ledger.auto_top_up.set.v1", &body);
            }
            "no-topup" => self.event(&format!("e{number}"), "ledger.auto_top_up.set.v1", "{}"),
            // start <number> <amount>
            "start" => {
                let attempt = attempt(words[1]);
                let body = format!(
                    r#"{{"attempt_id":"{attempt}","amount":"{}","payment_method":"pm_ok"}}"#,
                    words[2]
                );
                self.event(attempt.as_str(), "ledger.top_up.started.v1", &body);
            }
            // paid <number> <amount> <payment>
            "paid" => {
                let body = format!(
                    r#"{{"attempt_id":"{}","amount":"{}","payment_id":"{}"}}"#,
                    attempt(words[1]),
                    words[2],
                    words[3]
                );
                self.event(&format!("e{number}"), "ledger.credits.topped_up.v1", &body);
            }
            "declined" => {
                let body = format!(r#"{{"attempt_id":"{}","reason":"card_declined"}}"#, attempt(words[1]));
                self.event(&format!("e{number}"), "ledger.top_up.failed.v1", &body);
            }
            // the effect that the account requires of the process that runs top-ups
            "due" => {
                let core = self.account().core.as_ref().expect("an open account");
                let event = match top_up::want(core) {
                    Want::Start(attempt) => top_up::started(&core.account, &attempt, self.now),
                    Want::Refuse(brake) => top_up::refused(core, brake, self.now),
                    Want::Nothing | Want::Wait(_) | Want::Outcome(_) => panic!("no top-up is due"),
                };
                self.push_from(derive::TOP_UPS, event.id.as_str(), event.data);
            }
            _ => return false,
        }
        true
    }

    fn alert_line(&mut self, words: &[&str]) -> bool {
        let number = self.facts.len();
        match words[0] {
            // limit <user> <amount>, or none
            "limit" => {
                let limit = if words[2] == "none" { "null".to_owned() } else { format!("\"{}\"", words[2]) };
                let body = format!(r#"{{"user_id":"{}","limit":{limit}}}"#, words[1]);
                self.event(&format!("e{number}"), "ledger.user_limit.set.v1", &body);
            }
            "limits" => self.event(&format!("e{number}"), "ledger.limits.set.v1", &rest(words, 1)),
            "user-alert" => self.event(&format!("e{number}"), "ledger.user_alert.set.v1", &rest(words, 1)),
            // alert <id> <basis> <threshold> [more fields as JSON]
            "alert" => {
                let body = format!(
                    r#"{{"alert_id":"{}","basis":"{}","threshold":"{}"{}}}"#,
                    words[1],
                    words[2],
                    words[3],
                    more(&rest(words, 4))
                );
                self.event(&format!("e{number}"), "ledger.org_alert.set.v1", &body);
            }
            "no-alert" => {
                let body = format!(r#"{{"alert_id":"{}"}}"#, words[1]);
                self.event(&format!("e{number}"), "ledger.org_alert.removed.v1", &body);
            }
            _ => return false,
        }
        true
    }

    /// Adds an event of the account and folds it in a batch of its own.
    pub fn event(&mut self, id: &str, event_type: &str, data: &str) {
        let data = ledger_core::event::wire::data(event_type, data)
            .expect("a known type")
            .expect("well-formed data");
        self.push(id, data);
    }

    pub fn push(&mut self, id: &str, data: Data) {
        self.push_from("/story", id, data);
    }

    pub fn push_from(&mut self, source: &str, id: &str, data: Data) {
        let event = Event {
            id: EventId::new(id).expect("an event id"),
            source: Source::new(source).expect("a source"),
            account: AccountId::new(ACCOUNT).expect("an id"),
            occurred_at: self.now,
            recorded_at: self.now,
            actor: Label::new("test").expect("a label"),
            data,
        };
        let offset = i64::try_from(self.facts.len()).expect("few events") + 1;
        let fact = Fact::new(event, self.now.plus_seconds(self.appended_after), offset);
        self.facts.push(fact.clone());
        self.applied.extend(self.memory.fold(&[fact]));
    }

    pub fn account(&self) -> &Account {
        &self.memory.accounts[&AccountId::new(ACCOUNT).expect("an id")]
    }

    pub fn balance(&self) -> Balance {
        Balance::of(self.account().core.as_ref().expect("an open account"), Default::default())
    }

    /// Outcome of the last event: `applied`, `duplicate`, `conflict` or the reason.
    pub fn outcome(&self) -> &'static str {
        let outcome = self.applied.last().expect("an event").outcome;
        outcome.reason().map_or(outcome.as_str(), |reason| reason.code())
    }

    /// What is left: `plan:0 5, promo 2 | owes 3`.
    pub fn lots(&self) -> String {
        let balance = self.balance();
        let lots: Vec<_> =
            balance.lots.iter().map(|lot| format!("{} {}", lot.grant_id, lot.remaining)).collect();
        let mut text = lots.join(", ");
        if !balance.overdraft.is_zero() {
            text = format!("{text} | owes {}", balance.overdraft).trim_start().into();
        }
        text
    }

    /// Entries of the last event: `expired -3, rolled_out -5, …`.
    pub fn entries(&self) -> String {
        let applied = self.applied.last().expect("an event");
        let lines: Vec<_> = applied
            .entries
            .iter()
            .map(|entry| format!("{} {}", entry.entry_type.as_str(), entry.amount))
            .collect();
        lines.join(", ")
    }
}

/// Returns the id of the account's attempt of that number.
pub fn attempt(number: &str) -> AttemptId {
    derive::attempt_id(&AccountId::new(ACCOUNT).expect("an id"), number.parse().expect("a number"))
}

/// Returns the examples of `docs/concepts.md`: the first two cells of each row, of each table with such a header.
pub fn documented(header: &str) -> Vec<Vec<(String, String)>> {
    let document = include_str!("../../../docs/concepts.md");
    let code = |cell: Option<&str>| cell.unwrap_or_default().trim().trim_matches('`').to_owned();
    let tables = document.split("\n\n").filter_map(|table| table.strip_prefix(header));
    let tables = tables.map(|table| {
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        let cells = rows.map(|row| {
            let mut cells = row.trim_end_matches('|').split(" |");
            (code(cells.next()), code(cells.next()))
        });
        cells.collect()
    });
    tables.collect()
}

/// Plays a story.
pub fn story(script: &str) -> Story {
    let mut story = Story::new();
    story.play(script);
    story
}

pub fn time(text: &str) -> Time {
    text.parse().expect("a time")
}

fn rest(words: &[&str], from: usize) -> String {
    words[from..].join(" ")
}

fn more(fields: &str) -> String {
    if fields.is_empty() { String::new() } else { format!(",{fields}") }
}

fn plan(allowance: &str, fields: &str) -> String {
    let cycle = if fields.contains("\"cycle\"") { "" } else { r#""cycle":"monthly","# };
    format!(r#"{{{cycle}"allowance":"{allowance}"{}}}"#, more(fields))
}
