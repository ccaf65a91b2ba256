//! Random histories of accounts: every type of event, repeated ids, and what rules refuse among them.

use ledger_core::event::{Data, Event, derive, wire};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, DisputeId, EventId, Label, Source};
use ledger_core::value::time::Time;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// An account's key and one event of it, in log order.
pub type Written = (AccountId, Event);

/// Returns the events of `accounts` accounts, `events` of each, well mixed. The same seed gives the same ones.
pub fn history(seed: u64, accounts: usize, events: usize) -> Vec<Written> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut stories: Vec<Story> = (0..accounts).map(|n| Story::new(&format!("acct-{seed}-{n}"))).collect();
    let mut written = Vec::with_capacity(accounts * events);
    for _ in 0..events * accounts {
        let at = rng.random_range(0..stories.len());
        let event = stories[at].next(&mut rng);
        written.push((event.account.clone(), event));
    }
    written
}

const USERS: [&str; 3] = ["ana", "bo", "cy"];

struct Story {
    account: AccountId,
    now: Time,
    events: Vec<Event>,
    opened: bool,
    n: usize,
    attempts: u32,
    /// Payments of top-ups, each with the number of its dispute.
    disputed: Vec<(String, usize)>,
}

impl Story {
    fn new(account: &str) -> Story {
        let account = AccountId::new(account).expect("an id");
        let now = "2026-01-30T22:30:00Z".parse().expect("a time");
        let (events, disputed) = (Vec::new(), Vec::new());
        Story { account, now, events, opened: false, n: 0, attempts: 0, disputed }
    }

    fn next(&mut self, rng: &mut StdRng) -> Event {
        self.n += 1;
        // Mostly minutes, at times days: boundaries, starts and ends are crossed, now and then several at once.
        let seconds =
            if rng.random_bool(0.1) { rng.random_range(0..900_000) } else { rng.random_range(0..7_000) };
        self.now = self.now.plus_seconds(seconds);
        let event = match rng.random_range(0..126) {
            _ if !self.opened && self.n > 2 => self.open(rng),
            0..8 if !self.events.is_empty() => self.again(rng),
            8..10 => self.open(rng),
            kind => self.event(rng, kind),
        };
        self.events.push(event.clone());
        event
    }

    fn event(&mut self, rng: &mut StdRng, kind: u32) -> Event {
        let now = self.now;
        let n = self.n;
        let (event_type, source, id, data) = match kind {
            10..55 => ("usage.recorded", "/app", format!("use-{n}"), usage(rng)),
            55..62 => {
                let (id, source) = self.earlier_usage(rng);
                let data = json!({"event_id": id, "source": source, "reason": "wrong"});
                ("usage.reversed", derive::API, format!("reversal-{n}"), data)
            }
            62..71 => {
                let effective =
                    rng.random_bool(0.4).then(|| now.plus_seconds(rng.random_range(-1_000..400_000)));
                // After its start, as the wire has it; before now at times, which the fold refuses.
                let from = effective.unwrap_or(now.plus_seconds(-1_000));
                let expires = rng.random_bool(0.5).then(|| from.plus_seconds(rng.random_range(1..900_000)));
                let data = json!({"grant_id": format!("g-{}", rng.random_range(0..n)), "source": "promo",
                    "amount": amount(rng, 60), "effective_at": effective, "expires_at": expires, "reason": "spring"});
                ("credits.granted", derive::GRANTS, format!("g-{n}"), data)
            }
            71..75 => {
                let data = json!({"grant_id": format!("g-{}", rng.random_range(0..n))});
                ("grant.voided", derive::API, format!("void-{n}"), data)
            }
            75..80 => {
                let sign = if rng.random_bool(0.6) { "-" } else { "" };
                let data = json!({"amount": format!("{sign}{}", amount(rng, 40)), "reason": "goodwill"});
                ("credits.adjusted", derive::API, format!("adjust-{n}"), data)
            }
            80..85 => {
                let payment = format!("pay-{}", rng.random_range(0..n));
                let data = json!({"payment_id": payment, "amount": amount(rng, 90)});
                ("credits.purchased", derive::GRANTS, payment, data)
            }
            85..89 => {
                let payment = format!("pay-{}", rng.random_range(0..n));
                let data = json!({"payment_id": payment, "amount": amount(rng, 60)});
                ("credits.refunded", derive::API, format!("refund-{n}"), data)
            }
            89..92 => {
                let at = if rng.random_bool(0.5) { "now" } else { "next_period" };
                ("plan.changed", derive::API, format!("plan-{n}"), json!({"plan": plan(rng), "at": at}))
            }
            92..94 => {
                let policy = if rng.random_bool(0.5) { "carry" } else { "forgive_at_reset" };
                let data = json!({"name": "renamed", "overdraft": policy, "low_balance_threshold": null});
                ("account.changed", derive::API, format!("change-{n}"), data)
            }
            100..120 => return self.of_the_provider(rng),
            120..125 => {
                let limit = of(rng, &["7", "0.5", "unlimited"]);
                let limit = rng.random_bool(0.8).then_some(limit);
                let data = json!({"user_id": of(rng, &USERS), "limit": limit});
                ("user_limit.set", derive::API, format!("own-limit-{n}"), data)
            }
            125.. => {
                let custom = json!({(of(rng, &USERS)): "9", "never": "unlimited"});
                let custom = rng.random_bool(0.6).then_some(custom);
                let data = json!({"default_limit": amount(rng, 90), "custom": custom});
                ("limits.set", derive::API, format!("limits-{n}"), data)
            }
            94..97 => ("clock.advanced", derive::SCHEDULER, format!("tick-{n}"), json!({"advance_to": now})),
            _ => {
                let index = rng.random_range(-2..40);
                ("period.reset", derive::SCHEDULER, format!("reset-{index}"), json!({"index": index}))
            }
        };
        self.written(rng, event_type, source, &id, &data)
    }

    /// Top-ups and disputes, most of them as they may come.
    fn of_the_provider(&mut self, rng: &mut StdRng) -> Event {
        let n = self.n;
        let attempt = derive::attempt_id(&self.account, self.attempts.max(1));
        let (event_type, source, id, data) = match rng.random_range(0..10) {
            0 => {
                let data =
                    json!({"enabled": true, "threshold": "20", "amount": "25", "payment_method": "pm_ok"});
                ("auto_top_up.set", derive::API, format!("auto-{n}"), data)
            }
            1..4 => {
                self.attempts += 1;
                let attempt = derive::attempt_id(&self.account, self.attempts);
                let data = json!({"attempt_id": attempt, "amount": "25", "payment_method": "pm_ok"});
                ("top_up.started", derive::TOP_UPS, attempt.to_string(), data)
            }
            4 | 5 => {
                let data = json!({"attempt_id": attempt, "reason": "declined"});
                ("top_up.failed", derive::TOP_UPS, format!("failed-{n}"), data)
            }
            6 => {
                let data = json!({"attempt_id": attempt, "payment_id": format!("pay-{n}"), "amount": "25"});
                self.disputed.push((format!("pay-{n}"), n));
                ("credits.topped_up", derive::TOP_UPS, format!("paid-{n}"), data)
            }
            kind => {
                let (payment, dispute) = match self.disputed.last() {
                    Some((payment, dispute)) => (payment.clone(), format!("dp-{dispute}")),
                    None => ("pay-1".to_owned(), "dp-1".to_owned()),
                };
                let dispute = DisputeId::new(&dispute).expect("an id");
                let data = json!({"payment_id": payment, "dispute_id": dispute, "amount": "20"});
                let opened = derive::dispute_opened_id(&self.account, &dispute).to_string();
                match kind {
                    7 | 8 => ("dispute.opened", derive::DISPUTES, opened, data),
                    _ => ("dispute.won", derive::DISPUTES, format!("won-{n}"), data),
                }
            }
        };
        self.written(rng, event_type, source, &id, &data)
    }

    fn open(&mut self, rng: &mut StdRng) -> Event {
        self.opened = true;
        let clock = if rng.random_bool(0.5) { "test" } else { "live" };
        let data = json!({"name": "Acme", "clock": clock, "plan": plan(rng), "low_balance_threshold": "5"});
        let id = derive::opening_id(&self.account);
        self.written(rng, "account.opened", derive::API, id.as_str(), &data)
    }

    /// An earlier id: with its content, or at times with another.
    fn again(&mut self, rng: &mut StdRng) -> Event {
        let mut event = self.events[rng.random_range(0..self.events.len())].clone();
        event.recorded_at = self.now;
        if let (Data::UsageRecorded(usage), true) = (&mut event.data, rng.random_bool(0.4)) {
            usage.credits = Some(Credits::whole(77));
            usage.lines = None;
        }
        event
    }

    fn earlier_usage(&self, rng: &mut StdRng) -> (String, String) {
        let usages: Vec<&Event> =
            self.events.iter().filter(|event| matches!(event.data, Data::UsageRecorded(_))).collect();
        if usages.is_empty() || rng.random_bool(0.1) {
            return ("no-such".to_owned(), "/app".to_owned());
        }
        // Mostly a recent one: old ones lie in closed periods.
        let recent = if rng.random_bool(0.7) { 4 } else { usize::MAX };
        let back = rng.random_range(0..usages.len().min(recent));
        let event = usages[usages.len() - 1 - back];
        (event.id.to_string(), event.source.to_string())
    }

    fn written(&self, rng: &mut StdRng, event_type: &str, source: &str, id: &str, data: &Value) -> Event {
        let data = wire::data(&format!("ledger.{event_type}.v1"), &data.to_string());
        Event {
            id: EventId::new(id).expect("an id"),
            source: Source::new(source).expect("a source"),
            account: self.account.clone(),
            occurred_at: self.now.plus_seconds(-rng.random_range(0..100_000)),
            recorded_at: self.now,
            actor: Label::new("key_1").expect("an actor"),
            data: data.expect("a known type").expect("a well-formed body"),
        }
    }
}

fn amount(rng: &mut StdRng, below: i64) -> String {
    let whole = rng.random_range(1..below);
    if rng.random_bool(0.5) {
        format!("{whole}.{:09}", rng.random_range(0..1_000_000_000))
    } else {
        whole.to_string()
    }
}

fn usage(rng: &mut StdRng) -> Value {
    let pick = |rng: &mut StdRng, names: &[&str]| {
        let at = rng.random_range(0..=names.len());
        names.get(at).map(|name| (*name).to_owned())
    };
    let mut usage = json!({
        "user_id": pick(rng, &USERS),
        "org_id": pick(rng, &["acme", "emca"]),
        "feature": pick(rng, &["agent_chat", "workflow"]),
        "category": pick(rng, &["ai_usage", "tool_calls"]),
        "model": pick(rng, &["gpt \"4\"\\\\", "o1"]),
        "tier": pick(rng, &["advanced"]),
        "message_id": pick(rng, &["msg-1", "msg-2"]),
        "metadata": {"agent": "süß\t\"x\"\\"},
        "quantities": {"input_tokens": rng.random_range(0..3) * 600, "output_tokens": "0.25"},
        "credits": amount(rng, 12),
    });
    if rng.random_bool(0.1) {
        usage["credits"] = json!("0");
    }
    usage
}

fn of(rng: &mut StdRng, names: &[&str]) -> String {
    names[rng.random_range(0..names.len())].to_owned()
}

fn plan(rng: &mut StdRng) -> Value {
    json!({
        "cycle": of(rng, &["daily", "weekly", "monthly"]),
        "timezone": of(rng, &["UTC", "Europe/Berlin", "America/Los_Angeles"]),
        "anchor": if rng.random_bool(0.3) { json!("2026-01-31T00:00:00Z") } else { Value::Null },
        "allowance": amount(rng, 30),
        "rollover": {"mode": of(rng, &["none", "capped", "unlimited"]), "cap": null},
        "pack_expiry": of(rng, &["never", "period_end"]),
        "rate_card": "standard",
    })
}
