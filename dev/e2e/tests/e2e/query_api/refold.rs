//! A second implementation agrees: `audit/refold.py`, written from the public contract alone, folds random
//! histories to the same outcomes, figures and lots as `ledger-core`, and folds the service's journal export to the
//! balances that the service shows.
#![allow(clippy::unwrap_used, reason = "as in the tests of a crate")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ledger_core::event::derive;
use ledger_core::event::partition::partition_of;
use ledger_core::event::wire::decode;
use ledger_core::fold::Fact;
use ledger_core::fold::memory::{Account, Memory};
use ledger_core::policy::balance::Balance;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, AttemptId, DisputeId, RefundId};
use ledger_core::value::time::Time;
use platform::kafka::Appender;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::as_of;
use super::story::{Story, items_of};
use e2e::{Caller, Whole};

const HISTORIES: u64 = 100;
const EVENTS_EACH: usize = 80;
const PARTITIONS: std::num::NonZeroU32 = std::num::NonZeroU32::new(8).unwrap();

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Pacific/Apia",
];
const CYCLES: [&str; 4] = ["monthly", "yearly", "weekly", "daily"];

/// One account's random history: small amounts and few names, so that events interact often.
struct History {
    random: StdRng,
    account: String,
    test: bool,
    /// When the next record is appended.
    appended: Time,
    anchor: Time,
    records: Vec<Value>,
    /// Number of attempts to top up so far, and the amount last saved.
    attempts: u32,
    saved: String,
    disputes: Vec<Value>,
    refunds: Vec<Value>,
}

impl History {
    fn new(number: u64) -> History {
        let mut random = StdRng::seed_from_u64(number);
        let start: Time = "2024-01-01T00:00:00Z".parse().unwrap();
        let appended = start.plus_micros(random.random_range(0..600 * DAY) * 1_000_000 + 250);
        let anchor = appended.plus_seconds(random.random_range(-400 * DAY..400 * DAY));
        let test = random.random_bool(0.6);
        let (account, saved) = (format!("account-{number}"), "1".to_owned());
        let (records, disputes, refunds) = (Vec::new(), Vec::new(), Vec::new());
        History { random, account, test, appended, anchor, records, attempts: 0, saved, disputes, refunds }
    }

    fn one_in(&mut self, times: u32) -> bool {
        self.random.random_ratio(1, times)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.random).unwrap()
    }

    fn amount(&mut self, most: i64) -> String {
        let units = match self.random.random_range(0..4) {
            0 => self.random.random_range(1..=most * 1_000_000_000),
            _ => self.random.random_range(1..=most) * 1_000_000_000,
        };
        Credits::from_units(i128::from(units)).to_string()
    }

    fn name(&mut self, kind: &str, names: u32) -> String {
        format!("{kind}{}", self.random.random_range(0..names))
    }

    fn plan(&mut self) -> Value {
        let mut plan = json!({"cycle": self.pick(&CYCLES), "allowance": self.amount(40)});
        if self.one_in(8) {
            plan["allowance"] = json!("0");
        }
        if self.one_in(2) {
            plan["timezone"] = json!(self.pick(&ZONES));
        }
        if self.one_in(3) {
            let anchor = self.anchor.plus_seconds(self.random.random_range(-40 * DAY..40 * DAY));
            plan["anchor"] = json!(anchor);
        }
        match self.random.random_range(0..4) {
            0 => plan["rollover"] = json!({"mode": "unlimited"}),
            1 => plan["rollover"] = json!({"mode": "capped"}),
            2 => plan["rollover"] = json!({"mode": "capped", "cap": self.amount(15)}),
            _ => {}
        }
        if self.one_in(2) {
            plan["pack_expiry"] = json!("period_end");
        }
        plan
    }

    /// Appends an event; its clock may be off.
    fn append(&mut self, kind: &str, source: &str, id: &str, data: Value) {
        let wait = match self.random.random_range(0..10) {
            0..5 => self.random.random_range(0..3 * HOUR),
            5..8 => self.random.random_range(0..4 * DAY),
            8 => 0,
            _ => self.random.random_range(0..70 * DAY),
        };
        self.appended = self.appended.plus_seconds(wait);
        let recorded = match self.random.random_range(0..20) {
            0 => self.appended.plus_seconds(-self.random.random_range(0..40 * DAY)),
            1 => self.appended.plus_micros(self.random.random_range(0..5_000_000)),
            2 if !self.test => self.appended.plus_seconds(400 * DAY),
            _ => self.appended,
        };
        let occurred = recorded.plus_seconds(-self.pick(&[0, 0, 60, HOUR]));
        let recorded = if kind == "period.reset" { self.appended } else { recorded };
        self.record(kind, (source, id), occurred, recorded, data);
    }

    fn record(
        &mut self,
        kind: &str,
        (source, id): (&str, &str),
        occurred: Time,
        recorded: Time,
        data: Value,
    ) {
        let event = json!({
            "specversion": "1.0", "id": id, "source": source, "type": format!("ledger.{kind}.v1"),
            "subject": self.account, "time": occurred, "recordedat": recorded, "actor": "test", "data": data,
        });
        let partition = partition_of(self.account.as_bytes(), PARTITIONS);
        self.records.push(json!({
            "partition": partition, "offset": 0, "timestamp": self.appended, "key": self.account, "event": event,
        }));
    }

    fn tell(mut self) -> Vec<Value> {
        if self.one_in(10) {
            self.usage();
        }
        let mut opening = json!({"clock": if self.test { "test" } else { "live" }, "plan": self.plan()});
        if self.one_in(3) {
            opening["overdraft"] = json!("forgive_at_reset");
        }
        match self.random.random_range(0..4) {
            0 => opening["usd_per_unit"] = json!("0.013"),
            1 => opening["unit"] = json!("usd"),
            _ => {}
        }
        self.append("account.opened", "urn:ledger:api", "open", opening);
        for _ in 0..EVENTS_EACH {
            self.anything();
        }
        self.records
    }

    fn anything(&mut self) {
        match self.random.random_range(0..124) {
            0..35 => self.usage(),
            35..45 => {
                let data =
                    json!({"event_id": self.name("u", 30), "source": self.pick(&["/app", "/app", "/other"])});
                let id = self.name("reversal", 1_000_000);
                self.append("usage.reversed", "urn:ledger:api", &id, data);
            }
            45..57 => self.grant(),
            57..62 => {
                let grant = match self.random.random_range(0..6) {
                    0 => format!("plan:{}", self.random.random_range(-3..10)),
                    1 => self.name("pay", 6),
                    _ => self.name("g", 12),
                };
                let id = self.name("void", 1_000_000);
                self.append("grant.voided", "urn:ledger:api", &id, json!({"grant_id": grant}));
            }
            62..70 => {
                let sign = self.pick(&["", "-"]);
                let data = json!({"amount": format!("{sign}{}", self.amount(20)), "reason": "r"});
                let id = self.name("adjustment", 1_000_000);
                self.append("credits.adjusted", "urn:ledger:api", &id, data);
            }
            70..76 => {
                let kind = self.pick(&["pay", "pay", "pay", "pay", "g", "rollover:"]);
                let (payment, amount) = (self.name(kind, 6), self.amount(30));
                let source = self.pick(&["urn:ledger:grants", "urn:ledger:grants", "urn:ledger:other"]);
                let mut data = json!({"payment_id": payment, "amount": amount});
                if self.one_in(4) {
                    data["price"] = json!({"amount": self.amount(9), "currency": "eur"});
                }
                self.append("credits.purchased", source, &payment, data);
            }
            76..84 => {
                let payment = if self.one_in(8) { self.name("g", 12) } else { self.name("pay", 6) };
                let id = self.name("refund", 1_000_000);
                let data = json!({"payment_id": payment, "amount": self.amount(15)});
                self.append("credits.refunded", "urn:ledger:api", &id, data);
            }
            84..89 => {
                let data = json!({"plan": self.plan(), "at": self.pick(&["now", "now", "next_period"])});
                let id = self.name("plan", 1_000_000);
                self.append("plan.changed", "urn:ledger:api", &id, data);
            }
            89..92 => {
                let data = json!({"overdraft": self.pick(&["carry", "forgive_at_reset"])});
                let id = self.name("change", 1_000_000);
                self.append("account.changed", "urn:ledger:api", &id, data);
            }
            92..96 => {
                let index = self.random.random_range(-20..60);
                let id = format!("reset{index}");
                self.append("period.reset", "urn:ledger:scheduler", &id, json!({"index": index}));
            }
            96..98 => self.clock(),
            98 => self.settings(),
            99 if self.one_in(4) => {
                self.append("account.closed", "urn:ledger:api", "close", json!({"reason": "gone"}));
            }
            100..118 => self.top_ups(),
            118.. => self.refunds(),
            _ => {
                let data = json!({"plan": self.plan()});
                let id = self.name("open", 2);
                self.append("account.opened", "urn:ledger:api", &id, data);
            }
        }
    }

    /// Refunds of the provider, which may fail.
    fn refunds(&mut self) {
        let refund = RefundId::new(&self.name("re/", 6)).unwrap();
        if self.one_in(2) {
            let payment = self.name("pay", 6);
            let data = json!({"payment_id": payment, "refund_id": refund, "amount": self.amount(8)});
            self.refunds.push(data.clone());
            let id = derive::refunded_id(&self.account_id(), &refund);
            return self.append("credits.refunded", derive::API, id.as_str(), data);
        }
        let other = json!({"payment_id": "pay1", "refund_id": refund, "amount": "1"});
        let data = self.refunds.choose(&mut self.random).cloned().unwrap_or(other);
        let id = self.name("refund_failed", 1_000_000);
        self.append("refund.failed", derive::API, &id, data);
    }

    /// Settings that move no credits; alerts among them that affect nothing.
    fn settings(&mut self) {
        let alert = self.name("alert", 2);
        let (kind, data) = match self.random.random_range(0..5) {
            4 => (
                "user_limit.set",
                json!({"user_id": self.name("auth0|", 2), "limit": self.pick(&[Some("7"), Some("unlimited"), None])}),
            ),
            0 => {
                let custom = json!({"user0": self.amount(20), "user1": "unlimited"});
                let custom = self.random.random_bool(0.5).then_some(custom);
                ("limits.set", json!({"default_limit": self.amount(20), "custom": custom}))
            }
            1 => ("org_alert.set", json!({"alert_id": alert, "basis": "percent_used", "threshold": "75"})),
            2 => ("org_alert.removed", json!({"alert_id": alert})),
            _ => ("user_alert.set", json!({"threshold": self.amount(20), "recipients": ["carl"]})),
        };
        // Few ids, so that some come again with the same content or with another.
        let id = self.name("setting", 8);
        self.append(kind, "urn:ledger:api", &id, data);
    }

    fn account_id(&self) -> AccountId {
        AccountId::new(&self.account).unwrap()
    }

    /// An attempt's number: mostly the next, or one of the last.
    fn attempt(&mut self) -> AttemptId {
        let number = self.attempts.saturating_sub(self.random.random_range(0..3)).max(1);
        derive::attempt_id(&self.account_id(), number)
    }

    fn top_ups(&mut self) {
        let id = self.name("top_up", 1_000_000);
        let payment = self.name("pay", 6);
        match self.random.random_range(0..12) {
            0 | 1 => {
                self.saved = self.amount(30);
                let data = json!({
                    "enabled": !self.one_in(8), "basis": self.pick(&["credit_balance", "available_balance"]),
                    "threshold": self.amount(20), "amount": self.saved, "payment_method": "pm_ok",
                    "max_per_period": self.pick(&[1, 2, 10]), "max_amount_per_period": self.amount(90),
                });
                self.append("auto_top_up.set", "urn:ledger:api", &id, data);
            }
            2..6 => {
                self.attempts += u32::from(!self.one_in(6));
                let (attempt, amount) = (self.attempt(), self.saved.clone());
                let data = json!({"attempt_id": attempt, "amount": amount, "payment_method": "pm_ok"});
                self.append("top_up.started", derive::TOP_UPS, attempt.as_str(), data);
            }
            6 | 7 => {
                let data = json!({"attempt_id": self.attempt(), "reason": "declined"});
                self.append("top_up.failed", derive::TOP_UPS, &id, data);
            }
            8 | 9 => {
                let payment = if self.one_in(4) { payment } else { self.name("pi", 9) };
                let data = json!({"attempt_id": self.attempt(), "payment_id": payment, "amount": self.saved});
                self.append("credits.topped_up", derive::TOP_UPS, &id, data);
            }
            10 if !self.one_in(3) => {
                let payment = if self.one_in(2) { payment } else { self.name("pi", 9) };
                let dispute = DisputeId::new(&self.name("dispute", 6)).unwrap();
                let data = json!({"payment_id": payment, "dispute_id": dispute, "amount": self.amount(5)});
                self.disputes.push(data.clone());
                let id = derive::dispute_opened_id(&self.account_id(), &dispute);
                self.append("dispute.opened", derive::DISPUTES, id.as_str(), data);
            }
            _ => {
                let other = json!({"payment_id": payment, "dispute_id": "dispute1", "amount": "1"});
                let data = self.disputes.choose(&mut self.random).cloned().unwrap_or(other);
                self.append("dispute.won", derive::DISPUTES, &id, data);
            }
        }
    }

    fn usage(&mut self) {
        let source = self.pick(&["/app", "/app", "/app", "/other"]);
        let id = self.name("u", 30);
        let mut data = json!({"credits": self.amount(12)});
        match self.random.random_range(0..6) {
            0 => data["credits"] = json!("0"),
            1 | 2 => data["user_id"] = json!(self.name("user", 3)),
            4 => data["call_id"] = json!(self.name("chat/cmpl-", 9)),
            3 => {
                data = json!({"category": "c", "quantities": {"x": "2.5"}, "credits": "0.833333333", "lines": [
                    {"quantity": "x", "amount": "2.5", "unit_credits": "1", "per": "3", "credits": "0.833333333",
                     "rate_card": "r", "version": self.random.random_range(1..3)}]});
            }
            _ => {}
        }
        // A resend: same id, same time, perhaps the same content.
        let again = self.records.choose(&mut self.random).map(|record| record["event"].clone());
        match again {
            Some(event) if self.one_in(6) && event["type"] == "ledger.usage.recorded.v1" => {
                let (source, id) = (event["source"].as_str().unwrap(), event["id"].as_str().unwrap());
                let occurred = event["time"].as_str().unwrap().parse().unwrap();
                self.record("usage.recorded", (source, id), occurred, self.appended, event["data"].clone());
            }
            _ => self.append("usage.recorded", source, &id, data),
        }
    }

    fn grant(&mut self) {
        let id = if self.one_in(30) { self.name("plan:", 4) } else { self.name("g", 12) };
        let origin = self.pick(&["welcome", "promo", "referral", "adjustment"]);
        let mut data = json!({"grant_id": id, "source": origin, "amount": self.amount(25)});
        if self.one_in(3) {
            data["priority"] = json!(self.pick(&[0, 10, 20, 40, 41]));
        }
        let mut start = self.appended;
        if self.one_in(3) {
            start = self.appended.plus_seconds(self.pick(&[-DAY, -1, 0, HOUR, DAY, 10 * DAY, 90 * DAY]));
            data["effective_at"] = json!(start);
        }
        if self.one_in(2) {
            data["expires_at"] = json!(start.plus_seconds(self.pick(&[1, HOUR, DAY, 10 * DAY, 40 * DAY])));
        }
        let source = self.pick(&["urn:ledger:grants", "urn:ledger:grants", "urn:ledger:other"]);
        self.append("credits.granted", source, &id, data);
    }

    fn clock(&mut self) {
        let ahead = if self.one_in(10) { 20_000 * DAY } else { self.random.random_range(0..20 * DAY) };
        let id = self.name("tick", 1_000_000);
        let to = self.appended.plus_seconds(ahead);
        self.record("clock.advanced", ("urn:ledger:scheduler", &id), to, to, json!({"advance_to": to}));
        if ahead < 100 * DAY {
            self.appended = self.appended.plus_seconds(ahead);
        }
    }
}

/// Numbers the records of all histories as the log would.
fn journal() -> Vec<Value> {
    let mut records = Vec::new();
    let mut next = vec![0_u64; PARTITIONS.get() as usize];
    for number in 0..HISTORIES {
        for mut record in History::new(number).tell() {
            let offset = &mut next[usize::try_from(record["partition"].as_u64().unwrap()).unwrap()];
            record["offset"] = json!(*offset);
            *offset += 1;
            records.push(record);
        }
    }
    records
}

/// Runs the auditor's program on a journal: one answer a record, then everything as one object.
fn refolded(input: String) -> (Vec<Value>, Value) {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../audit/refold.py");
    let mut child = Command::new("python3")
        .arg(program)
        .arg("--events")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "refold.py ended with {}", output.status);
    let mut lines: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let shown = lines.pop().unwrap();
    (lines, shown)
}

fn fact(record: &Value) -> Fact {
    let event = decode(&serde_json::to_vec(&record["event"]).unwrap()).unwrap();
    let appended_at = record["timestamp"].as_str().unwrap().parse().unwrap();
    Fact::new(event, appended_at, record["offset"].as_i64().unwrap())
}

fn figures(balance: &Balance) -> Value {
    let lots: Vec<Value> = balance.lots.iter().map(|lot| serde_json::to_value(lot).unwrap()).collect();
    json!({"settled": balance.settled, "credit_balance": balance.credit_balance, "overdraft": balance.overdraft,
           "allowance": balance.allowance, "rollover": balance.rollover, "used": balance.used, "period_maximum": balance.period_maximum,
           "period": {"index": balance.period.index, "starts_at": balance.period.starts_at, "ends_at": balance.period.ends_at},
           "lots": by_id(lots)})
}

fn by_id(mut lots: Vec<Value>) -> Vec<Value> {
    lots.sort_by_key(|lot| lot["grant_id"].as_str().unwrap().to_owned());
    lots
}

/// The first difference in a history: the first record with another outcome, else the figures.
/// Users' own limits that are in force.
fn own_limits(account: &Account) -> BTreeMap<String, String> {
    let limits = account.core.as_ref().and_then(|core| core.limits.as_ref());
    let own = account.own_limits.iter();
    own.filter_map(|(user, own)| Some((user.to_string(), limits?.own(Some(own))?.to_string()))).collect()
}

fn difference(records: &[(&Value, &Value)], memory: &mut Memory, shown: &Value) -> Option<String> {
    let mut report = String::new();
    for (record, line) in records {
        let event = &record["event"];
        let (stamped, kind, id) = (&event["recordedat"], event["type"].as_str()?, &event["id"]);
        let outcome = memory.fold(&[fact(record)]).remove(0).outcome;
        writeln!(
            report,
            "{} {stamped} {kind} {id} {} -> {}",
            record["timestamp"],
            event["data"],
            outcome.as_str()
        )
        .ok()?;
        let ours = json!([outcome.as_str(), outcome.reason().map(|reason| reason.code())]);
        let theirs = json!([line["outcome"], line["reason"]]);
        if ours != theirs {
            return Some(format!("{kind}: {ours}, refold.py {theirs}\n{report}"));
        }
    }
    let account = records[0].0["key"].as_str()?;
    let folded = &memory.accounts[&AccountId::new(account).ok()?];
    let core = folded.core.as_ref()?;
    let mut ours = figures(&Balance::of(core, Credits::ZERO));
    ours["own_limits"] = json!(own_limits(folded));
    let mut theirs = shown["accounts"][account].clone();
    theirs["lots"] = json!(by_id(theirs["lots"].as_array()?.clone()));
    let differs = |figure: &&String| ours[*figure] != theirs[*figure];
    let figure = ours.as_object()?.keys().find(differs)?;
    Some(format!("{figure}: {}, refold.py {}\n{report}", ours[figure], theirs[figure]))
}

#[test]
fn a_second_implementation_folds_random_histories_alike() {
    let records = journal();
    let (lines, shown) = refolded(records.iter().map(|record| format!("{record}\n")).collect());
    assert_eq!(lines.len(), records.len());
    assert_eq!(shown["problems"], json!([]));
    let (mut kinds, mut applied) = (BTreeSet::new(), BTreeSet::new());
    let mut histories: BTreeMap<&str, Vec<(&Value, &Value)>> = BTreeMap::new();
    for (record, line) in records.iter().zip(&lines) {
        kinds.insert(format!("{} {}", line["outcome"], line["reason"]));
        if line["outcome"] == "applied" {
            applied.insert(record["event"]["type"].as_str().unwrap());
        }
        histories.entry(record["key"].as_str().unwrap()).or_default().push((record, line));
    }
    let mut memory = Memory::default();
    let differences: Vec<String> =
        histories.values().filter_map(|history| difference(history, &mut memory, &shown)).collect();
    for difference in &differences {
        eprintln!("{difference}");
    }
    assert!(differences.is_empty(), "{} of {} histories differ", differences.len(), histories.len());
    for reason in [
        "top_up_not_due",
        "attempt_out_of_order",
        "attempt_not_open",
        "dispute_unknown",
        "refund_unknown",
        "account_closed",
    ] {
        assert!(kinds.contains(&format!("\"rejected\" \"{reason}\"")), "never {reason}: {kinds:?}");
    }
    assert!(kinds.len() > 15, "too few kinds of outcomes: {kinds:?}");
    for kind in [
        "top_up.started",
        "top_up.failed",
        "credits.topped_up",
        "dispute.opened",
        "dispute.won",
        "refund.failed",
        "account.closed",
    ] {
        assert!(applied.contains(format!("ledger.{kind}.v1").as_str()), "never {kind}: {applied:?}");
    }
}

/// Figures that the auditor's program shows.
const FIGURES: [&str; 8] =
    ["settled", "credit_balance", "overdraft", "allowance", "rollover", "used", "period_maximum", "period"];

#[tokio::test(flavor = "multi_thread")]
async fn what_auditors_read_refolds_to_the_balances_that_the_service_shows() -> Result<()> {
    let whole = Whole::start().await?;
    as_of::write_history(&whole, 31, 12, 80).await?;
    let topic = whole.kafka.topics().events;
    let appender = Appender::new(&whole.kafka, &topic, whole.kafka.partitions)?;
    appender.append(b"acme", b"no event").await?;
    tell(&whole).await?;
    as_of::at_rest(&whole).await?;

    let auditor = whole.keyed("auditor", &[], None).await?;
    let mut journal = String::new();
    for partition in 0..whole.kafka.partitions {
        let path = format!("/v1/audit/events?partition={partition}");
        journal += &auditor.get(&path).await?.expect(200)?.text;
    }
    let (lines, shown) = tokio::task::spawn_blocking(move || refolded(journal)).await?;
    ensure!(shown["problems"] == json!([]) && shown["dead_letters"] == 1, "{}", shown["problems"]);
    let accounts = shown["accounts"].as_object().context("accounts")?;
    ensure!(accounts.len() == 13, "{} accounts", accounts.len());
    for (account, refolded) in accounts {
        ensure_alike(&auditor, account, refolded).await?;
    }
    for line in lines.iter().filter(|line| line["id"].is_string() && line["outcome"] == "applied") {
        let (account, id, source) = (text(line, "account"), text(line, "id"), text(line, "source"));
        let path = format!("/v1/accounts/{account}/events/{id}?source={source}");
        let event = auditor.get(&path).await?;
        let found = json!([event.expect(200)?.body["outcome"], event.body["position"]["offset"]]);
        ensure!(found == json!(["applied", line["offset"]]), "{line}: {}", event.text);
    }
    whole.replay_and_stop().await
}

fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_default()
}

/// A story through the APIs, priced by a card.
async fn tell(whole: &Whole) -> Result<()> {
    let prices = json!({"tokens": {"credits": "1", "per": "3"}});
    let card = json!({"meters": [{"category": "ai_usage", "prices": prices}]});
    whole.operator().put("/v1/rate-cards/thirds", card).await?.expect(200)?;
    let plan = json!({"allowance": "5", "rollover": {"mode": "unlimited"}, "rate_card": "thirds"});
    let story = Story::monthly(whole, "acme", plan).await?;
    for number in 1..=9 {
        let body = json!({"category": "ai_usage", "quantities": {"tokens": number}, "user_id": "ana"});
        story.usage(&format!("2026-01-1{number}T00:00:00Z"), &format!("u{number}"), body).await?;
    }
    story.post("2026-01-20T00:00:00Z", "/purchases", json!({"payment_id": "p", "amount": "20"})).await?;
    story.post("2026-01-21T00:00:00Z", "/usage/u7/reversal", json!({"reason": "wrong"})).await?;
    story.post("2026-01-22T00:00:00Z", "/refunds", json!({"payment_id": "p", "amount": "19"})).await?;
    story.clock("2026-04-01T00:00:00Z").await.map(drop)
}

async fn ensure_alike(auditor: &Caller, account: &str, refolded: &Value) -> Result<()> {
    let balance = auditor.get(&format!("/v1/accounts/{account}/balance")).await?;
    let shown = &balance.expect(200)?.body;
    for figure in FIGURES {
        ensure!(
            shown[figure] == refolded[figure],
            "{account}: {figure} is {}, refolded {}",
            shown[figure],
            refolded[figure]
        );
    }
    ensure!(shown["recorded_at"] == refolded["ledger_time"], "{account}: {}", balance.text);
    let own = auditor.get(&format!("/v1/accounts/{account}/limits/users?limit=500")).await?;
    let listed: serde_json::Map<String, Value> = items_of(own.expect(200)?)?
        .into_iter()
        .map(|own| (text(&own, "user_id").to_owned(), own["limit"].clone()))
        .collect();
    let count = auditor.get(&format!("/v1/accounts/{account}/limits")).await?;
    ensure!(count.expect(200)?.body["own_limits"] == listed.len(), "{account}: {}", count.text);
    ensure!(
        Value::Object(listed) == refolded["own_limits"],
        "{account}: {}, refolded {}",
        own.text,
        refolded["own_limits"]
    );
    let lots = |value: &Value| by_id(value["lots"].as_array().cloned().unwrap_or_default());
    ensure!(lots(shown) == lots(refolded), "{account}: {}, refolded {}", shown["lots"], refolded["lots"]);
    let users = auditor.get(&format!("/v1/accounts/{account}/users?limit=500")).await?;
    let mut used = serde_json::Map::new();
    for user in items_of(users.expect(200)?)?.iter().filter(|user| user["used"] != "0") {
        used.insert(text(user, "user_id").to_owned(), user["used"].clone());
    }
    ensure!(
        Value::Object(used) == refolded["users"],
        "{account}: {}, refolded {}",
        users.text,
        refolded["users"]
    );
    Ok(())
}
