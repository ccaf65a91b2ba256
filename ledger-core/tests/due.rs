//! What a scheduler appends for an idle account.

mod story;

use ledger_core::event::Data;
use ledger_core::policy::due::due;
use story::{Story, story, time};

fn check(script: &str, now: &str, expected: &str) {
    let story = story(script);
    assert_eq!(shown(&story, now), expected, "{script} at {now}");
}

fn shown(story: &Story, now: &str) -> String {
    let core = story.account().core.as_ref().expect("an open account");
    let events = due(core, core.next_crossing().expect("a boundary"), time(now));
    let lines: Vec<_> = events
        .iter()
        .map(|event| {
            if let Data::PeriodReset(reset) = &event.data {
                format!("reset {} {}", reset.index, event.recorded_at)
            } else {
                format!("tick {}", event.recorded_at)
            }
        })
        .collect();
    lines.join(", ")
}

#[test]
fn nothing_is_due_before_a_boundary() {
    check("plan 5", "2026-01-31T23:59:59Z", "");
}

#[test]
fn every_boundary_passed_gets_its_reset() {
    check("plan 5", "2026-03-01T00:00:00Z", "reset 1 2026-02-01T00:00:00Z, reset 2 2026-03-01T00:00:00Z");
}

#[test]
fn a_lot_that_ends_within_the_period_gets_a_tick() {
    let script = r#"plan 5; grant g 1 "expires_at":"2026-01-10T00:00:00Z""#;
    check(script, "2026-01-20T00:00:00Z", "tick 2026-01-10T00:00:00Z");
    check(script, "2026-02-20T00:00:00Z", "reset 1 2026-02-01T00:00:00Z");
}

#[test]
fn a_waiting_schedule_counts_from_the_first_boundary() {
    check(
        r#"plan 5; replan-next 5 "cycle":"weekly","anchor":"2026-01-05T00:00:00Z""#,
        "2026-02-09T00:00:00Z",
        "reset 1 2026-02-01T00:00:00Z, reset 2 2026-02-02T00:00:00Z, reset 3 2026-02-09T00:00:00Z",
    );
}

#[test]
fn a_long_sleep_is_made_up_for_in_rounds() {
    let story = story(r#"plan 5 "cycle":"daily""#);
    assert_eq!(shown(&story, "2030-01-01T00:00:00Z").split(", ").count(), 100);
}
