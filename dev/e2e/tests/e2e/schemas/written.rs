//! Every event that the code can write fits its schema and reads back equal.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ledger_core::event::rules_v1::BOUNDS;
use ledger_core::event::wire::{decode, encode, schema_path};
use ledger_core::event::{Limit, *};
use ledger_core::value::credits::{Credits, Quantity};
use ledger_core::value::id::{EventId, Label, NameError, Slug, Source, Text};
use ledger_core::value::money::Usd;
use ledger_core::value::period::Cycle;
use ledger_core::value::time::{Time, Zone};
use proptest::prelude::*;
use proptest::{collection, option, sample};

use super::contract::Contract;

fn id<T: FromStr<Err = NameError> + fmt::Debug>() -> impl Strategy<Value = T> {
    "[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}".prop_map(|text| text.parse().unwrap())
}

/// Ids that the outside world makes.
fn outside<T: FromStr<Err = NameError> + fmt::Debug>() -> impl Strategy<Value = T> {
    prop_oneof![id(), "[^\\p{Cc}\\s]([^\\p{Cc}]{0,60}[^\\p{Cc}\\s])?".prop_map(|text| text.parse().unwrap())]
}

fn event_id() -> impl Strategy<Value = EventId> {
    "[^\\p{Cc}]{1,128}".prop_map(|text| EventId::new(&text).unwrap())
}

fn source() -> impl Strategy<Value = Source> {
    "[!-~]{1,256}".prop_map(|text| Source::new(&text).unwrap())
}

fn label() -> impl Strategy<Value = Label> {
    "[^\\p{Cc}]{1,128}".prop_map(|text| Label::new(&text).unwrap())
}

fn slug() -> impl Strategy<Value = Slug> {
    "[a-z0-9][a-z0-9_.-]{0,63}".prop_map(|text| Slug::new(&text).unwrap())
}

fn words() -> impl Strategy<Value = Text> {
    "[^\\p{Cc}]{0,40}".prop_map(|text| Text::new(&text).unwrap())
}

fn reason() -> impl Strategy<Value = Text> {
    "[^\\p{Cc}]{1,1000}".prop_map(|text| Text::new(&text).unwrap())
}

fn units(least: i128) -> impl Strategy<Value = i128> {
    let most = Credits::MAX_AMOUNT.units();
    prop_oneof![Just(least), Just(most), least..=most, least..=2_000_000_000]
}

fn not_negative() -> impl Strategy<Value = Credits> {
    units(0).prop_map(Credits::from_units)
}

fn above_0() -> impl Strategy<Value = Credits> {
    units(1).prop_map(Credits::from_units)
}

fn dollars() -> impl Strategy<Value = Usd> {
    above_0().prop_map(|amount| Usd::try_from(amount).expect("in range"))
}

fn quantity() -> impl Strategy<Value = Quantity> {
    not_negative().prop_map(|amount| Quantity::new(amount).unwrap())
}

fn time() -> impl Strategy<Value = Time> {
    let (first, last) = (Time::MIN.micros(), Time::MAX.micros());
    let second = 1_000_000;
    prop_oneof![
        Just(first),
        Just(last),
        first..=last,
        (0..4_000_000_000_i64).prop_map(move |seconds| seconds * second)
    ]
    .prop_map(Time::from_micros)
}

fn one_of<T: Clone + std::fmt::Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = T> {
    sample::select(values)
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1e9..1e9_f64).prop_map(Into::into),
        ".{0,20}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            collection::btree_map(".{0,8}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn rollover()(mode in one_of(&[RolloverMode::None, RolloverMode::Capped, RolloverMode::Unlimited]), cap in option::of(not_negative()))
        -> Rollover {
        Rollover { mode, cap: cap.filter(|_| mode == RolloverMode::Capped) }
    }
}

prop_compose! {
    fn plan()(
        (name, anchor, timezone) in (option::of(words()), option::of(time()), option::of(one_of(&["UTC", "Europe/Berlin", "Etc/GMT+12"]))),
        (cycle, allowance) in (one_of(&[Cycle::Monthly, Cycle::Yearly, Cycle::Weekly, Cycle::Daily]), not_negative()),
        rollover in option::of(rollover()),
        pack_expiry in option::of(one_of(&[PackExpiry::PeriodEnd, PackExpiry::Never])),
        on_exhausted in option::of(one_of(&[OnExhausted::Block, OnExhausted::Allow])),
        (overage_limit, rate_card) in (option::of(not_negative()), option::of(id())),
    ) -> PlanBody {
        let timezone = timezone.map(|zone| zone.parse::<Zone>().unwrap());
        PlanBody { name, cycle, anchor, timezone, allowance, rollover, pack_expiry, on_exhausted, overage_limit, rate_card }
    }
}

prop_compose! {
    fn opening()(
        (name, plan) in (option::of(words()), plan()),
        unit in option::of(one_of(&[Unit::Credits, Unit::Usd])),
        clock in option::of(one_of(&[Clock::Live, Clock::Test])),
        overdraft in option::of(one_of(&[OverdraftPolicy::Carry, OverdraftPolicy::ForgiveAtReset])),
        (usd_per_unit, low_balance_threshold) in (option::of(dollars()), option::of(not_negative())),
        (promo_code, referred_by) in (option::of(id()), option::of(id())),
    ) -> OpenAccount {
        OpenAccount { name, unit, usd_per_unit, clock, overdraft, low_balance_threshold, plan, promo_code, referred_by }
    }
}

fn change() -> impl Strategy<Value = ChangeAccount> {
    let overdraft = option::of(one_of(&[OverdraftPolicy::Carry, OverdraftPolicy::ForgiveAtReset]));
    (option::of(words()), overdraft, option::of(option::of(not_negative())))
        .prop_map(|(name, overdraft, low_balance_threshold)| ChangeAccount {
            name,
            overdraft,
            low_balance_threshold,
        })
        .prop_filter("changes nothing", |change| *change != ChangeAccount::default())
}

prop_compose! {
    fn line()(
        (quantity, amount) in (slug(), quantity()),
        (unit_credits, per, credits) in (not_negative(), above_0(), not_negative()),
        (rate_card, version) in (id(), any::<u32>()),
    ) -> Line {
        Line { quantity, amount, unit_credits, per, credits, rate_card, version }
    }
}

prop_compose! {
    fn usage()(
        (org_id, user_id) in (option::of(outside()), option::of(outside())),
        (message_id, session_id, call_id) in (option::of(outside()), option::of(outside()), option::of(outside())),
        (feature, provider, model, tier, kind) in (option::of(label()), option::of(outside()), option::of(outside()), option::of(label()), option::of(label())),
        category in option::of(slug()),
        quantities in option::of(collection::btree_map(slug(), quantity(), 0..=32)),
        (credits, reservation_id, held) in (not_negative(), option::of(id()), option::of(not_negative())),
        metadata in option::of(collection::btree_map(words(), json(), 0..=16)),
        lines in option::of(collection::vec(line(), 0..4)),
    ) -> Usage {
        Usage {
            org_id, user_id, feature, category, provider, model, tier, kind, quantities, credits: Some(credits),
            message_id, session_id, reservation_id, call_id, metadata, lines, held,
        }
    }
}

prop_compose! {
    fn grant()(
        (grant_id, amount, reason) in (id(), above_0(), option::of(words())),
        source in one_of(&[GrantSource::Welcome, GrantSource::Promo, GrantSource::Referral, GrantSource::Adjustment]),
        priority in option::of(0..=1_000_i32),
        (effective_at, expires_at) in (option::of(time()), option::of(time())),
    ) -> Grant {
        let expires_at = expires_at.filter(|expires| effective_at.is_none_or(|effective| effective < *expires));
        Grant { grant_id, source, amount, priority, effective_at, expires_at, reason }
    }
}

fn adjustment() -> impl Strategy<Value = Adjust> {
    (above_0(), any::<bool>(), reason()).prop_map(|(amount, takes, reason)| Adjust {
        amount: if takes { amount.negated() } else { amount },
        reason,
    })
}

fn recipients() -> impl Strategy<Value = Recipients> {
    prop_oneof![
        Just(Recipients::AllAdmins),
        collection::btree_set(outside(), 1..4).prop_map(|ids| Recipients::These(ids.into_iter().collect())),
    ]
}

/// Any recipients, or none.
fn notified() -> impl Strategy<Value = Recipients> {
    prop_oneof![4 => recipients(), 1 => Just(Recipients::These(Vec::new()))]
}

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![Just(Limit::Unlimited), not_negative().prop_map(Limit::At)]
}

prop_compose! {
    fn limits()(
        (enabled, default_limit, notify) in (option::of(any::<bool>()), option::of(not_negative()), option::of(notified())),
        custom in option::of(collection::btree_map(outside(), limit(), 0..5)),
        features in option::of(collection::btree_set(label(), 0..4)),
    ) -> SetLimits {
        let excluded_features = features.map(|features| features.into_iter().collect());
        SetLimits { enabled, default_limit, custom, excluded_features, notify }
    }
}

fn threshold(basis: Basis) -> BoxedStrategy<Credits> {
    let whole = Credits::UNITS_PER_CREDIT;
    let (least, most) = match basis {
        Basis::PercentUsed => (whole, 100 * whole),
        Basis::PercentRemaining => (0, 100 * whole),
        Basis::AbsoluteUsed | Basis::AbsoluteRemaining => return not_negative().boxed(),
    };
    prop_oneof![Just(least), Just(most), least..=most].prop_map(Credits::from_units).boxed()
}

prop_compose! {
    fn org_alert()(
        (basis, threshold) in one_of(&[Basis::PercentUsed, Basis::AbsoluteUsed, Basis::PercentRemaining, Basis::AbsoluteRemaining])
            .prop_flat_map(|basis| (Just(basis), threshold(basis))),
        (alert_id, recipients) in (id(), option::of(recipients())),
        channels in option::of(sample::subsequence(&Channel::ALL, 1..=3)),
    ) -> SetOrgAlert {
        SetOrgAlert { alert_id, basis, threshold, recipients, channels }
    }
}

prop_compose! {
    fn user_alert()(
        (enabled, notify_user, recipients) in (option::of(any::<bool>()), option::of(any::<bool>()), option::of(recipients())),
        threshold in not_negative(),
        (off_without, nobody_else) in (any::<bool>(), any::<bool>()),
    ) -> SetUserAlert {
        let alone = nobody_else && notify_user == Some(true);
        let recipients = if alone { Some(Recipients::These(Vec::new())) } else { recipients };
        let threshold = Some(threshold).filter(|_| enabled != Some(false) || !off_without);
        SetUserAlert { enabled, threshold, notify_user, recipients }
    }
}

prop_compose! {
    fn auto_top_up()(
        (enabled, basis) in (option::of(any::<bool>()), option::of(one_of(&[TopUpBasis::CreditBalance, TopUpBasis::AvailableBalance]))),
        (threshold, amount) in (not_negative(), 1..=BOUNDS.top_up_max.units()),
        (payment_method, max_per_period) in (outside(), option::of(1..=1_000_u32)),
        (max_amount_per_period, bare) in (option::of(above_0()), any::<bool>()),
    ) -> SetAutoTopUp {
        let needed = enabled == Some(true) || !bare;
        SetAutoTopUp {
            enabled,
            basis,
            threshold: Some(threshold).filter(|_| needed),
            amount: Some(Credits::from_units(amount)).filter(|_| needed),
            payment_method: Some(payment_method).filter(|_| needed),
            max_per_period,
            max_amount_per_period,
        }
    }
}

prop_compose! {
    fn dispute()(payment_id in outside(), dispute_id in outside(), amount in above_0()) -> Dispute {
        Dispute { payment_id, dispute_id, amount }
    }
}

fn price() -> impl Strategy<Value = Price> {
    (not_negative(), "[a-z]{3}")
        .prop_map(|(amount, currency)| Price { amount, currency: currency.parse().unwrap() })
}

fn data() -> BTreeMap<&'static str, BoxedStrategy<Data>> {
    let change_at = || option::of(one_of(&[ChangeAt::Now, ChangeAt::NextPeriod]));
    let all: [BoxedStrategy<Data>; 26] = [
        opening().prop_map(Data::AccountOpened).boxed(),
        change().prop_map(Data::AccountChanged).boxed(),
        reason().prop_map(|reason| Data::AccountClosed(CloseAccount { reason })).boxed(),
        (plan(), change_at()).prop_map(|(plan, at)| Data::PlanChanged(ChangePlan { plan, at })).boxed(),
        time().prop_map(|advance_to| Data::ClockAdvanced(AdvanceClock { advance_to })).boxed(),
        usage().prop_map(Data::UsageRecorded).boxed(),
        (event_id(), source(), option::of(words()))
            .prop_map(|(event_id, source, reason)| {
                Data::UsageReversed(ReverseUsage { event_id, source, reason })
            })
            .boxed(),
        grant().prop_map(Data::CreditsGranted).boxed(),
        (outside(), option::of(words()))
            .prop_map(|(grant_id, reason)| Data::GrantVoided(VoidGrant { grant_id, reason }))
            .boxed(),
        adjustment().prop_map(Data::CreditsAdjusted).boxed(),
        (outside(), above_0(), option::of(price()))
            .prop_map(|(payment_id, amount, price)| {
                Data::CreditsPurchased(Purchase { payment_id, amount, price })
            })
            .boxed(),
        (outside(), option::of(outside()), above_0(), option::of(words()))
            .prop_map(|(payment_id, refund_id, amount, reason)| {
                Data::CreditsRefunded(Refund { payment_id, refund_id, amount, reason })
            })
            .boxed(),
        (outside(), outside(), above_0())
            .prop_map(|(payment_id, refund_id, amount)| {
                Data::RefundFailed(FailRefund { payment_id, refund_id, amount })
            })
            .boxed(),
        any::<i64>().prop_map(|index| Data::PeriodReset(ResetPeriod { index })).boxed(),
        limits().prop_map(Data::LimitsSet).boxed(),
        (outside(), option::of(limit()))
            .prop_map(|(user_id, limit)| Data::UserLimitSet(SetUserLimit { user_id, limit }))
            .boxed(),
        org_alert().prop_map(Data::OrgAlertSet).boxed(),
        id().prop_map(|alert_id| Data::OrgAlertRemoved(RemoveOrgAlert { alert_id })).boxed(),
        user_alert().prop_map(Data::UserAlertSet).boxed(),
        auto_top_up().prop_map(Data::AutoTopUpSet).boxed(),
        (id(), above_0(), outside())
            .prop_map(|(attempt_id, amount, payment_method)| {
                Data::TopUpStarted(StartTopUp { attempt_id, amount, payment_method })
            })
            .boxed(),
        (id(), reason())
            .prop_map(|(attempt_id, reason)| Data::TopUpFailed(FailTopUp { attempt_id, reason }))
            .boxed(),
        one_of(&[Brake::MaxPerPeriod, Brake::MaxAmountPerPeriod])
            .prop_map(|reason| Data::TopUpRefused(RefuseTopUp { reason }))
            .boxed(),
        (id(), outside(), above_0(), option::of(price()))
            .prop_map(|(attempt_id, payment_id, amount, price)| {
                Data::CreditsToppedUp(TopUp { attempt_id, payment_id, amount, price })
            })
            .boxed(),
        dispute().prop_map(Data::DisputeOpened).boxed(),
        dispute().prop_map(Data::DisputeWon).boxed(),
    ];
    Data::TYPES.into_iter().zip(all).collect()
}

prop_compose! {
    fn event(of: BoxedStrategy<Data>)(
        (id, source, account) in (event_id(), source(), id()),
        (occurred_at, recorded_at, actor) in (time(), time(), label()),
        data in of,
    ) -> Event {
        Event { id, source, account, occurred_at, recorded_at, actor, data }
    }
}

#[test]
fn every_event_that_the_code_writes_fits_its_schema_and_reads_back_equal() {
    let contract = Contract::read();
    for (event_type, data) in data() {
        let schema = schema_path(event_type);
        let schema = schema.trim_start_matches("schemas/").trim_end_matches(".json");
        let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(event in event(data))| {
            prop_assert_eq!(event.data.type_name(), event_type);
            let bytes = encode(&event);
            contract.check_fits(schema, &serde_json::from_slice(&bytes).unwrap());
            prop_assert_eq!(decode(&bytes), Ok(event));
        });
    }
}
