//! Auto top-up: section 9's rules, each as a story.

use ledger_core::policy::due;
use ledger_core::policy::top_up::{self, Want};

use crate::story::{attempt, story};

const ON: &str = "plan 0; topup 10 50";

/// What is required of the process that runs top-ups: `start 1 50`, `refuse max_per_period`, `wait 2026-…`, `outcome 1`.
fn wanted(script: &str) -> String {
    let story = story(script);
    match top_up::want(story.account().core.as_ref().expect("an open account")) {
        Want::Nothing => "nothing".into(),
        Want::Start(attempt) => format!("start {} {}", attempt.number, attempt.amount),
        Want::Refuse(brake) => format!("refuse {}", brake.as_str()),
        Want::Wait(until) => format!("wait {until}"),
        Want::Outcome(attempt) => format!("outcome {}", attempt.number),
    }
}

fn check(script: &str, expected: &str) {
    assert_eq!(wanted(script), expected, "{script}");
}

fn check_outcome(script: &str, outcome: &str) {
    assert_eq!(story(script).outcome(), outcome, "{script}");
}

#[test]
fn off_by_default_and_where_it_says_so() {
    check("plan 0", "nothing");
    check("plan 0; no-topup", "nothing");
    check(&format!("{ON}; no-topup"), "nothing");
}

#[test]
fn an_attempt_starts_when_the_figure_is_at_or_below_the_threshold() {
    check(ON, "start 1 50");
    check(&format!("{ON}; buy p 10"), "start 1 50");
    check(&format!("{ON}; buy p 10.000000001"), "nothing");
    check(&format!("{ON}; buy p 100; use 89"), "nothing");
    check(&format!("{ON}; buy p 100; use 90"), "start 1 50");
}

#[test]
fn the_credit_balance_counts_bought_credits_only_and_the_available_balance_all() {
    check("plan 1000; topup 10 50", "start 1 50");
    let available = r#"plan 1000; topup 10 50 "basis":"available_balance""#;
    check(available, "nothing");
    check(&format!("{available}; use 990"), "start 1 50");
    check(&format!("{available}; use 1200"), "start 1 50");
}

#[test]
fn one_attempt_is_open_at_a_time() {
    check(&format!("{ON}; due"), "outcome 1");
    check(&format!("{ON}; due; use 5; use 5"), "outcome 1");
    check(&format!("{ON}; due; no-topup; topup 10 50"), "outcome 1");
    check_outcome(&format!("{ON}; due; start 2 50"), "top_up_not_due");
}

#[test]
fn a_start_counts_only_where_it_is_wanted_and_uses_up_its_number_either_way() {
    check_outcome(&format!("{ON}; start 1 50"), "applied");
    check_outcome(&format!("{ON}; buy p 100; start 1 50"), "top_up_not_due");
    check_outcome(&format!("{ON}; no-topup; start 1 50"), "top_up_not_due");
    check_outcome(&format!("{ON}; topup 10 60; start 1 50"), "top_up_not_due");
    check_outcome(&format!("{ON}; start 2 50"), "attempt_out_of_order");
    check(&format!("{ON}; buy p 100; start 1 50; use 95"), "start 2 50");
    check(&format!("{ON}; start 7 50"), "start 1 50");
}

#[test]
fn a_paid_attempt_is_one_lot_with_its_own_id_and_counts_as_added() {
    let paid = story(&format!("{ON}; use 20; due; paid 1 50 pay_1"));
    assert_eq!(paid.lots(), format!("{} 30", attempt("1")));
    assert_eq!(paid.entries(), "topped_up 50");
    let balance = paid.balance();
    assert_eq!(
        (balance.period_maximum.to_string(), balance.credit_balance.to_string()),
        ("50".into(), "30".into())
    );
    assert_eq!(
        (balance.lifetime_added.to_string(), balance.lifetime_spent.to_string()),
        ("50".into(), "20".into())
    );
    check(&format!("{ON}; due; paid 1 50 pay_1"), "nothing");
    check(&format!("{ON}; due; paid 1 50 pay_1; use 40"), "start 2 50");
}

#[test]
fn an_attempt_or_a_payment_is_credited_once_whichever_event_says_so() {
    let paid = format!("{ON}; due; paid 1 50 pay_1");
    check_outcome(&format!("{paid}; paid 1 50 pay_1"), "payment_exists");
    check_outcome(&format!("{paid}; paid 1 50 pay_2"), "payment_exists");
    check_outcome(&format!("{paid}; paid 2 50 pay_1"), "payment_exists");
    check_outcome(&format!("{paid}; buy pay_1 50"), "payment_exists");
    check_outcome(&format!("{ON}; buy pay_1 5; due; paid 1 50 pay_1"), "payment_exists");
}

#[test]
fn success_after_failure_applies_and_failure_after_success_is_rejected() {
    let late = format!("{ON}; due; declined 1; paid 1 50 pay_1");
    check_outcome(&late, "applied");
    assert_eq!(story(&late).balance().settled.to_string(), "50");
    check_outcome(&format!("{late}; declined 1"), "attempt_not_open");
    check_outcome(&format!("{ON}; due; declined 1; declined 1"), "attempt_not_open");
    check_outcome(&format!("{ON}; declined 1"), "attempt_not_open");
    // The late success of one does not close another.
    check(&format!("{ON}; due; declined 1; topup 10 50; due; paid 1 5 pay_1"), "outcome 2");
}

#[test]
fn a_failure_waits_one_four_and_twenty_four_hours_and_the_fourth_in_a_row_is_the_last() {
    let once = format!("{ON}; due; declined 1");
    check(&once, "wait 2026-01-01T01:00:00Z");
    check(&format!("{once}; at 2026-01-01T00:59:59Z; use 1"), "wait 2026-01-01T01:00:00Z");
    check(&format!("{once}; at 2026-01-01T01:00:00Z; tick"), "start 2 50");
    let twice = format!("{once}; at 2026-01-01T01:00:00Z; tick; due; declined 2");
    check(&twice, "wait 2026-01-01T05:00:00Z");
    let thrice = format!("{twice}; at 2026-01-01T05:00:00Z; tick; due; declined 3");
    check(&thrice, "wait 2026-01-02T05:00:00Z");
    let four = format!("{thrice}; at 2026-01-02T05:00:00Z; tick; due; declined 4");
    check(&four, "nothing");
    check(&format!("{four}; at 2026-09-01T00:00:00Z; tick"), "nothing");
}

#[test]
fn a_purchase_or_saved_settings_clear_failures_and_their_wait() {
    let four: String =
        (1..=4).map(|n| format!("; at 2026-01-0{n}T12:00:00Z; tick; due; declined {n}")).collect();
    let rests = format!("{ON}{four}");
    check(&rests, "nothing");
    check(&format!("{rests}; topup 10 50"), "start 5 50");
    check(&format!("{rests}; buy p 5"), "start 5 50");
    check(&format!("{rests}; paid 4 5 pay_4"), "start 5 50");
    check(&format!("{ON}; due; declined 1; topup 10 50"), "start 2 50");
    check(&format!("{ON}; due; declined 1; topup 10 50; due; declined 2"), "wait 2026-01-01T01:00:00Z");
}

#[test]
fn an_idle_account_is_woken_for_the_next_try_while_it_is_wanted() {
    let next_due = |script: &str| {
        let story = story(script);
        let core = story.account().core.as_ref().expect("an open account");
        due::next_due(core).expect("something is due").to_string()
    };
    let failed = format!("{ON}; due; declined 1");
    assert_eq!(next_due(&failed), "2026-01-01T01:00:00Z");
    assert_eq!(next_due(&format!("{failed}; grant g 1; buy p 50")), "2026-02-01T00:00:00Z");
    assert_eq!(next_due(&format!("{failed}; no-topup")), "2026-02-01T00:00:00Z");
}

#[test]
fn a_period_has_so_many_top_ups_and_the_brake_says_so_once() {
    let one = r#"plan 0; topup 10 50 "max_per_period":1; due; paid 1 50 pay_1; use 50"#;
    check(one, "refuse max_per_period");
    let refused = format!("{one}; due");
    check(&refused, "nothing");
    check(&format!("{refused}; use 5"), "nothing");
    // Settings saved, even unchanged, are another version.
    check(&format!(r#"{refused}; topup 10 50 "max_per_period":1"#), "refuse max_per_period");
    check(&format!("{refused}; topup 10 50"), "start 2 50");
    check(&format!("{refused}; at 2026-02-01T00:00:00Z; tick"), "start 2 50");
    let failed = r#"plan 0; topup 10 50 "max_per_period":1; due; declined 1; at 2026-01-01T01:00:00Z; tick"#;
    check(failed, "start 2 50");
}

#[test]
fn an_attempt_that_would_pass_the_periods_amount_is_refused_whole() {
    let capped = r#"plan 0; topup 10 50 "max_amount_per_period":"120"; due; paid 1 50 pay_1; use 50; due; paid 2 50 pay_2; use 50"#;
    check(capped, "refuse max_amount_per_period");
    check(&format!("{capped}; due"), "nothing");
    check(r#"plan 0; topup 10 50 "max_amount_per_period":"50""#, "start 1 50");
    check(r#"plan 0; topup 10 50 "max_amount_per_period":"49.9""#, "refuse max_amount_per_period");
}

#[test]
fn a_refusal_of_a_period_or_settings_gone_by_says_nothing_of_those_that_stand() {
    let brakes = r#""max_per_period":1"#;
    let mut late = story(&format!("plan 0; topup 10 50 {brakes}; due; paid 1 50 pay_1; use 50"));
    let core = late.account().core.clone().expect("an open account");
    let refusal = top_up::refused(&core, ledger_core::event::Brake::MaxPerPeriod, late.now);
    late.play(&format!("topup 10 50 {brakes}"));
    late.push_from(ledger_core::event::derive::TOP_UPS, refusal.id.as_str(), refusal.data);
    assert_eq!(late.outcome(), "applied");
    let want = top_up::want(late.account().core.as_ref().expect("an open account"));
    assert_eq!(want, Want::Refuse(ledger_core::event::Brake::MaxPerPeriod));
}

#[test]
fn credits_topped_up_expire_as_bought_ones_do() {
    let ends = r#"plan 0 "pack_expiry":"period_end"; topup 10 50; due; paid 1 50 pay_1; no-topup; at 2026-02-01T00:00:00Z; tick"#;
    assert_eq!(story(ends).entries(), "expired -50");
    let stays = format!("{ON}; due; paid 1 50 pay_1; at 2026-02-01T00:00:00Z; tick");
    assert_eq!(story(&stays).lots(), format!("{} 50", attempt("1")));
}

#[test]
fn the_low_line_is_auto_top_ups_while_that_is_on() {
    let line = |script: &str| {
        ledger_core::policy::balance::low_line(story(script).account().core.as_ref().expect("open"))
    };
    let own =
        r#"open {"clock":"test","low_balance_threshold":"7","plan":{"cycle":"monthly","allowance":"0"}}"#;
    assert_eq!(line(own).expect("a line").to_string(), "7");
    assert_eq!(line(&format!("{own}; topup 10 50")).expect("a line").to_string(), "10");
    assert_eq!(line(&format!("{own}; topup 10 50; no-topup")).expect("a line").to_string(), "7");
    assert_eq!(line(ON).expect("a line").to_string(), "10");
}

#[test]
fn a_top_up_is_refunded_by_its_payment() {
    let paid = format!("{ON}; due; paid 1 50 pay_1; use 20");
    assert_eq!(story(&format!("{paid}; refund pay_1 40")).entries(), "refunded -40");
    assert_eq!(story(&format!("{paid}; refund pay_1 50")).lots(), "| owes 20");
    check_outcome(&format!("{paid}; refund pay_1 50.1"), "refund_exceeds_payment");
    check_outcome(&format!("{paid}; refund {} 1", attempt("1")), "payment_unknown");
}
