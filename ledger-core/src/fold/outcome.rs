//! The outcome of an event, and the reason of a rejection.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outcome {
    /// It had an effect.
    #[default]
    Applied,
    /// The same id with the same content came earlier: no effect.
    Duplicate,
    /// The same id with other content came earlier: no effect.
    Conflict,
    /// A rule refuses it: no effect.
    Rejected(Reason),
}

impl Outcome {
    /// Returns the outcome's name in the contract.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Applied => "applied",
            Outcome::Duplicate => "duplicate",
            Outcome::Conflict => "conflict",
            Outcome::Rejected(_) => "rejected",
        }
    }

    pub fn reason(&self) -> Option<Reason> {
        match self {
            Outcome::Rejected(reason) => Some(*reason),
            Outcome::Applied | Outcome::Duplicate | Outcome::Conflict => None,
        }
    }
}

impl JsonSchema for Outcome {
    fn schema_name() -> Cow<'static, str> {
        "Outcome".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What became of an event. applied: it had its effect. duplicate: the same id with the same content came earlier. conflict: the same id with other content came earlier. rejected: a rule refuses it. Only an applied one has an effect.",
            "type": "string",
            "enum": ["applied", "duplicate", "conflict", "rejected"],
        })
    }
}

impl JsonSchema for Reason {
    fn schema_name() -> Cow<'static, str> {
        "Reason".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let codes: Vec<&str> = Reason::ALL.iter().map(Reason::code).collect();
        let said = format!("Why an event was rejected, as a stable code: {}.", codes.join(", "));
        json_schema!({"description": said, "type": "string"})
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why an event was rejected; the codes are contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            pub fn code(&self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }
        }
    };
}

reasons! {
    /// The account has no opening yet. Not remembered: the same id may be sent again after the opening.
    AccountNotOpen = "account_not_open",
    AccountExists = "account_exists",
    /// The account was closed before this was recorded.
    AccountClosed = "account_closed",
    /// A move of a test clock crosses too many instants.
    ClockJump = "clock_jump",
    EventUnknown = "event_unknown",
    AlreadyReversed = "already_reversed",
    /// No such lot.
    GrantUnknown = "grant_unknown",
    /// A plan or rollover lot, or one that has ended.
    GrantNotVoidable = "grant_not_voidable",
    GrantExists = "grant_exists",
    /// The event's id can't name a lot.
    GrantIdMalformed = "grant_id_malformed",
    /// Only the fold assigns such ids: `plan:` or `rollover:`.
    GrantReserved = "grant_reserved",
    /// The lot would end before it starts.
    GrantExpired = "grant_expired",
    /// The account has its most open lots, or a reversal would return credits to too many.
    TooManyLots = "too_many_lots",
    PaymentUnknown = "payment_unknown",
    PaymentExists = "payment_exists",
    /// The refunds would exceed the payment.
    RefundExceedsPayment = "refund_exceeds_payment",
    /// The attempt's number is not the next one.
    AttemptOutOfOrder = "attempt_out_of_order",
    /// No top-up is due, or a brake refuses it; the number is used up either way.
    TopUpNotDue = "top_up_not_due",
    AttemptNotOpen = "attempt_not_open",
    /// The payment has no such dispute.
    DisputeUnknown = "dispute_unknown",
    /// The payment has no such refund.
    RefundUnknown = "refund_unknown",
    PeriodNotBegun = "period_not_begun",
    AlertUnknown = "alert_unknown",
    TooManyAlerts = "too_many_alerts",
    UnpricedUsage = "unpriced_usage",
    /// The account's sums would leave their range.
    OutOfRange = "out_of_range",
}
