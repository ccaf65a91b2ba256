//! Backtests: a rule tried on a history fires what it would have fired in force.

use ledger_core::event::Basis;
use ledger_core::fold::memory::Memory;
use ledger_core::policy::alert::{Backtest, Kind, Rule};
use ledger_core::value::id::{AccountId, Label};

use crate::story::{ACCOUNT, story};
use crate::watched::watched;

const HISTORY: &str = r#"by ana 4 chat; by bo 3 voice; at 2026-01-05T00:00:00Z; by ana 4 voice; by bo 3 chat;
    at 2026-01-20T00:00:00Z; by ana 9 chat; reverse u3; at 2026-02-03T00:00:00Z; by bo 8 chat; by bo 1 chat;
    at 2026-03-07T00:00:00Z; by bo 1 chat; by ana 12"#;

/// Tries a rule on a history that never had it.
fn tried(rule: Rule, script: &str) -> Backtest {
    let (mut memory, mut backtest) = (Memory::default(), Backtest::new(rule));
    for fact in &story(script).facts {
        let applied = memory.fold_watched(fact, &mut backtest);
        let account = &memory.accounts[&AccountId::new(ACCOUNT).expect("an id")];
        backtest.usage(account.core.as_ref().expect("an open account"), &applied);
    }
    backtest
}

/// Compares with what fires where the rule is set right after the opening.
fn check(rule: Rule, set: &str, kind: Kind, expected: &str) {
    let in_force: Vec<String> = watched(&format!("plan 10; {set}; {HISTORY}"))
        .firings
        .iter()
        .filter(|firing| firing.kind == kind)
        .map(|firing| format!("{} {} {}", firing.fired_at, firing.subject, firing.figure))
        .collect();
    let backtest = tried(rule, &format!("plan 10; tick; {HISTORY}"));
    let hits: Vec<String> = backtest
        .hits()
        .iter()
        .map(|hit| format!("{} {} {}", hit.fired_at, hit.subject, hit.figure))
        .collect();
    assert_eq!(hits, in_force, "{set}");
    assert_eq!(hits.join(", "), expected, "{set}");
    assert_eq!(backtest.total(), hits.len() as u64);
}

fn credits(text: &str) -> ledger_core::value::credits::Credits {
    text.parse().expect("an amount")
}

#[test]
fn an_org_alert_tells_once_a_period() {
    check(
        Rule::OrgAlert { basis: Basis::PercentUsed, threshold: credits("80") },
        "alert a percent_used 80",
        Kind::OrgAlert,
        // February carries in as much debt as its allowance: no maximum, no percent.
        "2026-01-05T00:00:00Z acme 110, 2026-03-07T00:00:00Z acme 100",
    );
    check(
        Rule::OrgAlert { basis: Basis::AbsoluteRemaining, threshold: credits("10") },
        "alert a absolute_remaining 10",
        Kind::OrgAlert,
        "2026-01-01T00:00:00Z acme 10, 2026-02-01T00:00:00Z acme 0, 2026-03-01T00:00:00Z acme 1",
    );
}

#[test]
fn a_user_alert_tells_of_each_user() {
    check(
        Rule::UserAlert { threshold: credits("6") },
        r#"user-alert {"threshold":"6"}"#,
        Kind::UserAlert,
        "2026-01-05T00:00:00Z ana 8, 2026-01-05T00:00:00Z bo 6, 2026-02-03T00:00:00Z bo 8, 2026-03-07T00:00:00Z ana 12",
    );
}

#[test]
fn a_limit_counts_without_what_is_excluded() {
    let rule = |excluded: &[&str]| Rule::Limit {
        limit: credits("6"),
        excluded_features: excluded.iter().map(|text| Label::new(text).expect("a label")).collect(),
    };
    check(
        rule(&["voice"]),
        r#"limits {"default_limit":"6","excluded_features":["voice"]}"#,
        Kind::UserLimitReached,
        "2026-01-20T00:00:00Z ana 13, 2026-02-03T00:00:00Z bo 8, 2026-03-07T00:00:00Z ana 12",
    );
    check(
        rule(&[]),
        r#"limits {"default_limit":"6"}"#,
        Kind::UserLimitReached,
        "2026-01-05T00:00:00Z ana 8, 2026-01-05T00:00:00Z bo 6, 2026-02-03T00:00:00Z bo 8, 2026-03-07T00:00:00Z ana 12",
    );
}
