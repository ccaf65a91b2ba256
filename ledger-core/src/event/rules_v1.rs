//! The rules of version 1: what makes a recorded event valid beyond its types.
//!
//! FROZEN: changing a rule would make recorded events unreadable. The journal is read by these rules for ever; a stricter
//! rule or a lower bound turns events that are already recorded into errors, and a looser one lets a new event halt an older
//! reader. To change what callers may send, change `request::limits`. An event that must break a rule here is a new version.
//!
//! As strict as the public schemas, by which an auditor reads the journal.

use std::collections::BTreeSet;

use crate::event::bodies::{
    Adjust, AdvanceClock, Basis, ChangeAccount, ChangePlan, CloseAccount, Dispute, FailRefund, FailTopUp,
    Grant, OpenAccount, PlanBody, Price, Purchase, Recipients, Refund, RefuseTopUp, RemoveOrgAlert,
    ResetPeriod, ReverseUsage, RolloverMode, SetAutoTopUp, SetLimits, SetOrgAlert, SetUserAlert,
    SetUserLimit, StartTopUp, TopUp, Usage, VoidGrant,
};
use crate::event::field_error::{FieldError, not_negative, positive, refuse};
use crate::value::credits::Credits;
use crate::value::id::Label;

/// Most bytes of one record.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of a record.
pub const JSON_DEPTH_MAX: usize = 8;

/// Size limits of a body. The journal has `BOUNDS`, the API `request::limits::LIMITS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    pub metadata_keys_max: usize,
    pub quantities_max: usize,
    /// Priority of a grant, from 0.
    pub priority_max: i32,
    pub custom_limits_max: usize,
    pub excluded_features_max: usize,
    pub recipients_max: usize,
    /// Most credits of one automatic top-up.
    pub top_up_max: Credits,
    /// Top-ups of a period, from 1.
    pub top_ups_per_period_max: u32,
}

/// Bounds of a recorded event. Frozen, like all rules here.
pub const BOUNDS: Bounds = Bounds {
    metadata_keys_max: 16,
    quantities_max: 32,
    priority_max: 1_000,
    custom_limits_max: 2_000,
    excluded_features_max: 100,
    recipients_max: 100,
    top_up_max: Credits::whole(100_000),
    top_ups_per_period_max: 1_000,
};

impl Bounds {
    /// Returns whether every body within these bounds is also within the others.
    pub const fn is_within(&self, others: &Bounds) -> bool {
        self.metadata_keys_max <= others.metadata_keys_max
            && self.quantities_max <= others.quantities_max
            && self.priority_max <= others.priority_max
            && self.custom_limits_max <= others.custom_limits_max
            && self.excluded_features_max <= others.excluded_features_max
            && self.recipients_max <= others.recipients_max
            && self.top_up_max.units() <= others.top_up_max.units()
            && self.top_ups_per_period_max <= others.top_ups_per_period_max
    }
}

/// Rules of a body beyond its types.
pub trait Rules {
    /// Adds an error for each rule that the body breaks, with sizes limited by `bounds`.
    fn check_within(&self, bounds: &Bounds, errors: &mut Vec<FieldError>);

    /// Adds an error for each rule that a recorded body breaks.
    fn check_recorded(&self, errors: &mut Vec<FieldError>) {
        self.check_within(&BOUNDS, errors);
    }
}

fn at_most(errors: &mut Vec<FieldError>, count: usize, most: usize, field: &str, things: &str) {
    if count > most {
        errors.push(FieldError::new(field, "too_many", format!("has at most {most} {things}")));
    }
}

fn out_of_range(errors: &mut Vec<FieldError>, out: bool, field: &str, rule: std::fmt::Arguments<'_>) {
    if out {
        errors.push(FieldError::new(field, "out_of_range", rule.to_string()));
    }
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

impl Rules for OpenAccount {
    fn check_within(&self, _: &Bounds, errors: &mut Vec<FieldError>) {
        check_plan(&self.plan, errors);
        not_negative(errors, "low_balance_threshold", self.low_balance_threshold);
        let worthless = self.usd_per_unit.is_some_and(|usd| !usd.is_positive());
        refuse(errors, worthless, "usd_per_unit", "not_positive", "must be above 0");
    }
}

impl Rules for ChangeAccount {
    fn check_within(&self, _: &Bounds, errors: &mut Vec<FieldError>) {
        not_negative(errors, "low_balance_threshold", self.low_balance_threshold.flatten());
        refuse(errors, *self == Self::default(), "body", "empty", "changes nothing");
    }
}

impl Rules for ChangePlan {
    fn check_within(&self, _: &Bounds, errors: &mut Vec<FieldError>) {
        check_plan(&self.plan, errors);
    }
}

impl Rules for Usage {
    fn check_within(&self, bounds: &Bounds, errors: &mut Vec<FieldError>) {
        not_negative(errors, "credits", self.credits);
        let keys = self.metadata.as_ref().map_or(0, |map| map.len());
        at_most(errors, keys, bounds.metadata_keys_max, "metadata", "keys");
        let quantities = self.quantities.as_ref().map_or(0, |map| map.len());
        at_most(errors, quantities, bounds.quantities_max, "quantities", "names");
    }

    fn check_recorded(&self, errors: &mut Vec<FieldError>) {
        self.check_within(&BOUNDS, errors);
        refuse(errors, self.credits.is_none(), "credits", "required", "is required");
        not_negative(errors, "held", self.held);
        for line in self.lines.iter().flatten() {
            not_negative(errors, "lines.unit_credits", Some(line.unit_credits));
            positive(errors, "lines.per", line.per);
            not_negative(errors, "lines.credits", Some(line.credits));
        }
    }
}

/// A payment's lot has its payment's id; a grant's own id has the shape of the ledger's.
const GRANT_ID_RULE: &str =
    "an id is 1 to 128 characters of A-Z a-z 0-9 . _ : @ + - and begins with a letter or digit";

impl Rules for Grant {
    fn check_within(&self, bounds: &Bounds, errors: &mut Vec<FieldError>) {
        refuse(errors, !self.grant_id.is_of_grant(), "grant_id", "bad_id", GRANT_ID_RULE);
        positive(errors, "amount", self.amount);
        let most = bounds.priority_max;
        let out = self.priority.is_some_and(|priority| !(0..=most).contains(&priority));
        out_of_range(errors, out, "priority", format_args!("must be 0 to {most}"));
        if let (Some(effective), Some(expires)) = (self.effective_at, self.expires_at) {
            refuse(errors, expires <= effective, "expires_at", "not_after", "must be after effective_at");
        }
    }
}

impl Rules for Adjust {
    fn check_within(&self, _: &Bounds, errors: &mut Vec<FieldError>) {
        refuse(errors, self.amount.is_zero(), "amount", "zero", "must not be 0");
        refuse(errors, self.reason.as_str().is_empty(), "reason", "required", "must not be empty");
    }
}

impl Rules for CloseAccount {
    fn check_within(&self, _: &Bounds, errors: &mut Vec<FieldError>) {
        refuse(errors, self.reason.as_str().is_empty(), "reason", "required", "must not be empty");
    }
}

impl Rules for FailTopUp {
    fn check_within(&self, _: &Bounds, errors: &mut Vec<FieldError>) {
        refuse(errors, self.reason.as_str().is_empty(), "reason", "required", "must not be empty");
    }
}

/// Bodies whose amount is above 0.
macro_rules! positive_amounts {
    ($($body:ty),*) => {$(
        impl Rules for $body {
            fn check_within(&self, _: &Bounds, errors: &mut Vec<FieldError>) {
                positive(errors, "amount", self.amount);
            }
        }
    )*};
}

positive_amounts!(Refund, FailRefund, StartTopUp, Dispute);

/// Bodies of credits that were paid for.
macro_rules! paid_amounts {
    ($($body:ty),*) => {$(
        impl Rules for $body {
            fn check_within(&self, _: &Bounds, errors: &mut Vec<FieldError>) {
                positive(errors, "amount", self.amount);
                check_price(errors, self.price.as_ref());
            }
        }
    )*};
}

paid_amounts!(Purchase, TopUp);

fn check_price(errors: &mut Vec<FieldError>, price: Option<&Price>) {
    not_negative(errors, "price.amount", price.map(|price| price.amount));
}

/// Bodies without rules beyond their types.
macro_rules! no_rules {
    ($($body:ty),*) => {$(
        impl Rules for $body {
            fn check_within(&self, _: &Bounds, _: &mut Vec<FieldError>) {}
        }
    )*};
}

no_rules!(AdvanceClock, ReverseUsage, VoidGrant, ResetPeriod, RemoveOrgAlert, RefuseTopUp, SetUserLimit);

fn check_recipients(
    errors: &mut Vec<FieldError>,
    field: &str,
    recipients: Option<&Recipients>,
    bounds: &Bounds,
) {
    let Some(Recipients::These(ids)) = recipients else { return };
    let most = bounds.recipients_max;
    let bad_size = ids.is_empty() || ids.len() > most;
    out_of_range(errors, bad_size, field, format_args!("must be \"all_admins\" or 1 to {most} ids"));
    said_once(errors, field, ids);
}

fn said_once<T: Ord>(errors: &mut Vec<FieldError>, field: &str, list: &[T]) {
    let distinct = list.iter().collect::<BTreeSet<_>>().len();
    refuse(errors, distinct < list.len(), field, "duplicate", "says something twice");
}

impl Rules for SetLimits {
    fn check_within(&self, bounds: &Bounds, errors: &mut Vec<FieldError>) {
        not_negative(errors, "default_limit", self.default_limit);
        let users = self.custom.as_ref().map_or(0, |custom| custom.len());
        at_most(errors, users, bounds.custom_limits_max, "custom", "users");
        let features: &[Label] = self.excluded_features.as_deref().unwrap_or_default();
        at_most(errors, features.len(), bounds.excluded_features_max, "excluded_features", "features");
        said_once(errors, "excluded_features", features);
        // An empty list is valid: the product may show the limit itself.
        if self.notify != Some(Recipients::These(Vec::new())) {
            check_recipients(errors, "notify", self.notify.as_ref(), bounds);
        }
    }
}

/// Returns the lowest percent of a basis (at most 100) and the rule in words; `None` if the basis is an amount.
fn least_percent(basis: Basis) -> Option<(Credits, &'static str)> {
    match basis {
        Basis::PercentUsed => Some((Credits::whole(1), "must be 1 to 100 percent")),
        Basis::PercentRemaining => Some((Credits::ZERO, "must be 0 to 100 percent")),
        Basis::AbsoluteUsed | Basis::AbsoluteRemaining => None,
    }
}

impl Rules for SetOrgAlert {
    fn check_within(&self, bounds: &Bounds, errors: &mut Vec<FieldError>) {
        match least_percent(self.basis) {
            Some((least, rule)) => {
                let out = self.threshold < least || self.threshold > Credits::whole(100);
                refuse(errors, out, "threshold", "out_of_range", rule);
            }
            None => not_negative(errors, "threshold", Some(self.threshold)),
        }
        check_recipients(errors, "recipients", self.recipients.as_ref(), bounds);
        if let Some(channels) = &self.channels {
            refuse(errors, channels.is_empty(), "channels", "required", "must not be empty");
            said_once(errors, "channels", channels);
        }
    }
}

impl Rules for SetUserAlert {
    fn check_within(&self, bounds: &Bounds, errors: &mut Vec<FieldError>) {
        not_negative(errors, "threshold", self.threshold);
        let off = self.enabled == Some(false);
        let rule = "is required, unless enabled is false";
        refuse(errors, !off && self.threshold.is_none(), "threshold", "required", rule);
        match &self.recipients {
            Some(Recipients::These(ids)) if ids.is_empty() => {
                let rule = "must name somebody, unless notify_user is true";
                refuse(errors, self.notify_user != Some(true), "recipients", "out_of_range", rule);
            }
            others => check_recipients(errors, "recipients", others.as_ref(), bounds),
        }
    }
}

impl Rules for SetAutoTopUp {
    fn check_within(&self, bounds: &Bounds, errors: &mut Vec<FieldError>) {
        not_negative(errors, "threshold", self.threshold);
        if let Some(amount) = self.amount {
            positive(errors, "amount", amount);
            let most = bounds.top_up_max;
            out_of_range(errors, amount > most, "amount", format_args!("must be at most {most}"));
        }
        if let Some(most) = self.max_amount_per_period {
            positive(errors, "max_amount_per_period", most);
        }
        let most = bounds.top_ups_per_period_max;
        let out = self.max_per_period.is_some_and(|count| !(1..=most).contains(&count));
        out_of_range(errors, out, "max_per_period", format_args!("must be 1 to {most}"));
        if self.enabled == Some(true) {
            let rule = "is required where enabled is true";
            refuse(errors, self.threshold.is_none(), "threshold", "required", rule);
            refuse(errors, self.amount.is_none(), "amount", "required", rule);
            refuse(errors, self.payment_method.is_none(), "payment_method", "required", rule);
        }
    }
}
