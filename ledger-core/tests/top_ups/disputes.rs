//! Disputes: an open one takes credits as a refund does, a won one is undone as a reversal undoes usage.

use crate::story::{Story, story};

fn check(script: &str, lots: &str) {
    let story = story(script);
    assert_eq!(story.lots(), lots, "{script}");
    conserves(&story);
}

fn check_outcome(script: &str, outcome: &str) {
    assert_eq!(story(script).outcome(), outcome, "{script}");
}

fn conserves(story: &Story) {
    let core = story.account().core.as_ref().expect("an open account");
    assert_eq!(core.conserved(), core.settled());
}

const BOUGHT: &str = "plan 0; grant g 30; buy p 100";

#[test]
fn a_dispute_takes_what_remains_of_its_payment_then_by_the_rule_for_taking() {
    check(&format!("{BOUGHT}; dispute d p 40"), "g 30, p 60");
    check(&format!("{BOUGHT}; use 100; dispute d p 100"), "| owes 70");
    let story = story(&format!("{BOUGHT}; dispute d p 40"));
    assert_eq!(story.entries(), "refunded -40");
    assert_eq!(story.balance().period_maximum.to_string(), "90");
}

#[test]
fn a_dispute_that_is_won_leaves_what_was_there_before() {
    check(&format!("{BOUGHT}; dispute d p 40; won d p 40"), "g 30, p 100");
    check(&format!("{BOUGHT}; use 100; dispute d p 100; won d p 100"), "p 30");
    let story = story(&format!("{BOUGHT}; use 100; dispute d p 100; won d p 100"));
    assert_eq!(story.entries(), "reversed 100");
    let balance = story.balance();
    assert_eq!(balance.period_maximum.to_string(), "130");
    assert_eq!(
        (balance.lifetime_added.to_string(), balance.lifetime_spent.to_string()),
        ("100".into(), "70".into())
    );
}

#[test]
fn what_repaid_the_disputes_overdraft_comes_back_too() {
    check(&format!("{BOUGHT}; use 130; dispute d p 100; buy q 60; won d p 100"), "q 60");
    check(&format!("{BOUGHT}; use 130; dispute d p 100; buy q 160; won d p 100"), "q 160");
}

#[test]
fn what_was_taken_from_a_lot_that_has_closed_is_not_returned() {
    let packs = r#"plan 0 "pack_expiry":"period_end"; buy p 100; dispute d p 100; at 2026-02-01T00:00:00Z; tick; won d p 100"#;
    check(packs, "");
    // It counts as lapsed: a refund then finds nothing to take.
    check_outcome(&format!("{packs}; refund p 100"), "applied");
    check(&format!("{packs}; refund p 100"), "");
    // What had lapsed before the dispute has lapsed after it.
    let lapsed = r#"plan 0 "pack_expiry":"period_end"; buy p 100; use 40; at 2026-02-01T00:00:00Z; tick; dispute d p 100"#;
    check(lapsed, "| owes 40");
    check(&format!("{lapsed}; won d p 100"), "");
    check(&format!("{lapsed}; won d p 100; refund p 100"), "| owes 40");
}

#[test]
fn refunds_and_disputes_together_never_take_more_than_was_paid() {
    check_outcome(&format!("{BOUGHT}; refund p 70; dispute d p 31"), "refund_exceeds_payment");
    check_outcome(&format!("{BOUGHT}; refund p 70; dispute d p 30; dispute e p 1"), "refund_exceeds_payment");
    check_outcome(&format!("{BOUGHT}; dispute d p 100; refund p 1"), "refund_exceeds_payment");
    check_outcome(&format!("{BOUGHT}; dispute d p 100; won d p 100; refund p 100"), "applied");
    check_outcome(&format!("{BOUGHT}; dispute d q 1"), "payment_unknown");
}

#[test]
fn a_dispute_is_won_once_and_only_where_it_was_opened() {
    check_outcome(&format!("{BOUGHT}; won d p 40"), "dispute_unknown");
    check_outcome(&format!("{BOUGHT}; dispute d q 40; won d q 40"), "dispute_unknown");
    check_outcome(&format!("{BOUGHT}; buy q 1; dispute d p 40; won d q 40"), "dispute_unknown");
    check_outcome(&format!("{BOUGHT}; dispute d p 40; won d p 40; won d p 40"), "duplicate");
    check_outcome(&format!("{BOUGHT}; dispute d p 40; dispute d p 40"), "duplicate");
}

#[test]
fn a_top_up_can_be_disputed_by_its_payment() {
    let paid = "plan 0; topup 10 50; due; paid 1 50 pay_1; use 10; dispute d pay_1 50";
    check(paid, "| owes 10");
    let won = story(&format!("{paid}; won d pay_1 50"));
    assert_eq!(won.balance().credit_balance.to_string(), "40");
    conserves(&won);
}

#[test]
fn a_refund_that_fails_is_undone_as_a_won_dispute_is() {
    check(&format!("{BOUGHT}; refunded re/1 p 40"), "g 30, p 60");
    check(&format!("{BOUGHT}; refunded re/1 p 40; unrefunded re/1 p 40"), "g 30, p 100");
    check(&format!("{BOUGHT}; use 100; refunded re/1 p 100; unrefunded re/1 p 100"), "p 30");
    // What was given back can be refunded again.
    check(&format!("{BOUGHT}; refunded re/1 p 100; unrefunded re/1 p 100; refunded re/2 p 100"), "g 30");
    check_outcome(&format!("{BOUGHT}; refunded re/1 p 40; unrefunded re/2 p 40"), "refund_unknown");
    check_outcome(&format!("{BOUGHT}; buy q 9; refunded re/1 p 40; unrefunded re/1 q 40"), "refund_unknown");
    let twice = "refunded re/1 p 40; unrefunded re/1 p 40; unrefunded re/1 p 40";
    check_outcome(&format!("{BOUGHT}; {twice}"), "already_reversed");
    // A refund that a person recorded has no provider that could fail.
    check_outcome(&format!("{BOUGHT}; refund p 40; unrefunded e3 p 40"), "refund_unknown");
}
