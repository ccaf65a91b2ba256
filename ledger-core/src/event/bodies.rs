//! The body of each event, as the public schemas define it.
//!
//! Requests and the journal share these structs. `request` refuses the fields that only the ledger may set (`lines`,
//! `held`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
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
use crate::value::schema;
use crate::value::time::{Time, Zone};

/// What an account's amounts count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Credits, worth `usd_per_unit` where that is given.
    #[default]
    Credits,
    Usd,
}

/// Source of an account's ledger time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The services' clocks, clamped to the broker's.
    #[default]
    Live,
    /// The `Ledger-Time` of the writes; constant between them.
    Test,
}

/// What happens to overdraft at a reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverdraftPolicy {
    /// Kept; the new allowance repays it first.
    #[default]
    Carry,
    /// Written off.
    ForgiveAtReset,
}

/// Body of `account.opened`: an account with its plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AccountTerms")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct OpenAccount {
    /// What people call the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// What the account's amounts count. Default: credits.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub unit: Option<Unit>,
    /// Price of one unit, in US dollars. Default: none for credits, 1 for usd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_per_unit: Option<Usd>,
    /// live: ledger time follows the services' clocks. test: it follows the writes themselves and stands still
    /// between them. Default: live.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub clock: Option<Clock>,
    /// What becomes of overdraft at a period's end: kept and repaid by the new allowance, or written off.
    /// Default: carry.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub overdraft: Option<OverdraftPolicy>,
    /// Bought credits at or below this are low, in the account's unit. Absent or null: never low.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_balance_threshold: Option<Credits>,
    /// The plan that it opens with.
    #[serde(deserialize_with = "object")]
    pub plan: PlanBody,
    /// A code that was named at the opening.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promo_code: Option<PromoCode>,
    /// The invitation's code or the account that sent the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referred_by: Option<ReferrerId>,
}

/// Body of `account.changed`: absent fields stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AccountChange")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct ChangeAccount {
    /// What people call the account. Absent or null: stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// What becomes of overdraft at a period's end. Absent or null: stays.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub overdraft: Option<OverdraftPolicy>,
    /// Absent: stays. Null: removed.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schemars(with = "Option<Credits>", extend("nullable" = true))]
    pub low_balance_threshold: Option<Option<Credits>>,
}

/// Distinguishes a null from an absent field.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Credits>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// How unused credits of a period carry over to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloverMode {
    #[default]
    None,
    Capped,
    Unlimited,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollover {
    #[serde(deserialize_with = "word")]
    pub mode: RolloverMode,
    /// With `capped`: the most that rolls over; none means one allowance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<Credits>,
}

/// What happens to bought credits at a reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PackExpiry {
    /// They end with the period they were bought in.
    PeriodEnd,
    /// They stay.
    #[default]
    Never,
}

/// What an account without credits may do. Checks and holds enforce it; usage itself always applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    #[default]
    Block,
    /// Go on, down to `overage_limit` below zero.
    Allow,
}

/// A plan as the caller sends it; the fold fills in the defaults of absent fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NewPlan")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct PlanBody {
    /// What people call the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// Length of a period on the calendar of the time zone.
    #[serde(deserialize_with = "word")]
    pub cycle: Cycle,
    /// Boundary 0: periods are counted from here. Default: the opening's ledger time; on a plan change: the
    /// anchor that stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Time>,
    /// Whose calendar and clock the periods follow. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<Zone>,
    /// Credits that arrive with each period, in the account's unit.
    pub allowance: Credits,
    /// What of the plan and rollover lots goes on into the next period. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_null")]
    pub rollover: Option<Rollover>,
    /// What becomes of credits bought under this plan: they end with the period they are bought in, or never.
    /// Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub pack_expiry: Option<PackExpiry>,
    /// Whether checks and holds go on below zero. Usage itself always applies. Default: block.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub on_exhausted: Option<OnExhausted>,
    /// With allow: how far below zero holds may go, in the account's unit. Absent or null: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overage_limit: Option<Credits>,
    /// The card that prices this account's usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_card: Option<RateCardId>,
}

/// When a plan change applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeAt {
    /// Immediately (schedule changes still wait for the boundary).
    #[default]
    Now,
    NextPeriod,
}

/// Body of `plan.changed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PlanChange")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct ChangePlan {
    /// The whole new plan.
    #[serde(deserialize_with = "object")]
    pub plan: PlanBody,
    /// now, or next_period: at the next boundary, where a later change replaces a waiting one. Default: now.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub at: Option<ChangeAt>,
}

/// Body of `clock.advanced`: ledger time has reached an instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ClockAdvance")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct AdvanceClock {
    /// The instant that ledger time has reached.
    pub advance_to: Time,
}

/// Body of `usage.recorded`: completed work and its cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct Usage {
    /// The organisation the work was done for. One account may pay for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_id: Option<OrgId>,
    /// Who used it. Absent or null: nobody in particular, such as a background job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Part of the product, such as agent_chat, workflow or external_agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<Label>,
    /// Kind of usage: ai_usage, tool_calls, internal, compute_runtime, tasks_completed, voice_calls, meetings,
    /// or another. Rate cards price by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Slug>,
    /// Who supplied it, such as openai.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<OutsideName>,
    /// The model, such as gpt-4o.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<OutsideName>,
    /// The tier that it was sold as, such as advanced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Label>,
    /// A finer kind, such as image_hd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Label>,
    /// What was used, by name, such as input_tokens, output_tokens, seconds, calls. At most 32. Zeros count as
    /// absent when priced.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "names_once_or_null")]
    #[schemars(with = "Option<schema::Quantities>")]
    pub quantities: Option<BTreeMap<Slug, Quantity>>,
    /// What it costs, in the account's unit. Absent or null: the account's rate card prices the quantities, and
    /// usage without a price is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits: Option<Credits>,
    /// The message that caused it; several usages may share one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    /// The session that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// The hold that this usage settles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation_id: Option<ReservationId>,
    /// What the provider calls this call; among the applied usages of an account it is unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<CallId>,
    /// Anything else, kept as it is: at most 16 keys of at most 1,000 characters, any JSON values (the whole
    /// record nests at most 8 deep).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "names_once_or_null")]
    #[schemars(with = "Option<schema::Metadata>")]
    pub metadata: Option<BTreeMap<Text, serde_json::Value>>,
    /// Set by the ledger: the lines of the price; present exactly where `credits` is derived.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "objects_or_null")]
    #[schemars(skip)]
    pub lines: Option<Vec<Line>>,
    /// Set by the ledger: the amount that its hold reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub held: Option<Credits>,
}

/// One priced quantity of a usage: `credits = amount x unit_credits / per`, rounded half-even to 9 places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PriceLine")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct Line {
    /// Name of the quantity that was priced.
    pub quantity: Slug,
    /// How much of it, in the unit that its name says.
    pub amount: Quantity,
    /// Price for every `per` of it, in the account's unit.
    pub unit_credits: Credits,
    /// How much of it the unit price buys, in the unit of the quantity.
    pub per: Credits,
    /// What this line costs, in the account's unit.
    pub credits: Credits,
    /// The card that priced it.
    pub rate_card: RateCardId,
    /// The version of the card that priced it.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NewGrant")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct Grant {
    /// The lot's id, and the event's. Grants and payments share one id space. Ids that begin with plan:
    /// rollover: welcome: promo: or referral: are the ledger's own.
    pub grant_id: GrantId,
    /// Where the credits come from.
    #[serde(deserialize_with = "word")]
    pub source: GrantSource,
    /// How much, in the account's unit.
    pub amount: Credits,
    /// Lower is drawn first. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// From when it may be drawn, in ledger time. Default: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<Time>,
    /// When what remains of it expires, in ledger time; exclusive, after effective_at. Absent or null: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// Why, for people.
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Adjustment")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct Adjust {
    /// How much, signed, in the account's unit.
    pub amount: Credits,
    /// Why, for people. Not empty.
    pub reason: Text,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct Purchase {
    /// The payment, its lot and the event have this id. Grants and payments share one id space. Ids that begin
    /// with plan: rollover: welcome: promo: or referral: are refused.
    pub payment_id: PaymentId,
    /// Credits bought, in the account's unit.
    pub amount: Credits,
    /// The money paid for it, where that is known; else it is amount x the account's usd_per_unit, if it has
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_null")]
    pub price: Option<Price>,
}

/// The money that was paid for credits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Exact, in whole units of the currency: `"90"` are 90 dollars.
    pub amount: Credits,
    /// What it was paid in.
    pub currency: Currency,
}

/// Body of `credits.refunded`: a full or partial refund of a payment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct Refund {
    /// The payment.
    pub payment_id: PaymentId,
    /// The provider's refund, which may fail later; absent where a person recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub refund_id: Option<RefundId>,
    /// Credits refunded, in the account's unit.
    pub amount: Credits,
    /// Why, for people.
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AccountClosing")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct CloseAccount {
    /// Why, for people. Not empty.
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

impl JsonSchema for Recipients {
    fn schema_name() -> Cow<'static, str> {
        "Recipients".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Who is notified: all_admins (everyone who is an admin at that moment), or the ids of admins and users.",
            "anyOf": [
                {"type": "string", "enum": [ALL_ADMINS]},
                {"type": "array", "items": generator.subschema_for::<UserId>(), "maxItems": 100},
            ],
        })
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AlertBasis")]
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

impl JsonSchema for Limit {
    fn schema_name() -> Cow<'static, str> {
        "UserLimit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What a user may use in a period: an amount of 0 or above in the account's unit, or the word unlimited.",
            "type": "string",
            "pattern": r"^(unlimited|[0-9]+(\.[0-9]{1,9})?)$",
            "examples": ["500"],
        })
    }
}

/// Users' own limits by user id, as the documents of the APIs name them.
pub struct LimitsByUser;

impl JsonSchema for LimitsByUser {
    fn schema_name() -> Cow<'static, str> {
        "LimitsByUser".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let limit = generator.subschema_for::<Limit>();
        json_schema!({
            "description": "Users' own limits by user id: at most 2,000.",
            "type": "object",
            "additionalProperties": limit,
        })
    }
}

/// Body of `limits.set`: what each user may use in a period.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NewLimits")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct SetLimits {
    /// Whether the limits hold. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What holds for users without a limit of their own, in the account's unit. Absent or null: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_limit: Option<Credits>,
    /// Users' own limits by user id, in place of all that were set; they win over the default. At most 2,000.
    /// user_limit.set sets one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "names_once_or_null")]
    #[schemars(with = "Option<LimitsByUser>")]
    pub custom: Option<BTreeMap<UserId, Limit>>,
    /// Features whose usage does not count toward limits, in the whole open period. At most 100, each once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded_features: Option<Vec<Label>>,
    /// Who is notified when a user has reached the limit. Default: all_admins. Empty: nobody.
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NewAlert")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct SetOrgAlert {
    /// Stands in the path of a request.
    #[schemars(skip)]
    pub alert_id: AlertId,
    /// The figure that it watches: percent_used and absolute_used fire at or above the threshold,
    /// percent_remaining and absolute_remaining (settled) at or below. Percentages are of the period's maximum.
    #[serde(deserialize_with = "word")]
    pub basis: Basis,
    /// Percent for the percentages (1 to 100 used, 0 to 100 remaining), else an amount in the account's unit.
    pub threshold: Credits,
    /// Who is notified. Default: all_admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<Recipients>,
    /// How they are notified, each channel once. Default: email and in_app.
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NewUserAlert")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct SetUserAlert {
    /// Whether it fires. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// A user's usage in the period, in the account's unit. Required unless enabled is false; then, absent or
    /// null, the one that stood stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Credits>,
    /// Whether the user is notified too. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify_user: Option<bool>,
    /// Who else is notified. Default: all_admins. Empty: the user alone, so only where notify_user is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<Recipients>,
}

/// The figure that auto top-up watches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TopUpBasis {
    /// What remains of paid lots.
    #[default]
    CreditBalance,
    AvailableBalance,
}

/// Body of `auto_top_up.set`: when credits are bought automatically.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NewAutoTopUp")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are named and explained in schemas/")]
pub struct SetAutoTopUp {
    /// Whether it buys. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The figure that it watches: credit_balance (what remains of paid lots) or available_balance (settled).
    /// Default: credit_balance.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "word_or_null")]
    pub basis: Option<TopUpBasis>,
    /// It buys when the figure is here or below, in the account's unit. Required where enabled is true. Callers
    /// may not put it above the amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Credits>,
    /// What it buys at once, in the account's unit: above 0, at most 100,000. Required where enabled is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Credits>,
    /// What pays, as the payment provider names it. Required where enabled is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_method: Option<PaymentMethodId>,
    /// Most top-ups that succeed in a period. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_period: Option<u32>,
    /// Most that is topped up in a period, in the account's unit: an attempt that would pass it is refused
    /// whole. Default: no bound.
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
