//! Judge: whether usage can be taken, at which time it is recorded, and what it costs.

use ledger_core::event::{Clock, Data, Event, Line, wire};
use ledger_core::request::{self, Offer};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::Label;
use ledger_core::value::time::Time;

use super::admitted::{Admitted, NamedHold};
use super::known_accounts::Account;
use super::ledger_time::{CLOCK_IS_LIVE, CLOCK_JUMP, clock_jump_detail, recorded_at};
use super::refusal::{Refusal, too_large};

/// How the usage was written, which decides what its fields are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A CloudEvent, with the usage under `data`.
    CloudEvent,
    /// Plain JSON for one account.
    Plain,
}

impl Form {
    fn time(self) -> String {
        match self {
            Form::CloudEvent => "time".into(),
            Form::Plain => "occurred_at".into(),
        }
    }

    fn data(self, field: &str) -> String {
        match self {
            Form::CloudEvent => format!("data.{field}"),
            Form::Plain => field.to_owned(),
        }
    }
}

/// What the ledger adds to usage on admission.
#[derive(Debug, Clone)]
pub struct Stamp {
    pub actor: Label,
    pub now: Time,
    /// The recording time from the caller, for test accounts.
    pub ledger_time: Option<Time>,
    pub form: Form,
}

impl Stamp {
    /// Returns the time that a write to this account is recorded at; none where the caller may not set one.
    pub fn recorded_at(&self, account: &Account) -> Option<Time> {
        recorded_at(account, self.ledger_time, self.now)
    }
}

/// What is known about usage before it is judged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// The journal has its id already: it folds to a duplicate or a conflict and costs nothing.
    pub known: bool,
    /// When the named hold was last granted credits or time: the usage is recorded no earlier.
    pub not_before: Option<Time>,
}

/// The terms that usage is recorded with.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    pub recorded_at: Time,
    /// Lines and their sum; none where the caller gave the credits.
    pub priced: Option<(Vec<Line>, Credits)>,
}

pub fn judge(offer: &Offer, account: Option<&Account>, stamp: &Stamp, seen: Seen) -> Result<Terms, Refusal> {
    let account = account.ok_or_else(|| Refusal::account_not_found(&offer.account))?;
    let recorded_at = stamp
        .recorded_at(account)
        .ok_or_else(|| Refusal::new(CLOCK_IS_LIVE, "Ledger-Time is for accounts on a test clock"))?;
    let recorded_at = seen.not_before.map_or(recorded_at, |decided_at| recorded_at.max(decided_at));
    if account.jumps {
        return Err(Refusal::new(CLOCK_JUMP, clock_jump_detail()).doubtful());
    }
    if seen.known {
        let priced =
            offer.usage.credits.is_none().then(|| price(offer, account, stamp.form).unwrap_or_default());
        return Ok(Terms { recorded_at, priced });
    }
    if account.closed && offer.usage.reservation_id.is_none() {
        return Err(Refusal::account_closed(&offer.account).doubtful());
    }
    if let Some(error) = request::check_age(offer.occurred_at, recorded_at, &stamp.form.time()) {
        let refusal = Refusal::invalid(vec![error]);
        // A live account's clock does not lag; the knowledge of an old id may.
        let settled = account.clock == Clock::Live && refusal.code == "too_new";
        return Err(if settled { refusal } else { refusal.doubtful() });
    }
    if offer.usage.credits.is_some() {
        return Ok(Terms { recorded_at, priced: None });
    }
    let priced = price(offer, account, stamp.form)?;
    Ok(Terms { recorded_at, priced: Some(priced) })
}

fn price(offer: &Offer, account: &Account, form: Form) -> Result<(Vec<Line>, Credits), Refusal> {
    let unpriced =
        |detail: String| Refusal::field(form.data("quantities"), "unpriced_usage", detail).doubtful();
    let Some(card) = &account.card else {
        return Err(unpriced(match &account.rate_card {
            Some(card) => format!("rate card {card} is not published"),
            None => format!("neither credits are given nor has account {} a rate card", offer.account),
        }));
    };
    card.prices.price(&offer.usage, &card.name, card.version).map_err(|error| unpriced(error.to_string()))
}

/// Makes the event of accepted usage.
pub fn event(offer: Offer, terms: Terms, actor: &Label) -> Event {
    let Offer { id, source, account, occurred_at, mut usage } = offer;
    if let Some((lines, credits)) = terms.priced {
        usage.lines = Some(lines);
        usage.credits = Some(credits);
    }
    let (recorded_at, actor) = (terms.recorded_at, actor.clone());
    Event { id, source, account, occurred_at, recorded_at, actor, data: Data::UsageRecorded(usage) }
}

/// Makes the record of accepted usage.
pub fn record(offer: Offer, terms: Terms, actor: &Label) -> Result<Admitted, Refusal> {
    let event = event(offer, terms, actor);
    let bytes = wire::encode(&event);
    if bytes.len() > wire::RECORD_BYTES_MAX {
        return Err(too_large(bytes.len()));
    }
    let Event { account, id, source, .. } = event;
    Ok(Admitted { account, id, source, bytes, hold: NamedHold::None, first: None })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::rate_cards::Card;
    use super::*;
    use ledger_core::request::read_offer;
    use ledger_core::value::id::RateCardId;

    const NOW: &str = "2026-02-03T10:00:00Z";

    fn offer(time: &str, data: &str) -> Offer {
        let event = format!(
            r#"{{"specversion":"1.0","id":"e1","source":"/app","type":"ledger.usage.recorded.v1","subject":"acme",
            "time":"{time}","data":{data}}}"#
        );
        read_offer(event.as_bytes()).expect("an offer")
    }

    fn account(clock: Clock, carded: bool) -> Account {
        let name = RateCardId::new("std").expect("an id");
        let prices = r#"{"meters":[{"category":"c","prices":{"x":{"credits":"2","per":"1"}}}]}"#;
        let card =
            Card { name: name.clone(), version: 3, prices: serde_json::from_str(prices).expect("a card") };
        Account {
            clock,
            ledger_time: "2026-01-01T00:00:00Z".parse().expect("a time"),
            rate_card: carded.then_some(name),
            card: carded.then(|| Arc::new(card)),
            jumps: false,
            closed: false,
        }
    }

    fn stamp(ledger_time: Option<&str>) -> Stamp {
        Stamp {
            actor: Label::new("key_1").expect("a label"),
            now: NOW.parse().expect("a time"),
            ledger_time: ledger_time.map(|time| time.parse().expect("a time")),
            form: Form::CloudEvent,
        }
    }

    fn said(outcome: Result<Terms, Refusal>) -> String {
        match outcome {
            Ok(Terms { priced: None, .. }) => "credits as given".into(),
            Ok(Terms { priced: Some((lines, credits)), .. }) => format!("{credits} in {} lines", lines.len()),
            Err(refusal) => format!("{} {:?}", refusal.code, refusal.certainty),
        }
    }

    #[test]
    fn usage_is_priced_by_credits_given_or_by_the_card() {
        let check = |data: &str, carded: bool, expected: &str| {
            let outcome =
                judge(&offer(NOW, data), Some(&account(Clock::Live, carded)), &stamp(None), Seen::default());
            assert_eq!(said(outcome), expected, "{data}");
        };
        check(r#"{"credits":"1"}"#, false, "credits as given");
        check(r#"{"credits":"0"}"#, false, "credits as given");
        check(r#"{"category":"c","quantities":{"x":2}}"#, true, "4 in 1 lines");
        check(r#"{"category":"c","quantities":{"x":2},"credits":"1"}"#, true, "credits as given");
        check(r#"{"category":"c","quantities":{"x":2}}"#, false, "unpriced_usage Doubtful");
        check(r#"{"category":"c","quantities":{"y":2}}"#, true, "unpriced_usage Doubtful");
        check("{}", true, "unpriced_usage Doubtful");
    }

    #[test]
    fn age_is_measured_from_the_recording_time() {
        let check = |clock: Clock, time: &str, given: Option<&str>, expected: &str| {
            let outcome = judge(
                &offer(time, r#"{"credits":"1"}"#),
                Some(&account(clock, false)),
                &stamp(given),
                Seen::default(),
            );
            assert_eq!(said(outcome), expected, "{time}");
        };
        check(Clock::Live, "2026-02-03T10:05:00Z", None, "credits as given");
        check(Clock::Live, "2026-02-03T10:05:01Z", None, "too_new Final");
        check(Clock::Live, "2025-12-01T00:00:00Z", None, "too_old Doubtful");
        check(Clock::Test, NOW, None, "too_new Doubtful");
        check(Clock::Test, NOW, Some(NOW), "credits as given");
        check(Clock::Live, NOW, Some(NOW), "clock_is_live Final");
    }

    #[test]
    fn a_known_id_is_taken_again_however_old_and_whatever_the_prices_are_now() {
        let seen = Seen { known: true, ..Seen::default() };
        let known = |time: &str, data: &str| {
            said(judge(&offer(time, data), Some(&account(Clock::Live, true)), &stamp(None), seen))
        };
        assert_eq!(known("2020-01-01T00:00:00Z", r#"{"credits":"1"}"#), "credits as given");
        assert_eq!(known(NOW, r#"{"category":"gone","quantities":{"x":1}}"#), "0 in 0 lines");
    }

    #[test]
    fn usage_that_names_a_hold_is_judged_by_the_time_of_the_hold() {
        let later = "2026-01-09T00:00:00Z";
        let of_hold = |decided_at: Option<&str>| {
            let not_before = decided_at.map(|time| time.parse().expect("a time"));
            let seen = Seen { not_before, ..Seen::default() };
            judge(&offer(later, r#"{"credits":"1"}"#), Some(&account(Clock::Test, false)), &stamp(None), seen)
        };
        assert_eq!(said(of_hold(None)), "too_new Doubtful");
        let terms = of_hold(Some(later)).expect("no newer than its hold");
        assert_eq!(terms.recorded_at.to_string(), later);
    }

    #[test]
    fn a_closed_account_takes_no_usage_but_what_settles_a_hold_and_repeats() {
        let closed = Account { closed: true, ..account(Clock::Live, false) };
        let said = |data: &str, known: bool| {
            let seen = Seen { known, ..Seen::default() };
            said(judge(&offer(NOW, data), Some(&closed), &stamp(None), seen))
        };
        assert_eq!(said(r#"{"credits":"1"}"#, false), "account_closed Doubtful");
        assert_eq!(said(r#"{"credits":"1","reservation_id":"r"}"#, false), "credits as given");
        assert_eq!(said(r#"{"credits":"1"}"#, true), "credits as given");
    }

    #[test]
    fn usage_may_not_move_a_test_clock_too_far() {
        let far = Account { jumps: true, ..account(Clock::Test, false) };
        let outcome =
            judge(&offer(NOW, r#"{"credits":"1"}"#), Some(&far), &stamp(Some(NOW)), Seen::default());
        assert_eq!(said(outcome), "clock_jump Doubtful");
    }

    #[test]
    fn a_record_carries_its_stamp_and_its_lines() {
        let priced = offer(NOW, r#"{"category":"c","quantities":{"x":2}}"#);
        let terms =
            judge(&priced, Some(&account(Clock::Live, true)), &stamp(None), Seen::default()).expect("good");
        let bytes = record(priced, terms, &stamp(None).actor).expect("a record").bytes;
        let event = wire::decode(&bytes).expect("an event");
        let Data::UsageRecorded(usage) = &event.data else { panic!("usage") };
        assert_eq!(event.recorded_at.to_string(), NOW);
        assert_eq!(event.actor.as_str(), "key_1");
        assert_eq!(usage.credits.map(|credits| credits.to_string()).as_deref(), Some("4"));
        assert_eq!(usage.lines.as_ref().map(|lines| lines[0].version), Some(3));
    }

    #[test]
    fn a_record_past_64_kib_is_refused() {
        let long = "x".repeat(wire::RECORD_BYTES_MAX);
        let large = offer(NOW, &format!(r#"{{"credits":"1","metadata":{{"k":"{long}"}}}}"#));
        let terms =
            judge(&large, Some(&account(Clock::Live, false)), &stamp(None), Seen::default()).expect("good");
        let refused = record(large, terms, &stamp(None).actor).expect_err("too large");
        assert_eq!(refused.code, "too_large");
    }
}
