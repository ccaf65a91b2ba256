//! The rules of balances, lots and periods, each as a story with its end.

mod story;

use ledger_core::event::{OnExhausted, PackExpiry, RolloverMode};
use ledger_core::fold::pages::Pages;
use ledger_core::fold::{self, Error, RETURNS_MAX};
use ledger_core::value::credits::Credits;
use story::{Story, documented, story};

fn check(script: &str, lots: &str) {
    let story = story(script);
    assert_eq!(story.lots(), lots, "{script}");
    conserves(&story);
}

fn check_outcome(script: &str, outcome: &str) {
    assert_eq!(story(script).outcome(), outcome, "{script}");
}

fn check_entries(script: &str, entries: &str) {
    assert_eq!(story(script).entries(), entries, "{script}");
}

/// settled, maximum, used, percent used, lifetime spent
fn check_figures(script: &str, figures: &str) {
    let story = story(script);
    let balance = story.balance();
    let percent = balance.percent_used.map_or_else(|| "-".into(), |percent| percent.to_string());
    let actual = format!(
        "settled {} maximum {} used {} = {percent}% spent {}",
        balance.settled, balance.period_maximum, balance.used, balance.lifetime_spent
    );
    assert_eq!(actual, figures, "{script}");
    conserves(&story);
}

fn conserves(story: &Story) {
    let core = story.account().core.as_ref().expect("an open account");
    assert_eq!(core.conserved(), core.settled());
    assert!(
        core.overdraft.total().is_zero() || core.lots.drawable().is_zero(),
        "overdraft next to drawable credits"
    );
}

#[test]
fn the_examples_of_the_concepts_are_what_the_fold_computes() {
    let tables = documented("| event | what is left |");
    assert!(tables.len() >= 5, "few examples: {tables:?}");
    for table in tables {
        let mut story = Story::new();
        for (event, left) in table {
            story.play(&event);
            let lots = story.lots().replace(" | owes", ", owes");
            assert_eq!(lots.trim_start_matches("| "), left, "docs/concepts.md: {event}");
            conserves(&story);
        }
    }
}

const CAPPED: &str = r#"plan 5 "rollover":{"mode":"capped"}"#;

#[test]
fn usage_burns_plan_then_promo_then_purchase() {
    check("plan 10; grant promo 5; buy pay 100; use 12", "promo 3, pay 100");
}

#[test]
fn burn_order_breaks_ties_by_expiry_kind_start_and_id() {
    check(
        r#"plan 0; buy a 1; grant c 1 "priority":40; grant b 1 "priority":40; grant d 1 "priority":40,"expires_at":"2026-05-01T00:00:00Z"; use 0.5"#,
        "d 0.5, b 1, c 1, a 1",
    );
    check(r#"plan 0; grant b 1; grant a 1; at 2026-01-02T00:00:00Z; grant 0 1; use 0.5"#, "a 0.5, b 1, 0 1");
    check(r#"plan 10; grant first 5 "priority":5; use 6"#, "plan:0 9");
}

#[test]
fn what_lots_cannot_cover_is_overdraft_and_giving_repays_it_first() {
    check("plan 10; use 12", "| owes 2");
    check("plan 10; use 12; buy pay 5", "pay 3");
    check("plan 10; use 12; grant g 1; adjust 0.5", "| owes 0.5");
    check("plan 10; use 12; at 2026-02-01T00:00:00Z; tick", "plan:1 8");
}

#[test]
fn overdraft_is_forgiven_where_the_account_says_so() {
    let script = r#"open {"clock":"test","overdraft":"forgive_at_reset","plan":{"cycle":"monthly","allowance":"10"}};
        use 12; at 2026-02-01T00:00:00Z; tick"#;
    check(script, "plan:1 10");
    check_entries(script, "adjusted 2, granted 10");
}

#[test]
fn unused_allowance_ends_without_rollover() {
    check_entries("plan 5; use 2; at 2026-02-01T00:00:00Z; tick", "expired -3, granted 5");
}

#[test]
fn capped_rollover_carries_at_most_one_allowance() {
    check(&format!("{CAPPED}; use 2; at 2026-02-01T00:00:00Z; tick"), "rollover:1 3, plan:1 5");
    let march = format!("{CAPPED}; use 2; at 2026-02-01T00:00:00Z; tick; at 2026-03-01T00:00:00Z; tick");
    check(&march, "rollover:2 5, plan:2 5");
    check_entries(&march, "expired -3, rolled_out -5, rolled_in 5, granted 5");
    let february = story(&march).applied.last().expect("an event").closed[0].clone();
    let figures = &february.figures;
    assert_eq!((figures.granted.to_string(), figures.expired.to_string()), ("8".into(), "3".into()));
    assert_eq!(february.rolled_over.to_string(), "5");
}

#[test]
fn a_split_lot_shows_its_running_balance_line_by_line() {
    let story = story(r#"plan 5 "rollover":{"mode":"capped","cap":"2"}; at 2026-02-01T00:00:00Z; tick"#);
    let after: Vec<_> = story.applied[1]
        .entries
        .iter()
        .map(|entry| format!("{} {}", entry.amount, entry.balance_after))
        .collect();
    assert_eq!(after, ["-3 2", "-2 0", "2 2", "5 7"]);
}

#[test]
fn unlimited_rollover_carries_everything() {
    check(
        r#"plan 5 "rollover":{"mode":"unlimited"}; at 2026-03-01T00:00:00Z; tick"#,
        "rollover:2 10, plan:2 5",
    );
}

#[test]
fn packs_end_with_the_period_only_where_the_plan_said_so_at_purchase() {
    check(r#"plan 5 "pack_expiry":"period_end"; buy pay 9; at 2026-02-01T00:00:00Z; tick"#, "plan:1 5");
    check(
        r#"plan 5; buy pay 9; replan 5 "pack_expiry":"period_end"; at 2026-02-01T00:00:00Z; tick"#,
        "plan:1 5, pay 9",
    );
    check(r#"plan 5; grant g 9; at 2026-02-01T00:00:00Z; tick"#, "plan:1 5, g 9");
}

#[test]
fn a_late_event_crosses_every_boundary_at_its_exact_instant() {
    let story = story("plan 5; at 2026-03-15T00:00:00Z; use 1");
    let entries = &story.applied[1].entries;
    let times: Vec<_> = entries.iter().map(|entry| entry.recorded_at.to_string()).collect();
    assert_eq!(
        times,
        ["2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z"]
    );
    assert_eq!(story.lots(), "plan:2 4");
}

#[test]
fn at_one_instant_lots_end_then_the_boundary_comes_then_lots_start() {
    let script = r#"plan 5; grant ends 1 "expires_at":"2026-02-01T00:00:00Z";
        grant starts 2 "effective_at":"2026-02-01T00:00:00Z"; at 2026-02-01T00:00:00Z; tick"#;
    check_entries(script, "expired -5, expired -1, granted 5, granted 2");
    check_figures(script, "settled 7 maximum 7 used 0 = 0% spent 0");
}

#[test]
fn a_lot_yet_to_start_counts_in_no_figure() {
    let waiting = r#"plan 5; grant g 2 "effective_at":"2026-01-10T00:00:00Z""#;
    check_figures(waiting, "settled 5 maximum 5 used 0 = 0% spent 0");
    check_entries(waiting, "");
    check_figures(
        &format!("{waiting}; at 2026-01-10T00:00:00Z; tick"),
        "settled 7 maximum 7 used 0 = 0% spent 0",
    );
    check_entries(&format!("{waiting}; void g"), "");
    check(&format!("{waiting}; void g; at 2026-01-10T00:00:00Z; tick"), "plan:0 5");
}

#[test]
fn a_lot_that_starts_repays_overdraft() {
    check(
        r#"plan 5; grant g 2 "effective_at":"2026-01-10T00:00:00Z"; use 6; at 2026-01-10T00:00:00Z; tick"#,
        "g 1",
    );
}

#[test]
fn lots_that_start_at_one_instant_repay_in_burn_order() {
    let grants = r#"grant a 2 "priority":40,"effective_at":"2026-01-10T00:00:00Z";
        grant b 2 "effective_at":"2026-01-10T00:00:00Z";
        grant c 2 "effective_at":"2026-01-10T00:00:00Z","expires_at":"2026-01-11T00:00:00Z""#;
    check(&format!("plan 5; {grants}; use 8; at 2026-01-10T00:00:00Z; tick"), "b 1, a 2");
}

#[test]
fn expiry_is_exclusive_and_does_not_lower_the_maximum() {
    let script =
        r#"plan 5; grant g 2 "expires_at":"2026-01-10T00:00:00Z"; at 2026-01-09T23:59:59.999999Z; tick"#;
    check(script, "plan:0 5, g 2");
    let after = format!("{script}; at 2026-01-10T00:00:00Z; tick");
    check_figures(&after, "settled 5 maximum 7 used 0 = 0% spent 0");
    check_entries(&after, "expired -2");
}

#[test]
fn a_reversal_returns_credits_to_the_lots_they_came_from() {
    check("plan 10; grant g 5; use 12 u; reverse u", "plan:0 10, g 5");
    check_figures("plan 10; grant g 5; use 12 u; reverse u", "settled 15 maximum 15 used 0 = 0% spent 0");
    check_outcome("plan 10; use 12 u; reverse u; reverse u", "already_reversed");
    check_outcome("plan 10; reverse u", "event_unknown");
}

#[test]
fn a_reversal_cancels_what_is_left_of_its_overdraft() {
    check("plan 10; use 12 u; reverse u", "plan:0 10");
    check("plan 10; use 12 u; use 3; reverse u", "plan:0 7");
    check_entries("plan 10; use 12 u; use 3; reverse u", "reversed 12");
}

#[test]
fn a_reversal_gives_back_to_the_lots_that_repaid_its_overdraft() {
    check("plan 1; use 5 a; use 5 b; buy pay 6; reverse a", "pay 2");
    check("plan 1; use 5 a; use 5 b; buy pay 6; reverse b", "pay 2");
    check_figures("plan 0; use 5 a; buy pay 6; reverse a", "settled 6 maximum 6 used 0 = 0% spent 0");
}

#[test]
fn what_came_from_a_closed_lot_is_not_returned() {
    let script = r#"plan 5; grant g 2 "expires_at":"2026-01-10T00:00:00Z"; use 7 u; at 2026-01-10T00:00:00Z; reverse u"#;
    check(script, "plan:0 5");
    check_figures(script, "settled 5 maximum 7 used 0 = 0% spent 0");
}

#[test]
fn a_reversal_after_the_period_counts_as_added_to_the_open_one() {
    let script = "plan 10; grant g 5; use 12 u; at 2026-02-01T00:00:00Z; use 1; reverse u";
    check(script, "plan:1 9, g 5");
    check_figures(script, "settled 14 maximum 15 used 1 = 6.666666667% spent 0");
}

#[test]
fn a_late_usage_counts_in_the_period_that_records_it() {
    let mut story = story("plan 10; at 2026-02-02T00:00:00Z; tick; use 4");
    assert_eq!(story.balance().used.to_string(), "4");
    story.play("at 2026-01-15T00:00:00Z; use 1");
    assert_eq!((story.balance().used.to_string(), story.balance().period.index), ("5".into(), 1));
}

#[test]
fn the_same_id_again_has_no_effect_whatever_came_of_the_first() {
    check_outcome("plan 10; use 1 u; use 1 u", "duplicate");
    check_outcome("plan 10; use 1 u; use 1.0 u", "duplicate");
    check_outcome("plan 10; use 1 u; use 2 u", "conflict");
    check("plan 10; use 1 u; use 1 u; use 2 u", "plan:0 9");
    check_outcome("plan 10; void nope; void nope", "grant_unknown");
}

#[test]
fn what_came_before_the_opening_is_not_remembered() {
    check_outcome("use 1 u", "account_not_open");
    check("use 1 u; plan 10; use 1 u", "plan:0 9");
}

#[test]
fn usage_of_nothing_applies() {
    check_outcome("plan 10; use 0", "applied");
    assert_eq!(
        story("plan 10; use 0").applied[1].usage.as_ref().expect("usage").withdrawal.credits.to_string(),
        "0"
    );
}

#[test]
fn adjustments_are_signed() {
    check("plan 10; adjust 5", "plan:0 10, adj1 5");
    check("plan 10; adjust -12", "| owes 2");
    check_figures("plan 10; adjust -4", "settled 6 maximum 6 used 0 = 0% spent 0");
}

#[test]
fn voiding_takes_what_remains_but_never_of_plan_or_rollover() {
    check("plan 10; grant g 5; use 12; void g", "");
    check_figures("plan 10; grant g 5; use 12; void g", "settled 0 maximum 12 used 12 = 100% spent 0");
    check_outcome("plan 10; void plan:0", "grant_not_voidable");
    check_outcome("plan 10; void nope", "grant_unknown");
    check_outcome("plan 10; grant g 1; void g; void g", "grant_not_voidable");
    check_outcome(&format!("{CAPPED}; at 2026-02-01T00:00:00Z; void rollover:1"), "grant_not_voidable");
}

#[test]
fn a_lot_used_up_can_still_be_voided_and_then_takes_nothing_back() {
    check("plan 0; grant g 5; use 5 u; reverse u", "g 5");
    check("plan 0; grant g 5; use 5 u; void g; reverse u", "");
    check_outcome("plan 0; grant g 5; use 5 u; void g", "applied");
}

#[test]
fn a_refund_takes_its_own_lot_then_what_lapsed_then_what_was_spent() {
    check("plan 10; buy p 100; refund p 40", "plan:0 10, p 60");
    check_figures("plan 10; buy p 100; refund p 40", "settled 70 maximum 70 used 0 = 0% spent 0");
    // 100 bought, 90 spent: 10 from its own lot, 30 from the plan of today, and 60 as overdraft.
    check("plan 0; buy p 100; use 90; grant g 30; refund p 100", "| owes 60");
    // 100 bought, 40 spent, 60 voided: the first 60 are there no more, the rest is taken.
    check("plan 0; buy p 100; use 40; void p; refund p 60", "");
    check("plan 0; buy p 100; use 40; void p; refund p 100", "| owes 40");
    check("plan 0; buy p 100; use 40 u; void p; reverse u; refund p 100", "");
}

#[test]
fn refunds_never_pass_what_was_paid() {
    check_outcome("plan 0; buy p 100; refund p 60; refund p 41", "refund_exceeds_payment");
    check_outcome("plan 0; buy p 100; refund p 60; refund p 40", "applied");
    check_outcome("plan 0; refund p 1", "payment_unknown");
}

#[test]
fn grants_and_payments_share_one_id_space() {
    check_outcome("plan 0; buy x 1; grant x 1", "grant_exists");
    check_outcome("plan 0; grant x 1; buy x 1", "grant_exists");
    check_outcome("plan 0; buy x 1; buy x 1", "payment_exists");
    check_outcome("plan 0; grant plan:7 1", "grant_reserved");
}

#[test]
fn nothing_that_makes_a_lot_overwrites_another() {
    let ended = r#""expires_at":"2026-01-02T00:00:00Z""#;
    let waiting = r#""effective_at":"2026-01-20T00:00:00Z""#;
    for (there, left) in [
        ("grant x 5".into(), "x 5"),
        ("grant x 5; use 5".into(), ""),
        ("grant x 5; void x".into(), ""),
        (format!("grant x 5 {ended}; at 2026-01-03T00:00:00Z; tick"), ""),
        (format!("grant x 5 {waiting}"), "x 5"),
        ("adjust-as x 5".into(), "x 5"),
        ("buy x 5".into(), "x 5"),
    ] {
        for new in ["grant x 7", "buy x 7"] {
            let script = format!("plan 0; {there}; {new}");
            let expected =
                if there == "buy x 5" && new == "buy x 7" { "payment_exists" } else { "grant_exists" };
            check_outcome(&script, expected);
            check(&script, left);
        }
        if !there.starts_with("adjust-as") {
            let script = format!("plan 0; {there}; adjust-as x 7");
            check_outcome(&script, "grant_exists");
            check(&script, left);
        }
    }
    // The payment of a top-up is in the same id space as its attempt.
    let topped_up = "plan 0; topup 5 10; start 1 10; paid 1 10 pay";
    for new in ["grant pay 7", "adjust-as pay 7"] {
        check_outcome(&format!("{topped_up}; {new}"), "grant_exists");
    }
    check_outcome(&format!("{topped_up}; buy pay 7"), "payment_exists");
    for there in ["grant pay 7", "adjust-as pay 7"] {
        check_outcome(&format!("plan 0; topup 5 10; {there}; start 1 10; paid 1 10 pay"), "grant_exists");
    }
}

#[test]
fn an_adjustment_has_an_id_that_can_name_its_lot() {
    check_outcome("plan 0; adjust-as plan:0 5", "grant_reserved");
    check_outcome("plan 0; adjust-as rollover:1 5", "grant_reserved");
    let mut story = story("plan 0");
    story.event(" x", "ledger.credits.adjusted.v1", r#"{"amount":"5","reason":"r"}"#);
    assert_eq!((story.outcome(), story.lots().as_str()), ("grant_id_malformed", ""));
    // One that takes makes no lot.
    check_outcome("plan 0; adjust-as plan:0 -5", "applied");
}

#[test]
fn spent_counts_usage_from_paid_lots_also_through_overdraft() {
    check_figures("plan 1; buy p 10; use 4", "settled 7 maximum 11 used 4 = 36.363636364% spent 3");
    check_figures("plan 1; use 4; buy p 10", "settled 7 maximum 11 used 4 = 36.363636364% spent 3");
    check_figures("plan 0; adjust -3; buy p 10", "settled 7 maximum 7 used 0 = 0% spent 0");
    check_figures("plan 1; use 4 u; buy p 10; reverse u", "settled 11 maximum 11 used 0 = 0% spent 0");
}

#[test]
fn a_plan_change_now_moves_the_plan_lot_by_the_difference() {
    check("plan 10; use 7; replan 5", "");
    check_entries("plan 10; use 7; replan 5", "adjusted -3");
    check("plan 10; use 7; replan 20", "plan:0 13");
    check("plan 10; use 10; replan 12", "plan:0 2");
    check("plan 10; use 13; replan 12", "| owes 1");
    check_figures("plan 10; use 7; replan 5", "settled 0 maximum 7 used 7 = 100% spent 0");
}

#[test]
fn what_was_drawn_of_the_allowance_stays_drawn_whatever_the_plan_becomes() {
    check("plan 10; use 10; replan 0; replan 10", "");
    check_figures(
        "plan 10; use 10; replan 0; replan 10; replan 0; replan 10",
        "settled 0 maximum 10 used 10 = 100% spent 0",
    );
    check("plan 10; use 7; replan 5; replan 10", "plan:0 3");
    check("plan 10; use 7; replan 5; replan 7", "");
    check("plan 10; replan 5; use 7", "| owes 2");
    check("plan 10; replan 5; use 7; replan 10", "plan:0 3");
    check("plan 10; use 7; replan 0; grant g 5; use 2; replan 10", "plan:0 3, g 3");
    // What repaid overdraft and what an adjustment took was drawn too.
    check("plan 10; replan 0; use 4; replan 10; replan 0; replan 10", "plan:0 6");
    check("plan 10; adjust -4; replan 0; replan 10", "plan:0 6");
    // A new period begins anew.
    check("plan 10; use 10; replan 0; replan 10; at 2026-02-01T00:00:00Z; tick", "plan:1 10");
}

#[test]
fn a_reversal_returns_no_more_to_the_plan_than_its_allowance_holds() {
    check("plan 10; use 7 u; replan 5; reverse u", "plan:0 5");
    check_entries("plan 10; use 7 u; replan 5; reverse u", "reversed 7, adjusted -2");
    check_figures("plan 10; use 7 u; replan 5; reverse u", "settled 5 maximum 5 used 0 = 0% spent 0");
    check_entries("plan 10; use 6 u; use 1 v; replan 5; reverse v", "reversed 1, adjusted -1");
    check("plan 10; use 6 u; use 1 v; replan 5; reverse v; reverse u", "plan:0 5");
    check("plan 10; use 7 u; replan 5; reverse u; replan 10", "plan:0 10");
    check_entries("plan 10; use 7 u; replan 8; reverse u", "reversed 7");
    // What does not fit repays nothing.
    check("plan 10; use 8 u; replan 5; use 4; reverse u", "plan:0 1");
    // A dispute that is won returns in the same way.
    let disputed = "plan 10; buy p 4; use 14; replan 20; dispute d p 4; replan 12; won d p 4";
    check(disputed, "plan:0 2");
    check_entries(disputed, "reversed 4, adjusted -2");
}

/// Overdraft of 1,000,000, of which each of so many grants repaid 1; then its usage is reversed.
fn reversal_of(repayments: usize) -> Story {
    let mut story = story(r#"plan 0 "on_exhausted":"allow"; use 1000000 u"#);
    for n in 0..repayments {
        story.play(&format!("grant g{n} 1"));
    }
    story.play("reverse u");
    conserves(&story);
    story
}

#[test]
fn a_reversal_returns_to_every_lot_that_repaid_its_overdraft_up_to_a_bound() {
    let started = std::time::Instant::now();
    let story = reversal_of(20_001);
    assert_eq!((story.outcome(), story.balance().settled), ("applied", Credits::whole(20_001)));
    assert_eq!(story.balance().lots.len(), 20_001);
    let took = started.elapsed();
    assert!(took < std::time::Duration::from_secs(20), "linear: {took:?}");
    let story = reversal_of(RETURNS_MAX + 1);
    assert_eq!(story.outcome(), "too_many_lots");
    assert_eq!(story.balance().used, Credits::whole(1_000_000), "a rejected reversal moves nothing");
}

#[test]
fn entries_tell_balance_by_balance_what_a_reversal_adjusts() {
    let story = story("plan 10; use 7 u; replan 5; reverse u");
    let entries = &story.applied.last().expect("a reversal").entries;
    let balances: Vec<_> = entries.iter().map(|entry| entry.balance_after.to_string()).collect();
    assert_eq!(balances, ["7", "5"]);
}

#[test]
fn a_plan_change_for_the_next_period_waits_and_a_later_one_replaces_it() {
    check("plan 10; replan-next 20", "plan:0 10");
    check("plan 10; replan-next 20; at 2026-02-01T00:00:00Z; tick", "plan:1 20");
    check("plan 10; replan-next 20; replan-next 30; at 2026-02-01T00:00:00Z; tick", "plan:1 30");
    check("plan 10; replan-next 20; replan 11; at 2026-02-01T00:00:00Z; tick", "plan:1 11");
}

#[test]
fn the_closing_plans_rollover_rule_governs_its_own_end() {
    check(&format!("{CAPPED}; replan-next 7; at 2026-02-01T00:00:00Z; tick"), "rollover:1 5, plan:1 7");
}

#[test]
fn a_schedule_change_waits_for_the_boundary_and_indexes_go_on() {
    let mut story = story(
        r#"plan 10; at 2026-01-10T00:00:00Z; replan 10 "cycle":"weekly","anchor":"2026-01-05T00:00:00Z""#,
    );
    assert_eq!(story.balance().period.ends_at.to_string(), "2026-02-01T00:00:00Z");
    story.play("at 2026-02-01T00:00:00Z; tick");
    let period = story.balance().period;
    let shown = (period.index, period.starts_at.to_string(), period.ends_at.to_string());
    assert_eq!(shown, (1, "2026-02-01T00:00:00Z".into(), "2026-02-02T00:00:00Z".into()));
    assert_eq!(story.lots(), "plan:1 10");
    story.play("at 2026-02-02T00:00:00Z; tick");
    let period = story.balance().period;
    assert_eq!((period.index, period.ends_at.to_string()), (2, "2026-02-09T00:00:00Z".into()));
}

#[test]
fn a_plan_whose_schedule_waits_waits_with_its_allowance() {
    let yearly = r#"plan 1000 "name":"monthly"; use 100; replan 12000 "cycle":"yearly","name":"yearly""#;
    let mut story = story(yearly);
    assert_eq!((story.entries().as_str(), story.lots().as_str()), ("", "plan:0 900"));
    let shown = |story: &Story| {
        let core = story.account().core.clone().expect("an open account");
        let plan = |plan: &ledger_core::account::Plan| {
            format!("{} {:?} {}", plan.name.clone().expect("a name"), plan.schedule.cycle, plan.allowance)
        };
        let at = core.next_plan_at().map(|at| at.to_string());
        (plan(&core.plan), core.next_plan.as_ref().map(plan), at)
    };
    let (in_force, next) = ("monthly Monthly 1000".to_owned(), Some("yearly Yearly 12000".to_owned()));
    assert_eq!(shown(&story), (in_force, next, Some("2026-02-01T00:00:00Z".into())));
    story.play("at 2026-02-01T00:00:00Z; tick");
    assert_eq!(story.lots(), "plan:1 12000");
    assert_eq!(story.balance().period.ends_at.to_string(), "2027-01-01T00:00:00Z");
    assert_eq!(shown(&story), ("yearly Yearly 12000".into(), None, None));
}

#[test]
fn what_a_plan_lets_an_account_do_changes_at_once_although_its_schedule_waits() {
    let core = core_of(
        r#"plan 5 "rollover":{"mode":"unlimited"}; replan 7 "cycle":"daily","on_exhausted":"allow","overage_limit":"3","rate_card":"fine","pack_expiry":"period_end""#,
    );
    let plan = &core.plan;
    assert_eq!(plan.allowance.to_string(), "5");
    let card = plan.rate_card.as_ref().map(ToString::to_string);
    assert_eq!((plan.overage_limit, card), (Some(Credits::whole(3)), Some("fine".into())));
    assert_eq!((plan.on_exhausted, plan.pack_expiry), (OnExhausted::Allow, PackExpiry::PeriodEnd));
    assert_eq!(plan.rollover.mode, RolloverMode::Unlimited, "the closing plan's rule governs its own end");
}

#[test]
fn a_plan_change_says_which_waiting_plan_it_replaced() {
    let replaced = |script: &str| {
        let core = core_of(script);
        core.replaced_plan.map(|replaced| format!("{} by {}", replaced.plan.allowance, replaced.by))
    };
    assert_eq!(replaced("plan 10; replan-next 20"), None);
    assert_eq!(replaced("plan 10; replan-next 20; replan 11"), Some("20 by e2".into()));
    assert_eq!(replaced("plan 10; replan-next 20; replan-next 30"), Some("20 by e2".into()));
    assert_eq!(
        replaced("plan 10; replan-next 20; replan 11; replan 12"),
        None,
        "the last change replaced none"
    );
    let by_schedule = r#"plan 10; replan 20 "cycle":"daily"; replan 30 "cycle":"weekly""#;
    assert_eq!(replaced(by_schedule), Some("20 by e2".into()));
}

#[test]
fn the_anchor_stays_where_a_change_names_none() {
    let story = story(r#"plan 10 "anchor":"2025-12-15T00:00:00Z"; replan 10; at 2026-01-15T00:00:00Z; tick"#);
    assert_eq!(story.balance().period.starts_at.to_string(), "2026-01-15T00:00:00Z");
    assert_eq!(story.balance().period.index, 1);
}

#[test]
fn an_account_opens_with_the_full_allowance_of_the_period_it_opens_in() {
    let story = story(r#"plan 10 "anchor":"2026-06-15T00:00:00Z""#);
    assert_eq!(story.lots(), "plan:-6 10");
    assert_eq!(story.balance().period.ends_at.to_string(), "2026-01-15T00:00:00Z");
}

#[test]
fn a_reset_event_changes_nothing_that_time_has_not() {
    check("plan 5; use 2; at 2026-02-01T00:00:00Z; reset 1", "plan:1 5");
    check_outcome("plan 5; use 2; at 2026-02-01T00:00:00Z; reset 1", "applied");
    check_outcome("plan 5; at 2026-02-02T00:00:00Z; use 2; reset 1; reset 1", "duplicate");
    check("plan 5; at 2026-02-02T00:00:00Z; use 2; reset 1; reset 1", "plan:1 3");
    check_outcome("plan 5; reset 1", "period_not_begun");
}

#[test]
fn a_test_clock_crosses_at_most_5000_instants_in_one_move() {
    check_outcome(r#"plan 1 "cycle":"daily"; at 2040-01-01T00:00:00Z; tick"#, "clock_jump");
    let story =
        story(r#"plan 1 "cycle":"daily"; at 2040-01-01T00:00:00Z; tick; at 2026-01-02T00:00:00Z; tick"#);
    assert_eq!(story.balance().period.index, 1, "a refused move moves nothing");
    check_outcome(r#"plan 1; replan-next 1 "cycle":"daily"; at 2040-01-01T00:00:00Z; tick"#, "clock_jump");
    check_outcome(r#"plan 1 "cycle":"yearly"; at 2900-01-01T00:00:00Z; tick"#, "applied");
}

#[test]
fn a_live_accounts_time_stays_within_2_seconds_of_the_broker() {
    let mut story = story("live 5; appended -31536000; at 2027-01-01T00:00:00Z; use 1");
    assert_eq!(story.balance().period.index, 0, "a clock a year ahead resets nothing");
    story.play("appended 0; at 2026-02-01T00:00:00Z; use 1");
    assert_eq!(story.balance().period.index, 1);
}

#[test]
fn settings_change_in_log_order() {
    let story = story(r#"plan 5; change {"low_balance_threshold":"0"}"#);
    assert_eq!(serde_json::to_string(&story.balance().status).expect("JSON"), "\"low\"");
    let mut story = story;
    story.play(r#"buy p 1"#);
    assert_eq!(serde_json::to_string(&story.balance().status).expect("JSON"), "\"active\"");
    story.play("use 6");
    assert_eq!(serde_json::to_string(&story.balance().status).expect("JSON"), "\"depleted\"");
}

#[test]
fn percents_are_null_without_a_positive_maximum() {
    check_figures("plan 0; use 1", "settled -1 maximum 0 used 1 = -% spent 0");
}

#[test]
fn an_account_opens_once() {
    check_outcome("plan 5; plan 5", "duplicate");
    check_outcome("plan 5; plan 6", "conflict");
    let mut story = story("plan 5");
    story.event(
        "other",
        "ledger.account.opened.v1",
        r#"{"clock":"test","plan":{"cycle":"monthly","allowance":"5"}}"#,
    );
    assert_eq!(story.outcome(), "account_exists");
}

#[test]
fn a_grant_that_would_end_before_it_counts_is_rejected() {
    check_outcome(r#"plan 5; grant g 1 "expires_at":"2026-01-01T00:00:00Z""#, "grant_expired");
}

fn core_of(script: &str) -> ledger_core::account::Core {
    story(script).account().core.clone().expect("an open account")
}

#[test]
fn settings_are_set_as_a_whole_and_move_no_credits() {
    let script = r#"plan 5; limits {"default_limit":"10","custom":{"ana":"5"},"excluded_features":["voice"]};
           limits {"enabled":false,"custom":{"bo":"unlimited"}}"#;
    let core = core_of(script);
    assert_eq!(own_limits(script), "bo unlimited");
    let limits = core.limits.as_ref().expect("limits");
    assert!(!limits.enabled && limits.default_limit.is_none() && limits.excluded_features.is_empty());
    assert_eq!(core.settled().to_string(), "5");
}

/// Shows users' own limits that are in force.
fn own_limits(script: &str) -> String {
    let story = story(script);
    let account = story.account();
    let limits = account.core.as_ref().and_then(|core| core.limits.as_ref());
    let in_force = |(user, own)| Some(format!("{user} {}", limits?.own(Some(own))?));
    account.own_limits.iter().filter_map(in_force).collect::<Vec<_>>().join(", ")
}

#[test]
fn one_users_limit_is_set_and_removed_beside_the_others() {
    let two = r#"plan 5; limits {"default_limit":"10","custom":{"ana":"5"}}; limit auth0|64ab 7"#;
    assert_eq!(own_limits(two), "ana 5, auth0|64ab 7");
    assert_eq!(own_limits(&format!("{two}; limit ana unlimited; limit auth0|64ab none")), "ana unlimited");
    // Limits without `custom` leave them as they are, with it they replace them all.
    assert_eq!(own_limits(&format!(r#"{two}; limits {{"default_limit":"9"}}"#)), "ana 5, auth0|64ab 7");
    assert_eq!(own_limits(&format!(r#"{two}; limits {{"custom":{{}}}}"#)), "");
    // Where limits were never set, they count as on, without a default.
    let alone = core_of("plan 5; limit ana 7").limits.expect("limits");
    assert!(alone.enabled && alone.default_limit.is_none());
    assert!(core_of("plan 5; limit ana none").limits.is_none());
}

#[test]
fn the_state_of_an_account_does_not_grow_with_users_limits() {
    let size = |users: usize| {
        let mut story = story("plan 5");
        for n in 0..users {
            story.play(&format!("limit user{n} 7"));
        }
        assert_eq!(story.outcome(), "applied");
        assert_eq!(story.account().own_limits.len(), users);
        serde_json::to_string(&story.account().core).expect("JSON").len()
    };
    // Nothing but the digits of two counts.
    assert!(size(11_000) <= size(10) + 8);
}

const CLOSED: &str = "plan 10; buy p 100; at 2026-01-20T00:00:00Z; close";

#[test]
fn a_closed_account_takes_no_usage_grants_and_settings() {
    for refused in [
        "use 1",
        "grant g 5",
        "plan 7",
        "replan 7",
        "limits {}",
        "limit ana 5",
        "alert a percent_used 75",
        "no-alert a",
        r#"user-alert {"enabled":false}"#,
        "no-topup",
        r#"change {"name":"x"}"#,
        "close-again",
        "start 1 5",
    ] {
        let expected = if refused == "plan 7" { "conflict" } else { "account_closed" };
        check_outcome(&format!("{CLOSED}; at 2026-01-21T00:00:00Z; {refused}"), expected);
    }
    check(&format!("{CLOSED}; use 1; grant g 5"), "plan:0 10, p 100");
}

#[test]
fn what_was_on_its_way_to_an_account_applies_after_its_closing() {
    check(&format!("{CLOSED}; at 2026-01-19T23:59:59Z; use 4"), "plan:0 6, p 100");
    check(&format!("{CLOSED}; at 2026-01-21T00:00:00Z; settle 4"), "plan:0 6, p 100");
    check(&format!("{CLOSED}; buy q 5"), "plan:0 10, p 100, q 5");
    check(&format!("{CLOSED}; refund p 40"), "plan:0 10, p 60");
    check(&format!("{CLOSED}; dispute d p 40; won d p 40"), "plan:0 10, p 100");
    check("plan 10; use 4 u; close; reverse u", "plan:0 10");
}

#[test]
fn nothing_resets_once_an_account_is_closed() {
    let later = r#"plan 10 "pack_expiry":"period_end"; buy p 100; grant g 5 "expires_at":"2026-01-25T00:00:00Z";
                   close; at 2026-03-15T00:00:00Z; "#;
    // The credits of the period end with it, and no others come.
    check(&format!("{later} refund p 100"), "");
    check_outcome(&format!("{later} reset 1"), "period_not_begun");
    let core = core_of(&format!("{CLOSED}; at 2027-01-01T00:00:00Z; refund p 1"));
    assert_eq!(core.period.index, 0);
    assert_eq!(ledger_core::policy::due::next_due(&core), None);
    check_outcome(&format!("{CLOSED}; at 2125-01-01T00:00:00Z; refund p 1"), "applied");
}

#[test]
fn a_call_is_charged_once_whatever_reports_it() {
    let charged = "plan 10; call chatcmpl-7f3 4 first";
    let story = story(&format!("{charged}; call chatcmpl-7f3 3 second"));
    assert_eq!((story.outcome(), story.lots().as_str()), ("duplicate", "plan:0 6"));
    let first =
        story.applied.last().and_then(|applied| applied.duplicate_of.clone()).expect("names the first");
    assert_eq!((first.0.as_str(), first.1.as_str()), ("/story", "first"));
    // Its id is known from then on.
    check_outcome(&format!("{charged}; call chatcmpl-7f3 3 second; call other 3 second"), "conflict");
    check(&format!("{charged}; call other 3 second"), "plan:0 3");
    // Usage that did not apply charged nothing.
    check("plan 10; at 2026-01-01T00:00:01Z; call c 4 a; call d 1 a; call d 3 b", "plan:0 3");
    // A reversal does not make the call new.
    check(&format!("{charged}; reverse first; call chatcmpl-7f3 3 again"), "plan:0 10");
}

#[test]
fn a_paid_lot_keeps_what_was_paid_for_it() {
    let price = |script: &str| {
        let balance = story(script).balance();
        let prices = balance.lots.iter().filter_map(|lot| lot.price.as_ref());
        prices.map(|price| format!("{} {}", price.amount, price.currency)).collect::<Vec<_>>().join(", ")
    };
    let open = |fields: &str| {
        format!(r#"open {{"clock":"test",{fields}"plan":{{"cycle":"daily","allowance":"1"}}}}"#)
    };
    assert_eq!(price(&format!("{}; buy p 100", open(""))), "");
    let cheap = open(r#""usd_per_unit":"0.01","#);
    assert_eq!(price(&format!("{cheap}; buy p 100")), "1 usd");
    let told = r#"buy p 100 "price":{"amount":"90","currency":"eur"}"#;
    assert_eq!(price(&format!("{cheap}; {told}")), "90 eur");
    assert_eq!(price(&format!("{}; {told}", open(""))), "90 eur");
}

#[test]
fn limits_hold_only_while_they_are_on() {
    let story = story(r#"plan 5; limits {"default_limit":"10","custom":{"bo":"unlimited"}}"#);
    let on = story.account().core.as_ref().expect("an open account");
    let off = core_of(r#"plan 5; limits {"enabled":false,"default_limit":"10"}"#);
    let bo = story.account().own_limits.get("bo");
    let credits = |text: &str| text.parse().expect("an amount");
    assert_eq!(on.limit_of(None), Some(credits("10")));
    assert!(on.is_blocked(None, credits("10")));
    assert!(!on.is_blocked(None, credits("9.999999999")));
    assert!(bo.is_some() && !on.is_blocked(bo, credits("10000")));
    assert_eq!(off.limit_of(None), None);
    assert!(!off.is_blocked(None, credits("10")));
}

#[test]
fn a_user_alert_that_is_switched_off_keeps_its_threshold() {
    let threshold = |script: &str| core_of(script).user_alert.and_then(|alert| alert.threshold);
    assert_eq!(threshold(r#"plan 5; user-alert {"enabled":false}"#), None);
    let off = r#"plan 5; user-alert {"threshold":"7"}; user-alert {"enabled":false}"#;
    assert_eq!(threshold(off), "7".parse().ok());
    assert!(!core_of(off).user_alert.expect("an alert").enabled);
}

#[test]
fn an_org_alert_is_set_replaced_and_removed_by_its_id() {
    let script = "plan 5; alert a75 percent_used 75; alert b absolute_used 5; alert a75 absolute_remaining 1";
    let core = core_of(script);
    assert_eq!(core.org_alerts.keys().map(ToString::to_string).collect::<Vec<_>>(), ["a75", "b"]);
    assert_eq!(core_of(&format!("{script}; no-alert a75")).org_alerts.len(), 1);
    check_outcome("plan 5; no-alert a75", "alert_unknown");
    check_outcome("plan 5; alert a75 percent_used 75; no-alert a75; no-alert a75", "alert_unknown");
}

#[test]
fn an_account_has_at_most_1000_org_alerts() {
    let mut story = story("plan 5");
    for number in 0..1_000 {
        story.play(&format!("alert a{number} percent_used 75"));
    }
    assert_eq!(story.outcome(), "applied");
    assert_eq!(story.play("alert one-more percent_used 75").outcome(), "too_many_alerts");
    assert_eq!(story.play("alert a7 percent_used 80").outcome(), "applied");
    assert_eq!(story.play("no-alert a8; alert one-more percent_used 75").outcome(), "applied");
}

#[test]
fn an_account_without_settings_is_stored_as_before_there_were_any() {
    let core = core_of("plan 5; use 1");
    let json = serde_json::to_value(&core).expect("JSON");
    for name in ["limits", "org_alerts", "user_alert"] {
        assert!(json.get(name).is_none(), "{name}");
    }
    let with = core_of(
        r#"plan 5; limits {"default_limit":"10","custom":{"ana":"5","bo":"unlimited"},"notify":["carl"]};
           alert a75 percent_used 75 "channels":["webhook"]; user-alert {"threshold":"7"}"#,
    );
    let json = serde_json::to_string(&ledger_core::account::Snapshot::from(&with)).expect("JSON");
    let read: ledger_core::account::Snapshot = serde_json::from_str(&json).expect("a snapshot");
    assert_eq!(ledger_core::account::Core::from(read), with);
}

#[test]
fn an_account_whose_sums_pass_18_digits_is_read_back() {
    let most = "999999999999999999.999999999";
    let script = format!(
        r#"plan {most} "rollover":{{"mode":"unlimited"}}; grant g {most}; buy p {most}; use 1; use {most}; use {most};
           use {most}; use {most}; use {most}; at 2026-02-02T00:00:00Z; use 1; replan 0; reverse u4"#
    );
    let rich = format!(r#"plan {most} "rollover":{{"mode":"unlimited"}}; at 2026-04-01T00:00:00Z; use 1"#);
    for script in [script, rich] {
        let core = core_of(&script);
        let json = serde_json::to_string(&ledger_core::account::Snapshot::from(&core)).expect("JSON");
        let read: ledger_core::account::Snapshot = serde_json::from_str(&json).expect("a snapshot");
        assert_eq!(ledger_core::account::Core::from(read), core);
    }
}

#[test]
fn an_account_whose_sums_do_not_give_its_balance_is_refused_in_every_build() {
    let mut story = story("plan 10; use 3");
    let event = story.facts.last().expect("a usage").clone();
    let mut core = story.account().core.clone();
    let sums = &mut core.as_mut().expect("an open account").totals;
    sums.granted = Credits::whole(11);
    let mut pages = Pages::default();
    pages.seen.insert(event.key, None);
    let (booked, settled) = (Credits::whole(5), Credits::whole(4));
    let account = event.event.account.clone();
    let refused = fold::apply(&mut core, &mut pages, &event).expect_err("credits from nowhere");
    assert_eq!(refused, Error::NotConserved { account, booked, settled });
    story.play("use 1");
    assert_eq!(story.outcome(), "applied", "an account that adds up goes on");
}
