//! The body of each event, as the public schemas define it.
//!
//! Requests and the journal share these structs. `request` refuses the fields that only the ledger may set (`lines`,
//! `held`).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::shape::{
    names_once_or_null, object, object_or_null, objects_or_null, word, word_or_null, words_or_null,
};
use crate::value::credits::{AmountError, Credits, Quantity};
use crate::value::id::{
    AlertId, AttemptId, CallId, Currency, DisputeId, EventId, GrantId, Label, MessageId, OrgId, OutsideName,
    PaymentId, PaymentMethodId, PromoCode, RateCardId, ReferrerId, RefundId, ReservationId, SessionId, Slug,
    Source, Text, UserId,
};
use crate::value::money::Usd;
use crate::value::period::Cycle;
use crate::value::scalar::{self, Scalar};
use crate::value::time::{Time, Zone};

/// What an account's amounts count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Credits, worth `usd_per_unit` where that is given.
    #[default]
    Credits,
    Usd,
}

/// Source of an account's ledger time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The services' clocks, clamped to the broker's.
    #[default]
    Live,
    /// The `Ledger-Time` of the writes; constant between them.
    Test,
}

/// What happens to overdraft at a reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverdraftPolicy {
    /// Kept; the new allowance repays it first.
    #[default]
    Carry,
    /// Written off.
    ForgiveAtReset,
}

/// Body of `account.opened`: an account with its plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct OpenAccount {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub unit: Option<Unit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_per_unit: Option<Usd>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub clock: Option<Clock>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub overdraft: Option<OverdraftPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_balance_threshold: Option<Credits>,
    #[serde(deserialize_with = "object")]
    pub plan: PlanBody,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promo_code: Option<PromoCode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referred_by: Option<ReferrerId>,
}

/// Body of `account.changed`: absent fields stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct ChangeAccount {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub overdraft: Option<OverdraftPolicy>,
    /// Absent: stays. Null: removed.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub low_balance_threshold: Option<Option<Credits>>,
}

/// Distinguishes a null from an absent field.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Credits>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// How unused credits of a period carry over to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloverMode {
    #[default]
    None,
    Capped,
    Unlimited,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollover {
    #[serde(deserialize_with = "word")]
    pub mode: RolloverMode,
    /// With `capped`: the most that rolls over; none means one allowance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<Credits>,
}

/// What happens to bought credits at a reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackExpiry {
    /// They end with the period they were bought in.
    PeriodEnd,
    /// They stay.
    #[default]
    Never,
}

/// What an account without credits may do. Checks and holds enforce it; usage itself always applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    #[default]
    Block,
    /// Go on, down to `overage_limit` below zero.
    Allow,
}

/// A plan as the caller sends it; the fold fills in the defaults of absent fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct PlanBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    #[serde(deserialize_with = "word")]
    pub cycle: Cycle,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<Zone>,
    pub allowance: Credits,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_null")]
    pub rollover: Option<Rollover>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub pack_expiry: Option<PackExpiry>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub on_exhausted: Option<OnExhausted>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overage_limit: Option<Credits>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_card: Option<RateCardId>,
}

/// When a plan change applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeAt {
    /// Immediately (schedule changes still wait for the boundary).
    #[default]
    Now,
    NextPeriod,
}

/// Body of `plan.changed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct ChangePlan {
    #[serde(deserialize_with = "object")]
    pub plan: PlanBody,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub at: Option<ChangeAt>,
}

/// Body of `clock.advanced`: ledger time has reached an instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct AdvanceClock {
    pub advance_to: Time,
}

/// Body of `usage.recorded`: completed work and its cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct Usage {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_id: Option<OrgId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Slug>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<OutsideName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<OutsideName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "names_once_or_null")]
    pub quantities: Option<BTreeMap<Slug, Quantity>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits: Option<Credits>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation_id: Option<ReservationId>,
    /// What the provider calls this call; among the applied usages of an account it is unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<CallId>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "names_once_or_null")]
    pub metadata: Option<BTreeMap<Text, serde_json::Value>>,
    /// Set by the ledger: the lines of the price; present exactly where `credits` is derived.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "objects_or_null")]
    pub lines: Option<Vec<Line>>,
    /// Set by the ledger: the amount that its hold reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Credits>,
}

/// One priced quantity of a usage: `credits = amount x unit_credits / per`, rounded half-even to 9 places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct Line {
    pub quantity: Slug,
    pub amount: Quantity,
    pub unit_credits: Credits,
    pub per: Credits,
    pub credits: Credits,
    pub rate_card: RateCardId,
    pub version: u32,
}

/// Body of `usage.reversed`: undoes a whole usage event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct ReverseUsage {
    pub event_id: EventId,
    pub source: Source,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "named as in the contract")]
pub enum LotSource {
    Plan,
    Rollover,
    Purchase,
    TopUp,
    Welcome,
    Promo,
    Referral,
    Adjustment,
}

/// The sources that a caller may grant from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "named as in the contract")]
pub enum GrantSource {
    Welcome,
    Promo,
    Referral,
    Adjustment,
}

impl From<GrantSource> for LotSource {
    fn from(source: GrantSource) -> Self {
        match source {
            GrantSource::Welcome => LotSource::Welcome,
            GrantSource::Promo => LotSource::Promo,
            GrantSource::Referral => LotSource::Referral,
            GrantSource::Adjustment => LotSource::Adjustment,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct Grant {
    pub grant_id: GrantId,
    #[serde(deserialize_with = "word")]
    pub source: GrantSource,
    pub amount: Credits,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
}

/// Body of `grant.voided`: removes what remains of a lot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct VoidGrant {
    pub grant_id: GrantId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
}

/// Body of `credits.adjusted`: a manual, signed correction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct Adjust {
    pub amount: Credits,
    pub reason: Text,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct Purchase {
    pub payment_id: PaymentId,
    pub amount: Credits,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_null")]
    pub price: Option<Price>,
}

/// The money that was paid for credits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Exact, in whole units of the currency: `"90"` are 90 dollars.
    pub amount: Credits,
    pub currency: Currency,
}

/// Body of `credits.refunded`: a full or partial refund of a payment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct Refund {
    pub payment_id: PaymentId,
    /// The provider's refund, which may fail later; absent where a person recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund_id: Option<RefundId>,
    pub amount: Credits,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
}

/// Body of `refund.failed`: the provider could not give the money back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct FailRefund {
    pub payment_id: PaymentId,
    pub refund_id: RefundId,
    pub amount: Credits,
}

/// Body of `account.closed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct CloseAccount {
    pub reason: Text,
}

/// Body of `period.reset`: the period that was entered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct ResetPeriod {
    pub index: i64,
}

/// Who is notified by a rule of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Recipients {
    /// Everyone who is an admin when the notification is sent.
    #[default]
    AllAdmins,
    These(Vec<UserId>),
}

const ALL_ADMINS: &str = "all_admins";

impl Serialize for Recipients {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Recipients::AllAdmins => to.serialize_str(ALL_ADMINS),
            Recipients::These(ids) => ids.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Recipients {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(RecipientsVisitor)
    }
}

struct RecipientsVisitor;

impl<'de> Visitor<'de> for RecipientsVisitor {
    type Value = Recipients;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"all_admins\" or a list of ids")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Recipients, E> {
        if text == ALL_ADMINS {
            return Ok(Recipients::AllAdmins);
        }
        Err(E::custom("not_one_of: recipients are \"all_admins\" or a list of ids"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Recipients, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(Recipients::These)
    }
}

/// A notification channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    Email,
    /// A signed call to the account's webhook.
    Webhook,
    InApp,
}

impl Channel {
    pub const ALL: [Channel; 3] = [Channel::Email, Channel::Webhook, Channel::InApp];

    pub fn as_str(&self) -> &'static str {
        match self {
            Channel::Email => "email",
            Channel::Webhook => "webhook",
            Channel::InApp => "in_app",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Usage as a percentage of the period's maximum.
    PercentUsed,
    AbsoluteUsed,
    /// Settled balance as a percentage of the period's maximum.
    PercentRemaining,
    AbsoluteRemaining,
}

impl Basis {
    pub const ALL: [Basis; 4] =
        [Basis::PercentUsed, Basis::AbsoluteUsed, Basis::PercentRemaining, Basis::AbsoluteRemaining];
}

/// One user's own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Unlimited,
    At(Credits),
}

const UNLIMITED: &str = "unlimited";

impl Limit {
    /// Returns the amount; `None` if unlimited.
    pub fn amount(self) -> Option<Credits> {
        match self {
            Limit::Unlimited => None,
            Limit::At(amount) => Some(amount),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Unlimited => f.write_str(UNLIMITED),
            Limit::At(amount) => amount.fmt(f),
        }
    }
}

impl Scalar for Limit {
    type Refusal = AmountError;
    const NOT_A_STRING: AmountError = AmountError::NotALimit;

    fn from_text(text: &str) -> Result<Limit, AmountError> {
        if text == UNLIMITED {
            return Ok(Limit::Unlimited);
        }
        match text.parse::<Credits>() {
            Ok(amount) if amount.is_negative() => Err(AmountError::Negative),
            Ok(amount) => Ok(Limit::At(amount)),
            Err(AmountError::NotAnAmount) => Err(AmountError::NotALimit),
            Err(other) => Err(other),
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Limit, D::Error> {
        scalar::deserialize(from)
    }
}

/// Body of `limits.set`: what each user may use in a period.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct SetLimits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_limit: Option<Credits>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "names_once_or_null")]
    pub custom: Option<BTreeMap<UserId, Limit>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded_features: Option<Vec<Label>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Recipients>,
}

/// Body of `user_limit.set`: one user's own limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct SetUserLimit {
    pub user_id: UserId,
    /// `None` removes it.
    pub limit: Option<Limit>,
}

/// Body of `org_alert.set`: an alert on the account's own figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct SetOrgAlert {
    pub alert_id: AlertId,
    #[serde(deserialize_with = "word")]
    pub basis: Basis,
    pub threshold: Credits,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<Recipients>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "words_or_null")]
    pub channels: Option<Vec<Channel>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct RemoveOrgAlert {
    pub alert_id: AlertId,
}

/// Body of `user_alert.set`: an alert on each user's usage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct SetUserAlert {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Credits>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify_user: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<Recipients>,
}

/// The figure that auto top-up watches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopUpBasis {
    /// What remains of paid lots.
    #[default]
    CreditBalance,
    AvailableBalance,
}

/// Body of `auto_top_up.set`: when credits are bought automatically.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct SetAutoTopUp {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub basis: Option<TopUpBasis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Credits>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Credits>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_method: Option<PaymentMethodId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_period: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_amount_per_period: Option<Credits>,
}

/// Body of `top_up.started`: recorded before the request to the provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct StartTopUp {
    pub attempt_id: AttemptId,
    pub amount: Credits,
    pub payment_method: PaymentMethodId,
}

/// Body of `top_up.failed`: the provider has refused to charge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct FailTopUp {
    pub attempt_id: AttemptId,
    pub reason: Text,
}

/// The setting that prevents a top-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Brake {
    /// The number of top-ups in the period has reached the maximum.
    MaxPerPeriod,
    /// This top-up would exceed the maximum amount of the period.
    MaxAmountPerPeriod,
}

impl Brake {
    pub fn as_str(&self) -> &'static str {
        match self {
            Brake::MaxPerPeriod => "max_per_period",
            Brake::MaxAmountPerPeriod => "max_amount_per_period",
        }
    }
}

/// Body of `top_up.refused`: a brake prevented a top-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct RefuseTopUp {
    #[serde(deserialize_with = "word")]
    pub reason: Brake,
}

/// Body of `credits.topped_up`: an attempt was paid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct TopUp {
    pub attempt_id: AttemptId,
    pub payment_id: PaymentId,
    pub amount: Credits,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_null")]
    pub price: Option<Price>,
}

/// Body of `dispute.opened` and `dispute.won`: a payer contests a payment; the account wins the dispute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct Dispute {
    pub payment_id: PaymentId,
    pub dispute_id: DisputeId,
    pub amount: Credits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_an_amount_of_0_or_above_or_the_word() {
        for (text, expected) in [
            ("\"500.0\"", "500"),
            ("\"0\"", "0"),
            ("\"unlimited\"", "unlimited"),
            ("\"none\"", "not_an_amount"),
            ("\"-1\"", "negative"),
            ("5", "not_an_amount"),
            ("null", "not_an_amount"),
            ("\"1.0000000001\"", "too_many_places"),
        ] {
            let shown = match serde_json::from_str::<Limit>(text) {
                Ok(limit) => limit.to_string(),
                Err(error) => error.to_string().split(':').next().unwrap_or_default().to_owned(),
            };
            assert_eq!(shown, expected, "{text}");
        }
    }
}
