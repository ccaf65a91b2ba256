//! Notices: section 9's rules, each as a story.

use ledger_core::policy::alert::{Kind, firing};
use ledger_core::value::id::AccountId;

use crate::watched::{check, watched};

fn with_line(line: &str, rest: &str) -> String {
    format!(
        r#"open {{"clock":"test","low_balance_threshold":"{line}","plan":{{"cycle":"monthly","allowance":"0"}}}}; {rest}"#
    )
}

#[test]
fn an_account_that_opens_at_0_is_told_nothing() {
    check("plan 0; use 5", "");
    check(&with_line("50", "use 5"), "");
}

#[test]
fn low_is_told_at_or_below_the_line_once_an_episode() {
    let bought = with_line("50", "buy p 100; use 49; use 1 x");
    check(&bought, "credit_balance_low 50");
    // Hovering repeats nothing.
    check(&format!("{bought}; reverse x; use 1; use 1"), "credit_balance_low 50");
    // An addition that stays at or below the line begins no episode.
    check(&format!("{bought}; use 40; buy q 40; use 1"), "credit_balance_low 50");
    // One that leaves the figure above it does.
    check(&format!("{bought}; buy q 1; use 1"), "credit_balance_low 50; credit_balance_low 50");
}

#[test]
fn only_bought_credits_can_be_low() {
    let script = r#"open {"clock":"test","low_balance_threshold":"50","plan":{"cycle":"monthly","allowance":"40"}}; buy p 60"#;
    check(&format!("{script}; use 40"), "");
    check(&format!("{script}; use 50"), "credit_balance_low 50");
}

#[test]
fn any_addition_begins_an_episode_where_it_leaves_the_figure_above_the_line() {
    let hovering = with_line("50", "buy p 100; use 50 x; reverse x");
    let fired = "credit_balance_low 50";
    check(&format!("{hovering}; use 50"), fired);
    for addition in [
        "buy q 1",
        "grant g 1",
        "adjust 1",
        "replan 1",
        "at 2026-02-01T00:00:00Z; reset 1",
        r#"grant g 1 "effective_at":"2026-01-05T00:00:00Z"; at 2026-01-05T00:00:00Z; tick"#,
    ] {
        check(
            &format!("{hovering}; {addition}; use 80"),
            &format!("{fired}; credit_balance_low {}", {
                if addition.starts_with("buy") || addition.starts_with("at") {
                    low_after(addition)
                } else {
                    "21"
                }
            }),
        );
    }
    // Events that take credits, move none or only return earlier ones begin none.
    for other in ["adjust -1", "void g", r#"change {"name":"x"}"#, "refund p 1"] {
        check(&format!("{hovering}; {other}; use 80"), fired);
    }
}

fn low_after(addition: &str) -> &'static str {
    if addition.starts_with("buy") { "21" } else { "20" }
}

#[test]
fn a_grant_yet_to_start_begins_no_episode() {
    let hovering = with_line("50", "buy p 100; use 50 x; reverse x");
    check(
        &format!(r#"{hovering}; grant g 1 "effective_at":"2026-01-05T00:00:00Z"; use 80"#),
        "credit_balance_low 50",
    );
}

#[test]
fn what_returns_from_a_closed_period_begins_no_episode() {
    // Credits of a usage of January come back in February, and count as added to its maximum.
    let script = with_line("50", "buy p 100; use 60 x; at 2026-02-01T00:00:00Z; use 1; reverse x; use 60");
    check(&script, "credit_balance_low 40");
}

#[test]
fn a_line_moved_above_a_standing_figure_fires_at_once() {
    let bought = with_line("50", "buy p 100; use 40");
    check(&format!(r#"{bought}; change {{"low_balance_threshold":"60"}}"#), "credit_balance_low 60");
    check(&format!(r#"{bought}; change {{"low_balance_threshold":"59"}}"#), "");
    // Also where no episode runs: 55 came back by a reversal.
    let hovering = with_line("50", "buy p 100; use 45; use 5 x; reverse x");
    check(&hovering, "credit_balance_low 50");
    check(
        &format!(r#"{hovering}; change {{"low_balance_threshold":"55"}}"#),
        "credit_balance_low 50; credit_balance_low 55",
    );
}

#[test]
fn a_line_moved_while_the_figure_is_below_it_fires_nothing_again() {
    let low = with_line("50", "buy p 100; use 60");
    check(&format!(r#"{low}; change {{"low_balance_threshold":"70"}}"#), "credit_balance_low 40");
    // A lowered line begins no episode.
    check(&format!(r#"{low}; change {{"low_balance_threshold":"30"}}; use 15"#), "credit_balance_low 40");
    check(
        &format!(r#"{low}; change {{"low_balance_threshold":"30"}}; grant g 1; use 15"#),
        "credit_balance_low 40; credit_balance_low 26",
    );
}

#[test]
fn a_first_line_fires_at_once_where_the_figure_is_above_0() {
    check(r#"plan 0; buy p 40; change {"low_balance_threshold":"50"}"#, "credit_balance_low 40");
    check(r#"plan 5; change {"low_balance_threshold":"50"}"#, "");
    check(r#"plan 0; buy p 40; use 40; change {"low_balance_threshold":"50"}"#, "credit_balance_depleted 0");
}

#[test]
fn without_a_line_nothing_is_low_and_reaching_0_ends_the_episode() {
    check("plan 10; buy p 40; use 45", "");
    // The episode of the purchase ended unseen at 0, so a line of 0 set afterwards fires nothing.
    check(r#"plan 10; buy p 40; use 50 x; reverse x; change {"low_balance_threshold":"0"}; use 50"#, {
        "credit_balance_depleted 0; credits_available_again 50"
    });
    check(r#"plan 10; buy p 40; change {"low_balance_threshold":"0"}; use 50"#, {
        "credit_balance_low 0; credit_balance_depleted 0"
    });
    // A removed line fires nothing more.
    check(&with_line("50", r#"buy p 100; change {"low_balance_threshold":null}; use 60"#), "");
}

#[test]
fn depleted_is_told_at_0_or_below_once_an_episode() {
    check("plan 10; use 9", "");
    check("plan 10; use 12", "credit_balance_depleted -2");
    let depleted = "plan 10; use 10 x";
    check(depleted, "credit_balance_depleted 0");
    // A reversal begins no episode, but reports that there is something again, once.
    let back = format!("{depleted}; reverse x");
    check(&back, "credit_balance_depleted 0; credits_available_again 10");
    check(&format!("{back}; use 10 y; reverse y"), "credit_balance_depleted 0; credits_available_again 10");
    // An addition does, where it leaves something.
    check(&format!("{back}; grant g 1; use 11"), {
        "credit_balance_depleted 0; credits_available_again 10; credit_balance_depleted 0"
    });
    check("plan 10; use 12; grant g 2; use 1", "credit_balance_depleted -2");
}

#[test]
fn credits_are_available_again_once_after_each_depletion_whatever_brought_them() {
    let depleted = "plan 10; use 15 x";
    for (event, figure) in [
        ("grant g 8", "3"),
        ("buy p 6", "1"),
        ("adjust 7", "2"),
        ("reverse x", "10"),
        ("at 2026-02-01T00:00:00Z; reset 1", "5"),
        ("replan 16", "1"),
    ] {
        let fired = format!("credit_balance_depleted -5; credits_available_again {figure}");
        check(&format!("{depleted}; {event}"), &fired);
        check(&format!("{depleted}; {event}; grant more 1"), &fired);
    }
    check(&format!("{depleted}; grant g 5"), "credit_balance_depleted -5");
    check(
        &format!("{depleted}; grant g 5; grant h 1"),
        "credit_balance_depleted -5; credits_available_again 1",
    );
}

#[test]
fn notices_are_numbered_by_kind_and_name_their_line() {
    let firings = watched(&with_line("50", "buy p 100; use 100; buy q 100; use 100")).firings;
    let acme = AccountId::new("acme").expect("an id");
    let numbered = [
        (Kind::CreditBalanceLow, 1, "50"),
        (Kind::CreditBalanceDepleted, 1, "0"),
        (Kind::CreditsAvailableAgain, 1, "0"),
        (Kind::CreditBalanceLow, 2, "50"),
        (Kind::CreditBalanceDepleted, 2, "0"),
    ];
    assert_eq!(firings.len(), numbered.len());
    for (firing, (kind, n, line)) in firings.iter().zip(numbered) {
        assert_eq!(firing.firing_id, firing::notice_id(&acme, kind, n));
        assert_eq!(
            (firing.kind, firing.threshold.to_string().as_str(), firing.threshold_version),
            (kind, line, 1)
        );
        assert_eq!((firing.alert_id.as_ref(), &firing.subject), (None, &acme.as_subject()));
    }
}

#[test]
fn each_top_up_that_succeeds_or_fails_is_told_with_its_amount() {
    let fired = "credit_auto_recharge_triggered 50";
    check("plan 0; topup 10 50; due; paid 1 50 pay_1", fired);
    check("plan 0; topup 10 50; due; paid 1 50 pay_1; paid 1 50 pay_1", fired);
    check(
        "plan 0; topup 10 50; due; declined 1; topup 10 50; due; declined 2; topup 10 60; due; paid 3 60 pay_3",
        "credit_purchase_failed 50; credit_purchase_failed 50; credit_auto_recharge_triggered 60",
    );
}

#[test]
fn low_is_told_at_auto_top_ups_threshold_while_that_is_on() {
    let with_both = with_line("50", "buy p 100; topup 10 20");
    check(&format!("{with_both}; use 60"), "");
    check(&format!("{with_both}; use 90"), "credit_balance_low 10");
    check(&format!("{with_both}; use 60; no-topup"), "credit_balance_low 40");
    // A top-up is an addition: it begins an episode.
    let twice = "credit_balance_low 10; credit_auto_recharge_triggered 20; credit_balance_low 10";
    check(&format!("{with_both}; use 90; due; paid 1 20 pay_1; use 20"), twice);
}
