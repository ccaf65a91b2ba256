//! Any history fires what the naive model fires, however it is cut into batches.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use ledger_core::event::Data;
use ledger_core::fold::Fact;
use ledger_core::fold::memory::Memory;
use ledger_core::policy::alert::{ENDED_MAX, Firing, Kind, firing};
use ledger_core::value::id::AccountId;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::naive::Naive;
use crate::story::{ACCOUNT, Story};
use crate::watched::Watched;

/// One line of a random history. Small numbers and few names, so that everything meets everything.
#[derive(Debug, Clone)]
enum Line {
    Use {
        id: u8,
        user: u8,
        feature: u8,
        credits: u32,
    },
    Reverse {
        id: u8,
    },
    Grant {
        amount: u32,
        starts: Option<u32>,
        lasts: Option<u32>,
    },
    Void {
        id: u8,
    },
    Adjust {
        amount: i32,
    },
    Buy {
        amount: u32,
    },
    Refund {
        id: u8,
        amount: u32,
    },
    Replan {
        allowance: u32,
        next: bool,
    },
    Forgive {
        on: bool,
    },
    LowAt {
        at: Option<u32>,
    },
    Alert {
        id: u8,
        basis: u8,
        threshold: u32,
        recipients: u8,
    },
    NoAlert {
        id: u8,
    },
    UserAlert {
        enabled: bool,
        threshold: Option<u32>,
    },
    Limits {
        enabled: bool,
        default: Option<u32>,
        custom: Option<Vec<(u8, Option<u32>)>>,
        excluded: u8,
    },
    /// `None` removes it, `Some(None)` is unlimited.
    OwnLimit {
        user: u8,
        limit: Option<Option<u32>>,
    },
    Wait {
        hours: u32,
    },
}

fn line() -> impl Strategy<Value = Line> {
    let money = prop_oneof![
        12 => (0..50_u8, 0..4_u8, 0..4_u8, 0..25_u32)
            .prop_map(|(id, user, feature, credits)| Line::Use { id, user, feature, credits }),
        4 => (0..50_u8).prop_map(|id| Line::Reverse { id }),
        2 => (1..30_u32, proptest::option::of(1..900_u32), proptest::option::of(1..900_u32))
            .prop_map(|(amount, starts, lasts)| Line::Grant { amount, starts, lasts }),
        1 => (0..12_u8).prop_map(|id| Line::Void { id }),
        2 => prop_oneof![-30..0_i32, 1..30_i32].prop_map(|amount| Line::Adjust { amount }),
        2 => (1..40_u32).prop_map(|amount| Line::Buy { amount }),
        1 => (0..12_u8, 1..20_u32).prop_map(|(id, amount)| Line::Refund { id, amount }),
        1 => (0..40_u32, any::<bool>()).prop_map(|(allowance, next)| Line::Replan { allowance, next }),
        1 => any::<bool>().prop_map(|on| Line::Forgive { on }),
        4 => (1..500_u32).prop_map(|hours| Line::Wait { hours }),
    ];
    let amount = || proptest::option::of(0..30_u32);
    let custom = || proptest::option::of(prop::collection::vec((0..4_u8, amount()), 0..4));
    let rules = prop_oneof![
        2 => proptest::option::of(0..40_u32).prop_map(|at| Line::LowAt { at }),
        4 => (0..3_u8, 0..4_u8, 1..=100_u32, 0..3_u8)
            .prop_map(|(id, basis, threshold, recipients)| Line::Alert { id, basis, threshold, recipients }),
        1 => (0..3_u8).prop_map(|id| Line::NoAlert { id }),
        2 => (any::<bool>(), amount()).prop_map(|(enabled, threshold)| Line::UserAlert { enabled, threshold }),
        4 => (prop::bool::weighted(0.8), amount(), custom(), 0..8_u8)
            .prop_map(|(enabled, default, custom, excluded)| Line::Limits { enabled, default, custom, excluded }),
        4 => (0..4_u8, proptest::option::weighted(0.8, amount()))
            .prop_map(|(user, limit)| Line::OwnLimit { user, limit }),
    ];
    prop_oneof![3 => money, 1 => rules]
}

const USERS: [&str; 4] = ["ana", "bo", "cy", ""];
const FEATURES: [&str; 4] = ["chat", "voice", "workflow", ""];
const BASES: [&str; 4] = ["percent_used", "absolute_used", "percent_remaining", "absolute_remaining"];
const RECIPIENTS: [&str; 3] = ["\"all_admins\"", "[\"carl\"]", "[\"carl\",\"dora\"]"];

fn field(name: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!(r#","{name}":"{value}""#) }
}

fn play(story: &mut Story, line: &Line) {
    let number = story.facts.len();
    match line {
        Line::Use { id, user, feature, credits } => {
            let user = field("user_id", USERS[usize::from(*user)]);
            let feature = field("feature", FEATURES[usize::from(*feature)]);
            let body = format!(r#"{{"credits":"{credits}"{user}{feature}}}"#);
            story.event(&format!("u{id}"), "ledger.usage.recorded.v1", &body);
        }
        Line::Reverse { id } => drop(story.play(&format!("reverse u{id}"))),
        Line::Grant { amount, starts, lasts } => grant(story, number, *amount, *starts, *lasts),
        Line::Void { id } => drop(story.play(&format!("void g{id}"))),
        Line::Adjust { amount } => drop(story.play(&format!("adjust {amount}"))),
        Line::Buy { amount } => drop(story.play(&format!("buy p{} {amount}", number % 12))),
        Line::Refund { id, amount } => drop(story.play(&format!("refund p{id} {amount}"))),
        Line::Replan { allowance, next } => {
            let word = if *next { "replan-next" } else { "replan" };
            story.play(&format!(r#"{word} {allowance} "rollover":{{"mode":"capped","cap":"9"}}"#));
        }
        Line::Forgive { on } => {
            let policy = if *on { "forgive_at_reset" } else { "carry" };
            story.play(&format!(r#"change {{"overdraft":"{policy}"}}"#));
        }
        Line::LowAt { at } => {
            let at = at.map_or_else(|| "null".into(), |at| format!("\"{at}\""));
            story.play(&format!(r#"change {{"low_balance_threshold":{at}}}"#));
        }
        Line::Alert { id, basis, threshold, recipients } => {
            let (basis, recipients) = (BASES[usize::from(*basis)], RECIPIENTS[usize::from(*recipients)]);
            story.play(&format!(r#"alert a{id} {basis} {threshold} "recipients":{recipients}"#));
        }
        Line::NoAlert { id } => drop(story.play(&format!("no-alert a{id}"))),
        Line::UserAlert { enabled, threshold } => {
            let enabled = *enabled && threshold.is_some();
            let threshold = threshold.map_or_else(String::new, |at| at.to_string());
            story.play(&format!(r#"user-alert {{"enabled":{enabled}{}}}"#, field("threshold", &threshold)));
        }
        Line::Limits { enabled, default, custom, excluded } => {
            limits(story, *enabled, *default, custom.as_deref(), *excluded)
        }
        Line::OwnLimit { user, limit } => {
            let limit = limit.map_or_else(|| "none".into(), limit_text);
            story.play(&format!("limit {} {limit}", limited(*user)));
        }
        Line::Wait { hours } => story.now = story.now.plus_seconds(i64::from(*hours) * 3600),
    }
}

/// Starts and ends of lots fall on seconds of their own: the naive model sees one crossing an instant.
fn grant(story: &mut Story, number: usize, amount: u32, starts: Option<u32>, lasts: Option<u32>) {
    let own = 2 * i64::try_from(number).expect("few lines");
    let starts_at = starts.map(|hours| story.now.plus_seconds(i64::from(hours) * 3600 + own));
    let from = starts_at.unwrap_or(story.now);
    let ends_at = lasts
        .map(|hours| from.plus_seconds(i64::from(hours) * 3600 + if starts.is_some() { 1 } else { own }));
    let time = |name: &str, at: Option<ledger_core::value::time::Time>| {
        at.map_or_else(String::new, |at| field(name, &at.to_string()))
    };
    let body = format!(
        r#"{{"grant_id":"g{}","source":"promo","amount":"{amount}"{}{}}}"#,
        number % 12,
        time("effective_at", starts_at),
        time("expires_at", ends_at),
    );
    story.event(&format!("e{number}"), "ledger.credits.granted.v1", &body);
}

/// A user who may have a limit of their own; the last one never uses anything.
fn limited(user: u8) -> &'static str {
    if user == 3 { "zoe" } else { USERS[usize::from(user)] }
}

fn limit_text(limit: Option<u32>) -> String {
    limit.map_or_else(|| "unlimited".into(), |limit| limit.to_string())
}

fn limits(
    story: &mut Story,
    enabled: bool,
    default: Option<u32>,
    custom: Option<&[(u8, Option<u32>)]>,
    excluded: u8,
) {
    let custom = custom.map(|custom| {
        custom.iter().map(|(user, limit)| (limited(*user), limit_text(*limit))).collect::<BTreeMap<_, _>>()
    });
    let excluded: Vec<&str> =
        (0..3).filter(|bit| excluded & (1 << bit) != 0).map(|bit| FEATURES[bit]).collect();
    let mut body = serde_json::json!({"enabled": enabled, "excluded_features": excluded});
    if let Some(custom) = custom {
        body["custom"] = serde_json::json!(custom);
    }
    if let Some(default) = default {
        body["default_limit"] = default.to_string().into();
    }
    story.play(&format!("limits {body}"));
}

/// The facts of a history, and what the naive model says fires.
fn naive_firings(lines: &[Line]) -> (Vec<Fact>, Vec<String>) {
    let mut story = Story::new();
    story.play(r#"plan 20 "rollover":{"mode":"capped","cap":"9"}"#);
    lines.iter().for_each(|line| play(&mut story, line));
    let (mut memory, mut naive) = (Memory::default(), Naive::default());
    let account = AccountId::new(ACCOUNT).expect("an id");
    let core_of = |memory: &Memory| memory.accounts.get(&account).and_then(|account| account.core.clone());
    for fact in &story.facts {
        let before = core_of(&memory);
        let applied = memory.fold(std::slice::from_ref(fact)).remove(0);
        naive.play(before.as_ref(), core_of(&memory).as_ref(), fact, &applied);
    }
    (story.facts, naive.firings)
}

/// Shows a firing as the naive model does, and its id as derived from what it says.
fn shown(firing: &Firing, n: &mut BTreeMap<Kind, u32>, facts: &[Fact]) -> String {
    let account = AccountId::new(ACCOUNT).expect("an id");
    let (kind, version, period) = (firing.kind, firing.threshold_version, firing.period_index);
    let (line, figure) = (firing.threshold.units(), firing.figure.units());
    let at = firing.fired_at;
    // A crossing's firing names the crossing, or the grant that starts there.
    let is_event = |fact: &&Fact| fact.event.id == firing.event_id && fact.event.recorded_at == at;
    let event = facts.iter().find(is_event).map_or("*", |fact| fact.event.id.as_str());
    let rule = match kind {
        Kind::OrgAlert => format!("{} {}", kind.as_str(), firing.alert_id.as_ref().expect("an alert")),
        Kind::UserAlert
        | Kind::UserLimitReached
        | Kind::CreditBalanceLow
        | Kind::CreditBalanceDepleted
        | Kind::CreditsAvailableAgain
        | Kind::CreditAutoRechargeTriggered
        | Kind::CreditPurchaseFailed => kind.as_str().to_owned(),
    };
    let expected = match kind {
        Kind::OrgAlert | Kind::UserAlert | Kind::UserLimitReached => {
            firing::firing_id(&account, kind, firing.alert_id.as_ref(), version, &firing.subject, period)
        }
        Kind::CreditBalanceLow
        | Kind::CreditBalanceDepleted
        | Kind::CreditsAvailableAgain
        | Kind::CreditAutoRechargeTriggered
        | Kind::CreditPurchaseFailed => {
            let n = n.entry(kind).or_default();
            *n += 1;
            assert_eq!(firing.firing_id, firing::notice_id(&account, kind, *n));
            return format!("{rule} #{n} {line} p{period} {figure} {at} {event}");
        }
    };
    assert_eq!(firing.firing_id, expected);
    format!("{rule} {} {line} v{version} p{period} {figure} {at} {event}", firing.subject)
}

fn in_batches(facts: &[Fact], cuts: &[usize]) -> Watched {
    let mut watched = Watched::default();
    let mut rest = facts;
    for size in cuts.iter().chain(std::iter::repeat(&4)) {
        if rest.is_empty() {
            break;
        }
        let (batch, later) = rest.split_at((*size).min(rest.len()));
        watched.batch(batch);
        rest = later;
    }
    watched
}

/// What fired, in the naive model's words.
fn fired(watched: &Watched, facts: &[Fact]) -> Vec<String> {
    let ids: BTreeSet<_> = watched.firings.iter().map(|firing| firing.firing_id).collect();
    assert_eq!(ids.len(), watched.firings.len(), "an id fired twice");
    let mut n = BTreeMap::new();
    watched.firings.iter().map(|firing| shown(firing, &mut n, facts)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_history_fires_what_the_naive_model_fires_however_it_is_cut(
        lines in prop::collection::vec(line(), 1..120),
        cuts in prop::collection::vec(1..9_usize, 1..40),
    ) {
        let (facts, expected) = naive_firings(&lines);
        let (cut, whole) = (in_batches(&facts, &cuts), in_batches(&facts, &[facts.len()]));
        prop_assert_eq!(fired(&cut, &facts), expected);
        prop_assert_eq!(&cut.firings, &whole.firings);
        // The stored state is the same too, so that a rebuilt state equals one that grew.
        prop_assert_eq!(&cut.watch, &whole.watch);
        prop_assert_eq!(&cut.pages, &whole.pages);
        prop_assert_eq!(&cut.limits, &whole.limits);
    }
}

/// Users whose limits one event sets, and blocks of them.
const BLOCK_USERS: usize = 3;
const BLOCKS: usize = 4;

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// All own limits are replaced more often than series are told apart.
    #[test]
    fn no_history_of_very_many_limits_fires_one_id_twice(
        limits in prop::collection::vec(
            (0..BLOCKS, 1..4_u32, proptest::option::of(5..8_u32)),
            2 * ENDED_MAX..3 * ENDED_MAX,
        ),
    ) {
        let mut story = Story::new();
        story.play("plan 1000");
        for block in 0..BLOCKS {
            story.play(&format!("by b{block}-0 9; by zoe{block} 9"));
        }
        for (block, limit, default) in &limits {
            let custom: BTreeMap<String, String> =
                (0..BLOCK_USERS).map(|n| (format!("b{block}-{n}"), limit.to_string())).collect();
            let default = default.map(|limit| limit.to_string());
            story.play(&format!("limits {}", serde_json::json!({"custom": custom, "default_limit": default})));
        }
        let watched = in_batches(&story.facts, &[]);
        let ids: BTreeSet<_> = watched.firings.iter().map(|firing| firing.firing_id).collect();
        prop_assert_eq!(ids.len(), watched.firings.len(), "an id fired twice");
        let mut last = BTreeMap::new();
        for firing in watched.firings.iter().filter(|firing| firing.kind == Kind::UserLimitReached) {
            let before = last.insert(&firing.subject, firing.threshold_version).unwrap_or(0);
            prop_assert!(firing.threshold_version > before, "{firing:?} after version {before}");
        }
    }
}

#[test]
fn random_histories_meet_every_rule() {
    let counts = RefCell::new(BTreeMap::<String, u32>::new());
    let mut runner = TestRunner::deterministic();
    let config = prop::collection::vec(line(), 60..120);
    for _ in 0..60 {
        let lines = config.new_tree(&mut runner).expect("lines").current();
        let (facts, firings) = naive_firings(&lines);
        for firing in firings {
            let words: Vec<&str> = firing.split(' ').collect();
            *counts.borrow_mut().entry(words[0].to_owned()).or_default() += 1;
            if words.last() == Some(&"*") {
                *counts.borrow_mut().entry(format!("{} at a crossing", words[0])).or_default() += 1;
            }
            let by = facts.iter().find(|fact| Some(&fact.event.id.as_str()) == words.last());
            let by_setting =
                by.is_some_and(|fact| matches!(fact.event.data, Data::LimitsSet(_) | Data::UserAlertSet(_)));
            if by_setting {
                *counts.borrow_mut().entry(format!("{} by a setting", words[0])).or_default() += 1;
            }
        }
    }
    let counts = counts.into_inner();
    for expected in [
        "org_alert",
        "org_alert at a crossing",
        "user_alert",
        "user_alert by a setting",
        "user_limit_reached",
        "user_limit_reached by a setting",
        "credit_balance_low",
        "credit_balance_depleted",
        "credits_available_again",
        "credits_available_again at a crossing",
    ] {
        assert!(counts.get(expected).is_some_and(|count| *count >= 5), "{expected} in {counts:?}");
    }
}
