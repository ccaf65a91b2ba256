//! The door: what a caller sends is read here, strictly, and every bad field is named.
//!
//! A body is read into the same struct that the journal holds. Where that fails, `read` goes over the body again,
//! puts a known good value in place of each bad one, and so finds them all.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::event::field_error::FieldError;
use crate::event::shape::Object;
use crate::event::{
    Adjust, AdvanceClock, Basis, ChangeAccount, ChangePlan, Data, Dispute, FailTopUp, Grant, OpenAccount,
    PlanBody, Purchase, Recipients, Refund, RemoveOrgAlert, RolloverMode, SetAutoTopUp, SetLimits,
    SetOrgAlert, SetUserAlert, StartTopUp, TopUp, Usage, VoidGrant, wire,
};
use crate::policy::decide::Work;
use crate::policy::hold::{Extend, Reserve, TTL_SECONDS_MAX};
use crate::policy::rate_card::{METERS_MAX, RateCard};
use crate::request::json::{self, Refused};
use crate::value::credits::Credits;
use crate::value::id::{EventId, Id, Label, Source, is_reserved_grant};
use crate::value::time::Time;

/// Most errors that one answer lists.
pub const ERRORS_MAX: usize = 32;
/// Most keys of a usage's metadata.
pub const METADATA_KEYS_MAX: usize = 16;
/// Most quantities of a usage.
pub const QUANTITIES_MAX: usize = 32;
/// Priorities that a grant may be given.
pub const PRIORITIES: std::ops::RangeInclusive<i32> = 0..=1_000;
/// Most users with a limit of their own.
pub const CUSTOM_LIMITS_MAX: usize = 2_000;
/// Most features whose usage does not count toward limits.
pub const EXCLUDED_FEATURES_MAX: usize = 100;
/// Most recipients that a rule names.
pub const RECIPIENTS_MAX: usize = 100;
/// Most that one top-up may buy.
pub const TOP_UP_MAX: Credits = Credits::whole(100_000);
/// How many top-ups a period may be allowed.
pub const TOP_UPS_PER_PERIOD: std::ops::RangeInclusive<u32> = 1..=1_000;
/// How far ahead of its recording usage may say it happened: 5 minutes.
pub const TOO_NEW_SECONDS: i64 = 5 * 60;
/// How long before its recording usage may say it happened: 35 days.
pub const TOO_OLD_SECONDS: i64 = 35 * 24 * 60 * 60;

/// A body that callers may send.
pub trait Body: DeserializeOwned {
    /// A body without fault: where a field is bad, the value found here takes its place, so that reading goes on.
    const GOOD: &'static str;

    /// Adds what the types alone can't refuse; it holds in the journal too.
    fn check(&self, errors: &mut Vec<FieldError>);

    /// Adds what only callers may not say.
    fn check_caller(&self, _: &mut Vec<FieldError>) {}
}

/// Reads a body, or names every bad field.
pub fn read<T: Body>(value: Value) -> Result<T, Vec<FieldError>> {
    let mut errors = Vec::new();
    match read_into(value, "", &mut errors) {
        Some(body) if errors.is_empty() => Ok(body),
        _ => Err(errors),
    }
}

/// Reads a body that stands under `prefix` in what was sent; what is bad about it goes to `errors`.
pub fn read_into<T: Body>(mut value: Value, prefix: &str, errors: &mut Vec<FieldError>) -> Option<T> {
    let good: Value = serde_json::from_str(T::GOOD).expect("a good body is JSON");
    if !value.is_object() {
        let field = if prefix.is_empty() { "body" } else { prefix };
        errors.push(FieldError::new(field, "wrong_type", "must be a JSON object"));
        return None;
    }
    let mut found = Vec::new();
    let mut body = None;
    while found.len() < ERRORS_MAX {
        match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(read) => {
                body = Some(read);
                break;
            }
            Err(error) => {
                let (path, code, detail) = explain(&error);
                if !replace(&mut value, &good, &path) {
                    found.push(FieldError::new(path.join("."), &code, detail));
                    break;
                }
                found.push(FieldError::new(path.join("."), &code, detail));
            }
        }
    }
    if let Some(body) = &body {
        let mut ruled = Vec::new();
        body.check(&mut ruled);
        body.check_caller(&mut ruled);
        // What is said of a whole holds of what was sent, not of what is left of it without the bad fields.
        ruled.retain(|rule| !found.iter().any(|bad| is_within(&bad.field, &rule.field)));
        found.append(&mut ruled);
    }
    for mut error in found {
        if !prefix.is_empty() {
            error.field =
                if error.field.is_empty() { prefix.into() } else { format!("{prefix}.{}", error.field) };
        }
        errors.push(error);
    }
    body
}

/// Says whether a field is another, or a part of it.
fn is_within(field: &str, whole: &str) -> bool {
    whole == "body" || field.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Takes one field out of a body and reads it; a missing or bad one goes to `errors`.
pub fn take<T: DeserializeOwned>(
    body: &mut Map<String, Value>,
    field: &str,
    required: bool,
    errors: &mut Vec<FieldError>,
) -> Option<T> {
    match body.remove(field) {
        None | Some(Value::Null) => {
            if required {
                errors.push(FieldError::new(field, "required", "is required"));
            }
            None
        }
        Some(value) => match T::deserialize(&value) {
            Ok(value) => Some(value),
            Err(error) => {
                let (code, detail) = code_and_detail(&error.to_string());
                errors.push(FieldError::new(field, &code, detail));
                None
            }
        },
    }
}

/// Says where a reading error stands, by which code, and in words.
fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> (Vec<String>, String, String) {
    let mut path: Vec<String> = error
        .path()
        .iter()
        .filter_map(|segment| match segment {
            serde_path_to_error::Segment::Map { key } => Some(key.clone()),
            serde_path_to_error::Segment::Seq { index } => Some(index.to_string()),
            serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => None,
        })
        .collect();
    let message = error.inner().to_string();
    if let Some(field) = quoted(&message, "missing field ") {
        path.push(field);
        return (path, "required".into(), "is required".into());
    }
    if let Some(field) = quoted(&message, "unknown field ") {
        if path.last() != Some(&field) {
            path.push(field);
        }
        return (path, "unknown_field".into(), "is not a field of this body".into());
    }
    let (code, detail) = code_and_detail(&message);
    (path, code, detail)
}

/// Splits a reader's message into code and rule; serde's own messages get a code here.
fn code_and_detail(message: &str) -> (String, String) {
    if let Some((code, detail)) = message.split_once(": ")
        && !code.is_empty()
        && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    {
        return (code.into(), detail.into());
    }
    let code = if message.starts_with("unknown variant") {
        "not_one_of"
    } else if message.starts_with("invalid value") {
        "out_of_range"
    } else {
        "wrong_type"
    };
    (code.into(), message.into())
}

fn quoted(message: &str, before: &str) -> Option<String> {
    let rest = message.strip_prefix(before)?.strip_prefix('`')?;
    rest.split_once('`').map(|(name, _)| name.to_owned())
}

/// Puts the good value at `path`, or takes the field away where the good body has none. False: nothing to do there.
fn replace(value: &mut Value, good: &Value, path: &[String]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let (mut at, mut good_at) = (value, Some(good));
    for name in parents {
        good_at = good_at.and_then(|good| step(good, name));
        let next = match at {
            Value::Object(map) => map.get_mut(name),
            Value::Array(items) => name.parse::<usize>().ok().and_then(|index| items.get_mut(index)),
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    let good_value = good_at.and_then(|good| step(good, last)).cloned();
    match at {
        Value::Object(map) => {
            let before = map.get(last).cloned();
            match good_value {
                Some(good) => map.insert(last.clone(), good),
                None => map.remove(last),
            };
            map.get(last).cloned() != before
        }
        Value::Array(items) => {
            let Some(index) = last.parse::<usize>().ok().filter(|index| *index < items.len()) else {
                return false;
            };
            items.remove(index);
            true
        }
        _ => false,
    }
}

fn step<'a>(good: &'a Value, name: &str) -> Option<&'a Value> {
    match good {
        Value::Object(map) => map.get(name),
        Value::Array(items) => items.first(),
        _ => None,
    }
}

fn refuse(errors: &mut Vec<FieldError>, bad: bool, field: &str, code: &str, detail: &str) {
    if bad {
        errors.push(FieldError::new(field, code, detail));
    }
}

fn not_negative(errors: &mut Vec<FieldError>, field: &str, amount: Option<Credits>) {
    refuse(errors, amount.is_some_and(Credits::is_negative), field, "negative", "must not be negative");
}

fn positive(errors: &mut Vec<FieldError>, field: &str, amount: Credits) {
    refuse(errors, !amount.is_positive(), field, "not_positive", "must be above 0");
}

fn free_id(errors: &mut Vec<FieldError>, field: &str, id: &Id) {
    let detail = "ids that begin with plan: rollover: welcome: promo: or referral: are the ledger's own";
    refuse(errors, is_reserved_grant(id), field, "reserved_id", detail);
}

fn check_plan(plan: &PlanBody, errors: &mut Vec<FieldError>) {
    not_negative(errors, "plan.allowance", Some(plan.allowance));
    not_negative(errors, "plan.overage_limit", plan.overage_limit);
    if let Some(rollover) = &plan.rollover {
        not_negative(errors, "plan.rollover.cap", rollover.cap);
        let capless = rollover.mode != RolloverMode::Capped && rollover.cap.is_some();
        refuse(errors, capless, "plan.rollover.cap", "not_allowed", "only the mode capped has a cap");
    }
}

impl Body for OpenAccount {
    const GOOD: &'static str = r#"{"plan":{"cycle":"monthly","allowance":"0","rollover":{"mode":"none"}}}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        check_plan(&self.plan, errors);
        not_negative(errors, "low_balance_threshold", self.low_balance_threshold);
        if let Some(usd) = self.usd_per_unit {
            positive(errors, "usd_per_unit", usd);
        }
    }
}

impl Body for ChangeAccount {
    const GOOD: &'static str = "{}";

    fn check(&self, errors: &mut Vec<FieldError>) {
        not_negative(errors, "low_balance_threshold", self.low_balance_threshold.flatten());
        refuse(errors, *self == Self::default(), "body", "empty", "changes nothing");
    }
}

impl Body for ChangePlan {
    const GOOD: &'static str = r#"{"plan":{"cycle":"monthly","allowance":"0","rollover":{"mode":"none"}}}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        check_plan(&self.plan, errors);
    }
}

impl Body for AdvanceClock {
    const GOOD: &'static str = r#"{"advance_to":"2026-01-01T00:00:00Z"}"#;

    fn check(&self, _: &mut Vec<FieldError>) {}
}

impl Body for Work {
    const GOOD: &'static str = "{}";

    fn check(&self, errors: &mut Vec<FieldError>) {
        if let Some(amount) = self.amount {
            positive(errors, "amount", amount);
        }
    }
}

impl Body for Reserve {
    const GOOD: &'static str = r#"{"reservation_id":"r","amount":"1"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        positive(errors, "amount", self.amount);
        check_ttl(errors, self.ttl_seconds);
    }
}

impl Body for Extend {
    const GOOD: &'static str = r#"{"amount":"1"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        if let Some(amount) = self.amount {
            positive(errors, "amount", amount);
        }
        check_ttl(errors, self.ttl_seconds);
        refuse(errors, *self == Self::default(), "body", "empty", "changes nothing");
    }
}

fn check_ttl(errors: &mut Vec<FieldError>, ttl_seconds: Option<u32>) {
    let out = ttl_seconds.is_some_and(|ttl| ttl == 0 || ttl > TTL_SECONDS_MAX);
    refuse(errors, out, "ttl_seconds", "out_of_range", "must be 1 to 86400");
}

impl Body for Usage {
    const GOOD: &'static str = r#"{"quantities":{},"metadata":{}}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        not_negative(errors, "credits", self.credits);
        let keys = self.metadata.as_ref().map_or(0, |map| map.len());
        refuse(errors, keys > METADATA_KEYS_MAX, "metadata", "too_many", "has at most 16 keys");
        let quantities = self.quantities.as_ref().map_or(0, |map| map.len());
        refuse(errors, quantities > QUANTITIES_MAX, "quantities", "too_many", "has at most 32 names");
    }

    fn check_caller(&self, errors: &mut Vec<FieldError>) {
        let ours = "is not a field of this body";
        refuse(errors, self.lines.is_some(), "lines", "unknown_field", ours);
        refuse(errors, self.held.is_some(), "held", "unknown_field", ours);
    }
}

impl Body for Grant {
    const GOOD: &'static str = r#"{"grant_id":"g","source":"promo","amount":"1"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        positive(errors, "amount", self.amount);
        let out = self.priority.is_some_and(|priority| !PRIORITIES.contains(&priority));
        refuse(errors, out, "priority", "out_of_range", "must be 0 to 1000");
        if let (Some(effective), Some(expires)) = (self.effective_at, self.expires_at) {
            refuse(errors, expires <= effective, "expires_at", "not_after", "must be after effective_at");
        }
    }

    fn check_caller(&self, errors: &mut Vec<FieldError>) {
        free_id(errors, "grant_id", &self.grant_id);
    }
}

impl Body for VoidGrant {
    const GOOD: &'static str = r#"{"grant_id":"g"}"#;

    fn check(&self, _: &mut Vec<FieldError>) {}
}

impl Body for Adjust {
    const GOOD: &'static str = r#"{"amount":"1","reason":"r"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        refuse(errors, self.amount.is_zero(), "amount", "zero", "must not be 0");
        refuse(errors, self.reason.as_str().is_empty(), "reason", "required", "must not be empty");
    }
}

impl Body for Purchase {
    const GOOD: &'static str = r#"{"payment_id":"p","amount":"1"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        positive(errors, "amount", self.amount);
    }

    fn check_caller(&self, errors: &mut Vec<FieldError>) {
        free_id(errors, "payment_id", &self.payment_id);
    }
}

impl Body for Refund {
    const GOOD: &'static str = r#"{"payment_id":"p","amount":"1"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        positive(errors, "amount", self.amount);
    }
}

impl Body for RateCard {
    const GOOD: &'static str =
        r#"{"meters":[{"category":"c","match":{},"prices":{"x":{"credits":"0","per":"1"}}}]}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        let bad_size = self.meters.is_empty() || self.meters.len() > METERS_MAX;
        refuse(errors, bad_size, "meters", "out_of_range", "must be 1 to 1000 meters");
        for (at, meter) in self.meters.iter().enumerate() {
            refuse(
                errors,
                meter.prices.is_empty(),
                &format!("meters.{at}.prices"),
                "required",
                "must not be empty",
            );
            for (name, price) in &meter.prices {
                let field = format!("meters.{at}.prices.{name}");
                not_negative(errors, &format!("{field}.credits"), Some(price.credits));
                positive(errors, &format!("{field}.per"), price.per);
            }
        }
    }
}

fn check_recipients(errors: &mut Vec<FieldError>, field: &str, recipients: Option<&Recipients>) {
    let Some(Recipients::These(ids)) = recipients else { return };
    let bad_size = ids.is_empty() || ids.len() > RECIPIENTS_MAX;
    refuse(errors, bad_size, field, "out_of_range", "must be \"all_admins\" or 1 to 100 ids");
    said_once(errors, field, ids);
}

fn said_once<T: Ord>(errors: &mut Vec<FieldError>, field: &str, list: &[T]) {
    let distinct = list.iter().collect::<BTreeSet<_>>().len();
    refuse(errors, distinct < list.len(), field, "duplicate", "says something twice");
}

impl Body for SetLimits {
    const GOOD: &'static str = r#"{"custom":{}}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        not_negative(errors, "default_limit", self.default_limit);
        let users = self.custom.as_ref().map_or(0, |custom| custom.len());
        refuse(errors, users > CUSTOM_LIMITS_MAX, "custom", "too_many", "has at most 2000 users");
        let features: &[Label] = self.excluded_features.as_deref().unwrap_or_default();
        let too_many = features.len() > EXCLUDED_FEATURES_MAX;
        refuse(errors, too_many, "excluded_features", "too_many", "has at most 100 features");
        said_once(errors, "excluded_features", features);
        // Nobody is an answer too: the product shows the limit itself.
        if self.notify != Some(Recipients::These(Vec::new())) {
            check_recipients(errors, "notify", self.notify.as_ref());
        }
    }
}

/// Returns the least percent of a basis, of 100 at most, and the rule in words; none where it is an amount.
fn least_percent(basis: Basis) -> Option<(Credits, &'static str)> {
    match basis {
        Basis::PercentUsed => Some((Credits::whole(1), "must be 1 to 100 percent")),
        Basis::PercentRemaining => Some((Credits::ZERO, "must be 0 to 100 percent")),
        Basis::AbsoluteUsed | Basis::AbsoluteRemaining => None,
    }
}

impl Body for SetOrgAlert {
    const GOOD: &'static str = r#"{"alert_id":"a","basis":"percent_used","threshold":"50"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        match least_percent(self.basis) {
            Some((least, rule)) => {
                let out = self.threshold < least || self.threshold > Credits::whole(100);
                refuse(errors, out, "threshold", "out_of_range", rule);
            }
            None => not_negative(errors, "threshold", Some(self.threshold)),
        }
        check_recipients(errors, "recipients", self.recipients.as_ref());
        if let Some(channels) = &self.channels {
            refuse(errors, channels.is_empty(), "channels", "required", "must not be empty");
            said_once(errors, "channels", channels);
        }
    }
}

impl Body for RemoveOrgAlert {
    const GOOD: &'static str = r#"{"alert_id":"a"}"#;

    fn check(&self, _: &mut Vec<FieldError>) {}
}

impl Body for SetUserAlert {
    const GOOD: &'static str = r#"{"threshold":"1"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        not_negative(errors, "threshold", self.threshold);
        let off = self.enabled == Some(false);
        let rule = "is required, unless enabled is false";
        refuse(errors, !off && self.threshold.is_none(), "threshold", "required", rule);
        match &self.recipients {
            Some(Recipients::These(ids)) if ids.is_empty() => {
                let rule = "must name somebody, unless notify_user is true";
                refuse(errors, self.notify_user != Some(true), "recipients", "out_of_range", rule);
            }
            others => check_recipients(errors, "recipients", others.as_ref()),
        }
    }
}

impl Body for SetAutoTopUp {
    const GOOD: &'static str = r#"{"threshold":"0","amount":"1","payment_method":"p"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        not_negative(errors, "threshold", self.threshold);
        if let Some(amount) = self.amount {
            positive(errors, "amount", amount);
            refuse(errors, amount > TOP_UP_MAX, "amount", "out_of_range", "must be at most 100000");
        }
        if let Some(most) = self.max_amount_per_period {
            positive(errors, "max_amount_per_period", most);
        }
        let out = self.max_per_period.is_some_and(|most| !TOP_UPS_PER_PERIOD.contains(&most));
        refuse(errors, out, "max_per_period", "out_of_range", "must be 1 to 1000");
        if self.enabled == Some(true) {
            let rule = "is required where enabled is true";
            refuse(errors, self.threshold.is_none(), "threshold", "required", rule);
            refuse(errors, self.amount.is_none(), "amount", "required", rule);
            refuse(errors, self.payment_method.is_none(), "payment_method", "required", rule);
        }
    }

    fn check_caller(&self, errors: &mut Vec<FieldError>) {
        let (Some(threshold), Some(amount)) = (self.threshold, self.amount) else { return };
        // One top-up lifts the balance above the threshold.
        let rule = "must not be above the amount";
        refuse(errors, amount.is_positive() && threshold > amount, "threshold", "above_amount", rule);
    }
}

/// Checks what the journal says of an event beyond the types; answers the first broken rule.
///
/// As strict as the public schemas, which an auditor reads the journal by.
pub fn check_recorded(data: &Data) -> Result<(), FieldError> {
    let mut errors = Vec::new();
    match data {
        Data::AccountOpened(body) => body.check(&mut errors),
        Data::AccountChanged(body) => body.check(&mut errors),
        Data::PlanChanged(body) => body.check(&mut errors),
        Data::ClockAdvanced(body) => body.check(&mut errors),
        Data::UsageRecorded(body) => {
            body.check(&mut errors);
            check_charge(body, &mut errors);
        }
        Data::CreditsGranted(body) => body.check(&mut errors),
        Data::GrantVoided(body) => body.check(&mut errors),
        Data::CreditsAdjusted(body) => body.check(&mut errors),
        Data::CreditsPurchased(body) => body.check(&mut errors),
        Data::CreditsRefunded(body) => body.check(&mut errors),
        Data::LimitsSet(body) => body.check(&mut errors),
        Data::OrgAlertSet(body) => body.check(&mut errors),
        Data::OrgAlertRemoved(body) => body.check(&mut errors),
        Data::UserAlertSet(body) => body.check(&mut errors),
        Data::AutoTopUpSet(body) => body.check(&mut errors),
        Data::TopUpStarted(StartTopUp { amount, .. })
        | Data::CreditsToppedUp(TopUp { amount, .. })
        | Data::DisputeOpened(Dispute { amount, .. })
        | Data::DisputeWon(Dispute { amount, .. }) => positive(&mut errors, "amount", *amount),
        Data::TopUpFailed(FailTopUp { reason, .. }) => {
            refuse(&mut errors, reason.as_str().is_empty(), "reason", "required", "must not be empty");
        }
        Data::UsageReversed(_) | Data::PeriodReset(_) | Data::TopUpRefused(_) => {}
    }
    errors.into_iter().next().map_or(Ok(()), Err)
}

fn check_charge(usage: &Usage, errors: &mut Vec<FieldError>) {
    refuse(errors, usage.credits.is_none(), "credits", "required", "is required");
    not_negative(errors, "held", usage.held);
    for line in usage.lines.iter().flatten() {
        not_negative(errors, "lines.unit_credits", Some(line.unit_credits));
        positive(errors, "lines.per", line.per);
        not_negative(errors, "lines.credits", Some(line.credits));
    }
}

/// Usage as a caller offers it, before it is priced and recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The caller's id.
    pub id: EventId,
    /// The producer.
    pub source: Source,
    /// The account.
    pub account: Id,
    /// When it happened.
    pub occurred_at: Time,
    /// What was used.
    pub usage: Usage,
}

/// The type that `POST /v1/events` and the ingress topic take.
pub const OFFERED_TYPE: &str = "ledger.usage.recorded.v1";

/// A CloudEvent as callers send it; extension attributes, also ours, are dropped.
#[derive(Deserialize)]
struct OfferedEvent<'a> {
    #[serde(borrow)]
    specversion: std::borrow::Cow<'a, str>,
    id: EventId,
    source: Source,
    #[serde(borrow, rename = "type")]
    event_type: std::borrow::Cow<'a, str>,
    subject: Id,
    time: Time,
    #[serde(deserialize_with = "crate::event::shape::object")]
    data: Usage,
}

/// Reads usage offered as a CloudEvent, or names every bad field.
pub fn read_offer(bytes: &[u8]) -> Result<Offer, Vec<FieldError>> {
    // Before the parser: depth costs it stack.
    let is_flat = wire::depth(bytes) <= wire::JSON_DEPTH_MAX;
    if is_flat && let Ok(Object(event)) = serde_json::from_slice::<Object<OfferedEvent<'_>>>(bytes) {
        let mut errors = Vec::new();
        event.data.check(&mut errors);
        event.data.check_caller(&mut errors);
        let fine = errors.is_empty()
            && event.specversion == "1.0"
            && event.event_type == OFFERED_TYPE
            && !event.source.is_reserved();
        if fine {
            let OfferedEvent { id, source, subject, time, data, .. } = event;
            return Ok(Offer { id, source, account: subject, occurred_at: time, usage: data });
        }
    }
    match json::read(bytes) {
        Ok(Value::Object(event)) => Err(explain_offer(event)),
        Ok(_) => Err(vec![FieldError::new("body", "wrong_type", "must be a JSON object")]),
        Err(Refused::Fields(errors)) => Err(errors),
        Err(Refused::NotJson(reason)) => Err(vec![FieldError::new("body", "not_json", reason)]),
    }
}

fn explain_offer(mut event: Map<String, Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let version: Option<String> = take(&mut event, "specversion", true, &mut errors);
    refuse(&mut errors, version.is_some_and(|v| v != "1.0"), "specversion", "not_one_of", "must be 1.0");
    let _: Option<EventId> = take(&mut event, "id", true, &mut errors);
    take_source(&mut event, true, &mut errors);
    let offered: Option<String> = take(&mut event, "type", true, &mut errors);
    let other = offered.is_some_and(|offered| offered != OFFERED_TYPE);
    refuse(&mut errors, other, "type", "not_one_of", "must be ledger.usage.recorded.v1");
    let _: Option<Id> = take(&mut event, "subject", true, &mut errors);
    let _: Option<Time> = take(&mut event, "time", true, &mut errors);
    match event.remove("data") {
        None => errors.push(FieldError::new("data", "required", "is required")),
        Some(data) => {
            let _: Option<Usage> = read_into(data, "data", &mut errors);
        }
    }
    errors
}

fn take_source(
    body: &mut Map<String, Value>,
    required: bool,
    errors: &mut Vec<FieldError>,
) -> Option<Source> {
    let source: Option<Source> = take(body, "source", required, errors);
    let reserved = source.as_ref().is_some_and(Source::is_reserved);
    refuse(
        errors,
        reserved,
        "source",
        "reserved_source",
        "sources that begin with urn:ledger: are the ledger's own",
    );
    source
}

/// Source of usage that comes as plain JSON and names none.
pub const PLAIN_SOURCE: &str = "/v1/usage";

/// Reads usage offered as plain JSON for one account, or names every bad field.
pub fn read_plain_usage(account: &Id, value: Value) -> Result<Offer, Vec<FieldError>> {
    let Value::Object(mut body) = value else {
        return Err(vec![FieldError::new("body", "wrong_type", "must be a JSON object")]);
    };
    let mut errors = Vec::new();
    let id = take(&mut body, "id", true, &mut errors);
    let source = take_source(&mut body, false, &mut errors);
    let occurred_at = take(&mut body, "occurred_at", true, &mut errors);
    let usage = read_into(Value::Object(body), "", &mut errors);
    match (id, occurred_at, usage) {
        (Some(id), Some(occurred_at), Some(usage)) if errors.is_empty() => {
            let source = source.unwrap_or_else(|| Source::new(PLAIN_SOURCE).expect("a well-formed source"));
            Ok(Offer { id, source, account: account.clone(), occurred_at, usage })
        }
        _ => Err(errors),
    }
}

/// Says whether usage is too new or too old to be recorded at `recorded_at`.
pub fn check_age(occurred_at: Time, recorded_at: Time, field: &str) -> Option<FieldError> {
    if occurred_at > recorded_at.plus_seconds(TOO_NEW_SECONDS) {
        return Some(FieldError::new(field, "too_new", "is more than 5 minutes ahead of the recording time"));
    }
    if occurred_at < recorded_at.plus_seconds(-TOO_OLD_SECONDS) {
        return Some(FieldError::new(field, "too_old", "is more than 35 days before the recording time"));
    }
    None
}

/// Reads the opening of an account with its id, or names every bad field.
pub fn read_opening(value: Value) -> Result<(Id, OpenAccount), Vec<FieldError>> {
    let Value::Object(mut body) = value else {
        return Err(vec![FieldError::new("body", "wrong_type", "must be a JSON object")]);
    };
    let mut errors = Vec::new();
    let account = take(&mut body, "account_id", true, &mut errors);
    let opening = read_into(Value::Object(body), "", &mut errors);
    match (account, opening) {
        (Some(account), Some(opening)) if errors.is_empty() => Ok((account, opening)),
        _ => Err(errors),
    }
}

/// Reads an org alert, whose id stands in the path, or names every bad field.
pub fn read_org_alert(alert_id: &Id, value: Value) -> Result<SetOrgAlert, Vec<FieldError>> {
    let Value::Object(mut body) = value else {
        return Err(vec![FieldError::new("body", "wrong_type", "must be a JSON object")]);
    };
    let mut errors = Vec::new();
    let id_sent = body.insert("alert_id".into(), Value::from(alert_id.as_str())).is_some();
    refuse(&mut errors, id_sent, "alert_id", "unknown_field", "is not a field of this body");
    let alert = read_into(Value::Object(body), "", &mut errors);
    alert.filter(|_| errors.is_empty()).ok_or(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(errors: &[FieldError]) -> String {
        let mut fields: Vec<_> = errors.iter().map(|e| format!("{} {}", e.field, e.code)).collect();
        fields.sort();
        fields.join(", ")
    }

    fn check<T: Body + std::fmt::Debug>(body: &str, expected: &str) {
        let value = serde_json::from_str(body).expect("JSON");
        let actual = match read::<T>(value) {
            Ok(_) => "fine".into(),
            Err(errors) => fields(&errors),
        };
        assert_eq!(actual, expected, "{body}");
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        check::<OpenAccount>(
            r#"{"nam":"x","unit":"euro","plan":{"anchor":"soon","timezone":"Mars/One","allowance":5,"rollover":{"cap":"-1"}}}"#,
            "nam unknown_field, plan.allowance not_an_amount, plan.anchor not_a_time, plan.cycle required, \
             plan.rollover.cap negative, plan.rollover.cap not_allowed, plan.rollover.mode required, \
             plan.timezone unknown_time_zone, unit not_one_of",
        );
    }

    #[test]
    fn amounts_are_strings_within_their_places() {
        let cases = [
            ("5", "not_an_amount"),
            ("\"1e3\"", "not_an_amount"),
            ("\"-1\"", "not_positive"),
            ("\"0\"", "not_positive"),
        ];
        for (amount, code) in cases {
            check::<Purchase>(
                &format!(r#"{{"payment_id":"p","amount":{amount}}}"#),
                &format!("amount {code}"),
            );
        }
        check::<Purchase>(r#"{"payment_id":"p","amount":"0.0000000001"}"#, "amount too_many_places");
        check::<Purchase>(r#"{"payment_id":"p","amount":"1000000000000000000"}"#, "amount too_many_digits");
        check::<Purchase>(r#"{"payment_id":"p","amount":"999999999999999999.999999999"}"#, "fine");
    }

    #[test]
    fn a_body_that_is_no_object_is_named_as_a_whole() {
        check::<Adjust>("[]", "body wrong_type");
        check::<Adjust>("{}", "amount required, reason required");
    }

    #[test]
    fn usage_keeps_to_its_limits() {
        let many: Vec<_> = (0..17).map(|n| format!(r#""k{n}":"v""#)).collect();
        check::<Usage>(&format!(r#"{{"metadata":{{{}}}}}"#, many.join(",")), "metadata too_many");
        check::<Usage>(
            r#"{"credits":"-1","user_id":"no id","quantities":{"Bad":1,"x":-1,"y":1.5}}"#,
            "credits negative, quantities.Bad bad_slug, quantities.x negative, quantities.y not_an_amount, user_id bad_id",
        );
        check::<Usage>(r#"{"lines":[],"held":"1"}"#, "held unknown_field, lines unknown_field");
    }

    #[test]
    fn a_grant_may_not_take_the_ledgers_ids_or_end_before_it_starts() {
        check::<Grant>(
            r#"{"grant_id":"plan:1","source":"purchase","amount":"1","priority":5000,
                "effective_at":"2026-01-02T00:00:00Z","expires_at":"2026-01-01T00:00:00Z"}"#,
            "expires_at not_after, grant_id reserved_id, priority out_of_range, source not_one_of",
        );
    }

    #[test]
    fn null_removes_the_low_balance_line_and_absence_keeps_it() {
        let read =
            |body: &str| read::<ChangeAccount>(serde_json::from_str(body).expect("JSON")).expect("a change");
        assert_eq!(read(r#"{"low_balance_threshold":null}"#).low_balance_threshold, Some(None));
        assert_eq!(read(r#"{"name":"x"}"#).low_balance_threshold, None);
        check::<ChangeAccount>("{}", "body empty");
        check::<ChangeAccount>(r#"{"name":5}"#, "name wrong_type");
    }

    #[test]
    fn limits_keep_to_their_rules() {
        check::<SetLimits>("{}", "fine");
        check::<SetLimits>(
            r#"{"enabled":true,"default_limit":"1000","custom":{"ana":"500","bo":"unlimited"},
                "excluded_features":["workflow"],"notify":"all_admins"}"#,
            "fine",
        );
        check::<SetLimits>(
            r#"{"enabled":"yes","default_limit":"-1","custom":{"ana":"-1","bo":"never","no id":"1","cy":5},
                "excluded_features":["a","a"],"notify":["a","a"]}"#,
            "custom.ana negative, custom.bo not_an_amount, custom.cy not_an_amount, custom.no id bad_id, \
             default_limit negative, enabled wrong_type, excluded_features duplicate, notify duplicate",
        );
        check::<SetLimits>(r#"{"notify":[]}"#, "fine");
        check::<SetLimits>(r#"{"notify":"everyone"}"#, "notify not_one_of");
        check::<SetLimits>(r#"{"notify":["no id"]}"#, "notify.0 bad_id");
        check::<SetLimits>(r#"{"notify":["ana","ana"],"users":{}}"#, "notify duplicate, users unknown_field");
        let users = |count: usize| (0..count).map(|n| format!(r#""u{n}":"1""#)).collect::<Vec<_>>().join(",");
        let custom = |count: usize| format!(r#"{{"custom":{{{}}}}}"#, users(count));
        check::<SetLimits>(&custom(CUSTOM_LIMITS_MAX), "fine");
        check::<SetLimits>(&custom(CUSTOM_LIMITS_MAX + 1), "custom too_many");
        let list = |count: usize| (0..count).map(|n| format!(r#""x{n}""#)).collect::<Vec<_>>().join(",");
        let lists = |features, people| {
            format!(r#"{{"excluded_features":[{}],"notify":[{}]}}"#, list(features), list(people))
        };
        check::<SetLimits>(&lists(EXCLUDED_FEATURES_MAX, RECIPIENTS_MAX), "fine");
        check::<SetLimits>(
            &lists(EXCLUDED_FEATURES_MAX + 1, RECIPIENTS_MAX + 1),
            "excluded_features too_many, notify out_of_range",
        );
    }

    fn check_org_alert(body: &str, expected: &str) {
        let alert = Id::new("a75").expect("an id");
        let actual = match read_org_alert(&alert, serde_json::from_str(body).expect("JSON")) {
            Ok(read) => {
                assert_eq!(read.alert_id, alert);
                "fine".into()
            }
            Err(errors) => fields(&errors),
        };
        assert_eq!(actual, expected, "{body}");
    }

    #[test]
    fn a_threshold_keeps_to_the_range_of_its_basis() {
        for (basis, threshold, expected) in [
            ("percent_used", "1", "fine"),
            ("percent_used", "100", "fine"),
            ("percent_used", "0.999999999", "threshold out_of_range"),
            ("percent_used", "100.000000001", "threshold out_of_range"),
            ("percent_remaining", "0", "fine"),
            ("percent_remaining", "100", "fine"),
            ("percent_remaining", "-0.1", "threshold out_of_range"),
            ("percent_remaining", "101", "threshold out_of_range"),
            ("absolute_used", "0", "fine"),
            ("absolute_used", "1000000", "fine"),
            ("absolute_used", "-1", "threshold negative"),
            ("absolute_remaining", "0", "fine"),
            ("absolute_remaining", "-1", "threshold negative"),
        ] {
            check_org_alert(&format!(r#"{{"basis":"{basis}","threshold":"{threshold}"}}"#), expected);
        }
    }

    #[test]
    fn an_org_alert_says_whom_it_tells_and_how_without_repeating_itself() {
        let with = |fields: &str| format!(r#"{{"basis":"absolute_used","threshold":"5",{fields}}}"#);
        for (fields, expected) in [
            (r#""recipients":["carl","dora"],"channels":["email","webhook","in_app"]"#, "fine"),
            (r#""recipients":"all_admins","channels":null"#, "fine"),
            (r#""recipients":[]"#, "recipients out_of_range"),
            (r#""recipients":["carl","carl"]"#, "recipients duplicate"),
            (r#""recipients":["carl","no id","carl"]"#, "recipients.1 bad_id"),
            (r#""recipients":{"carl":1}"#, "recipients wrong_type"),
            (r#""channels":[]"#, "channels required"),
            (r#""channels":["email","email"]"#, "channels duplicate"),
            (r#""channels":["fax"]"#, "channels.0 not_one_of"),
            (r#""channels":[{"email":null}]"#, "channels.0 wrong_type"),
            (r#""alert_id":"a75""#, "alert_id unknown_field"),
        ] {
            check_org_alert(&with(fields), expected);
        }
        check_org_alert("{}", "basis required, threshold required");
        check_org_alert("[]", "body wrong_type");
    }

    #[test]
    fn a_user_alert_needs_a_threshold_unless_it_is_off() {
        check::<SetUserAlert>(r#"{"threshold":"500"}"#, "fine");
        check::<SetUserAlert>(r#"{"enabled":false}"#, "fine");
        check::<SetUserAlert>("{}", "threshold required");
        check::<SetUserAlert>(r#"{"enabled":true,"threshold":null}"#, "threshold required");
        check::<SetUserAlert>(
            r#"{"threshold":"-1","notify_user":"yes","recipients":["a","a"],"channels":["email"]}"#,
            "channels unknown_field, notify_user wrong_type, recipients duplicate, threshold negative",
        );
    }

    #[test]
    fn a_user_alert_tells_somebody_and_may_tell_the_user_alone() {
        let with = |fields: &str| format!(r#"{{"threshold":"500",{fields}}}"#);
        for (fields, expected) in [
            (r#""notify_user":true,"recipients":[]"#, "fine"),
            (r#""notify_user":true,"recipients":["carl"]"#, "fine"),
            (r#""notify_user":false,"recipients":[]"#, "recipients out_of_range"),
            (r#""notify_user":null,"recipients":[]"#, "recipients out_of_range"),
            (r#""recipients":[]"#, "recipients out_of_range"),
        ] {
            check::<SetUserAlert>(&with(fields), expected);
        }
    }

    const OFFER: &str = r#"{"specversion":"1.0","id":"e1","source":"/app","type":"ledger.usage.recorded.v1",
        "subject":"acme","time":"2026-02-03T10:00:00Z","data":{"credits":"1"},"recordedat":"ours","actor":7}"#;

    #[test]
    fn a_callers_recording_time_and_actor_are_dropped() {
        assert_eq!(read_offer(OFFER.as_bytes()).expect("an offer").account.as_str(), "acme");
    }

    #[test]
    fn a_bad_cloud_event_is_named_field_by_field() {
        let cases = [
            (OFFER.replace("\"1\"", "1"), "data.credits not_an_amount"),
            (OFFER.replace("/app", "urn:ledger:x"), "source reserved_source"),
            (OFFER.replace("2026-02-03T10:00:00Z", "yesterday"), "time not_a_time"),
            (OFFER.replace("ledger.usage.recorded.v1", "ledger.credits.granted.v1"), "type not_one_of"),
            (OFFER.replace("\"subject\":\"acme\",", ""), "subject required"),
            ("[]".into(), "body wrong_type"),
            ("{".into(), "body not_json"),
            (OFFER.replace("\"id\":\"e1\"", "\"id\":\"e1\",\"id\":\"e1\""), "id duplicate"),
            (OFFER.replace("\"1\"", "\"1\",\"quantities\":{\"x\":1,\"x\":2}"), "data.quantities.x duplicate"),
            (OFFER.replace("\"1\"", &format!("{}{}", "[".repeat(8), "]".repeat(8))), "body too_deep"),
        ];
        for (bytes, expected) in cases {
            let errors = read_offer(bytes.as_bytes()).expect_err(&bytes);
            assert_eq!(fields(&errors), expected, "{bytes}");
        }
    }

    #[test]
    fn usage_is_taken_from_35_days_back_to_5_minutes_ahead() {
        let now = Time::from_micros(1_800_000_000_000_000);
        let code = |seconds: i64, micros: i64| {
            check_age(now.plus_seconds(seconds).plus_micros(micros), now, "time").map(|error| error.code)
        };
        assert_eq!(code(300, 0), None);
        assert_eq!(code(300, 1), Some("too_new".into()));
        assert_eq!(code(-TOO_OLD_SECONDS, 0), None);
        assert_eq!(code(-TOO_OLD_SECONDS, -1), Some("too_old".into()));
    }
}
