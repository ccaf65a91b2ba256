//! The bodies that callers may send, and the rules for each.

use serde::de::DeserializeOwned;

use super::limits::{LIMITS, METERS_MAX, TTL_SECONDS_MAX};
use crate::event::field_error::{FieldError, not_negative, positive, refuse};
use crate::event::rules_v1::Rules;
use crate::event::{
    Adjust, AdvanceClock, ChangeAccount, ChangePlan, CloseAccount, Grant, OpenAccount, Purchase, Refund,
    RemoveOrgAlert, SetAutoTopUp, SetLimits, SetOrgAlert, SetUserAlert, Usage, VoidGrant,
};
use crate::policy::decide::Work;
use crate::policy::hold::{Extend, Reserve};
use crate::policy::rate_card::RateCard;
use crate::value::id::{GrantId, OutsideName, is_padded, is_reserved_grant};

/// A body that callers may send.
pub trait Body: DeserializeOwned {
    /// A valid body: its values replace bad ones so that reading can go on.
    const GOOD: &'static str;

    /// Adds an error for each rule that the types can't enforce.
    fn check(&self, errors: &mut Vec<FieldError>);
}

const PLAN_GOOD: &str = r#"{"plan":{"cycle":"monthly","allowance":"0","rollover":{"mode":"none"}}}"#;

/// Event bodies that must keep the event's rules, within the limits of the API.
macro_rules! event_bodies {
    ($($body:ty: $good:expr,)*) => {$(
        impl Body for $body {
            const GOOD: &'static str = $good;

            fn check(&self, errors: &mut Vec<FieldError>) {
                self.check_within(&LIMITS, errors);
            }
        }
    )*};
}

event_bodies! {
    OpenAccount: PLAN_GOOD,
    ChangeAccount: "{}",
    ChangePlan: PLAN_GOOD,
    CloseAccount: r#"{"reason":"r"}"#,
    AdvanceClock: r#"{"advance_to":"2026-01-01T00:00:00Z"}"#,
    VoidGrant: r#"{"grant_id":"g"}"#,
    Adjust: r#"{"amount":"1","reason":"r"}"#,
    SetLimits: r#"{"custom":{}}"#,
    SetOrgAlert: r#"{"alert_id":"a","basis":"percent_used","threshold":"50"}"#,
    RemoveOrgAlert: r#"{"alert_id":"a"}"#,
    SetUserAlert: r#"{"threshold":"1"}"#,
}

impl Body for Usage {
    const GOOD: &'static str = r#"{"quantities":{},"metadata":{}}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        self.check_within(&LIMITS, errors);
        for (field, label) in [("provider", &self.provider), ("model", &self.model)] {
            refuse_padded(errors, field, label.as_ref().map(OutsideName::as_str));
        }
        let ours = "is not a field of this body";
        refuse(errors, self.lines.is_some(), "lines", "unknown_field", ours);
        refuse(errors, self.held.is_some(), "held", "unknown_field", ours);
    }
}

/// Adds an error for an id of the outside world with white space at an end, which records of old may have.
pub(super) fn refuse_padded(errors: &mut Vec<FieldError>, field: &str, text: Option<&str>) {
    refuse(errors, text.is_some_and(is_padded), field, "bad_id", "must have no white space at either end");
}

impl Body for Refund {
    const GOOD: &'static str = r#"{"payment_id":"p","amount":"1"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        self.check_within(&LIMITS, errors);
        let detail = "is not a field of this body";
        refuse(errors, self.refund_id.is_some(), "refund_id", "unknown_field", detail);
    }
}

impl Body for Grant {
    const GOOD: &'static str = r#"{"grant_id":"g","source":"promo","amount":"1"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        self.check_within(&LIMITS, errors);
        free_id(errors, "grant_id", &self.grant_id);
    }
}

impl Body for Purchase {
    const GOOD: &'static str = r#"{"payment_id":"p","amount":"1","price":{"amount":"1","currency":"usd"}}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        self.check_within(&LIMITS, errors);
        free_id(errors, "payment_id", &self.payment_id.as_grant());
    }
}

fn free_id(errors: &mut Vec<FieldError>, field: &str, id: &GrantId) {
    let detail = "ids that begin with plan: rollover: welcome: promo: or referral: are the ledger's own";
    refuse(errors, is_reserved_grant(id), field, "reserved_id", detail);
}

impl Body for SetAutoTopUp {
    const GOOD: &'static str = r#"{"threshold":"0","amount":"1","payment_method":"p"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        self.check_within(&LIMITS, errors);
        let (Some(threshold), Some(amount)) = (self.threshold, self.amount) else { return };
        // So that one top-up lifts the balance above the threshold.
        let rule = "must not be above the amount";
        refuse(errors, amount.is_positive() && threshold > amount, "threshold", "above_amount", rule);
    }
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

impl Body for RateCard {
    const GOOD: &'static str =
        r#"{"meters":[{"category":"c","match":{},"prices":{"x":{"credits":"0","per":"1"}}}]}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        let bad_size = self.meters.is_empty() || self.meters.len() > METERS_MAX;
        refuse(errors, bad_size, "meters", "out_of_range", "must be 1 to 1000 meters");
        for (at, meter) in self.meters.iter().enumerate() {
            let empty = format!("meters.{at}.prices");
            refuse(errors, meter.prices.is_empty(), &empty, "required", "must not be empty");
            for (name, price) in &meter.prices {
                let field = format!("meters.{at}.prices.{name}");
                not_negative(errors, &format!("{field}.credits"), Some(price.credits));
                positive(errors, &format!("{field}.per"), price.per);
            }
        }
        // Where other fields are bad, a meter may be compared that nobody has sent.
        let comparable = if errors.is_empty() { self.same_matches() } else { Vec::new() };
        for (first, second) in comparable {
            let detail =
                format!("meters.{first} and meters.{second} match the same usage: only one would apply");
            for at in [first, second] {
                errors.push(FieldError::new(format!("meters.{at}"), "same_match", detail.clone()));
            }
        }
    }
}
