//! The outcome of an event, and the reason of a rejection.

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outcome {
    /// It had its effect.
    #[default]
    Applied,
    /// The same id with the same content was there before: no effect.
    Duplicate,
    /// The same id with other content was there before: no effect.
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

    /// Returns why it was rejected.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Outcome::Rejected(reason) => Some(*reason),
            Outcome::Applied | Outcome::Duplicate | Outcome::Conflict => None,
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why an event was rejected; the codes are contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// Returns the stable code.
            pub fn code(&self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }
        }
    };
}

reasons! {
    /// No opening came before it. Not remembered: the same id may come again after the opening.
    AccountNotOpen = "account_not_open",
    /// The account is open already.
    AccountExists = "account_exists",
    /// A test clock's move crosses too many instants.
    ClockJump = "clock_jump",
    /// No such usage event.
    EventUnknown = "event_unknown",
    /// The usage was reversed before.
    AlreadyReversed = "already_reversed",
    /// No such lot.
    GrantUnknown = "grant_unknown",
    /// A plan or rollover lot, or one that has ended.
    GrantNotVoidable = "grant_not_voidable",
    /// Another lot has this id.
    GrantExists = "grant_exists",
    /// The id is one that only the fold gives: `plan:` or `rollover:`.
    GrantReserved = "grant_reserved",
    /// The lot would end before it counts.
    GrantExpired = "grant_expired",
    /// The account has its most open lots.
    TooManyLots = "too_many_lots",
    /// No such payment.
    PaymentUnknown = "payment_unknown",
    /// The payment is credited already.
    PaymentExists = "payment_exists",
    /// More than was paid would go back.
    RefundExceedsPayment = "refund_exceeds_payment",
    /// The number of this attempt is not the next one.
    AttemptOutOfOrder = "attempt_out_of_order",
    /// No top-up is due, or a brake refuses it; its number is used up all the same.
    TopUpNotDue = "top_up_not_due",
    /// The attempt has not started, or has ended.
    AttemptNotOpen = "attempt_not_open",
    /// No such dispute of this payment.
    DisputeUnknown = "dispute_unknown",
    /// The period has not begun.
    PeriodNotBegun = "period_not_begun",
    /// No such org alert.
    AlertUnknown = "alert_unknown",
    /// The account has its most org alerts.
    TooManyAlerts = "too_many_alerts",
    /// Usage without a price.
    UnpricedUsage = "unpriced_usage",
    /// The account's sums would leave their range.
    OutOfRange = "out_of_range",
}
