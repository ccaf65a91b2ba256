//! Checks, holds and hard limits, rule by rule.

use ledger_core::event::key::ContentHash;
use ledger_core::policy::decide::Work;
use ledger_core::policy::hold::{Extend, Refused, Reserve, Settlement, Settling, over_hold};
use ledger_core::value::id::{EventId, ReservationId, Source, UserId};
use proptest::prelude::*;

use crate::store::{Projection, Reading, Store};
use crate::story::{ACCOUNT, Story, documented, time};

const OPEN: &str = r#"plan 10 "anchor":"2026-01-01T00:00:00Z""#;
const UNTIL: &str = r#"plan 10 "anchor":"2026-01-01T00:00:00Z","on_exhausted":"allow","overage_limit":"5""#;
const LIMITED: &str = r#"plan 100 "anchor":"2026-01-01T00:00:00Z"; limits {"default_limit":"10","custom":{"bo":"unlimited"},"excluded_features":["workflow"]}"#;

/// An account, its holds, and their requests, in words.
struct Desk {
    story: Story,
    store: Store,
    projection: Projection,
}

impl Desk {
    fn new(opening: &str) -> Self {
        let mut story = Story::new();
        story.play(opening);
        Self { story, store: Store::default(), projection: Projection::default() }
    }

    /// Plays every line and returns the result of each request.
    fn play(&mut self, script: &str) -> String {
        let lines = script.split(';').map(str::trim).filter(|line| !line.is_empty());
        let answers: Vec<String> = lines.filter_map(|line| self.line(line)).collect();
        answers.join(", ")
    }

    fn line(&mut self, line: &str) -> Option<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let known = ["reserve", "extend", "release", "settle", "check", "available", "spent", "usage"];
        if !known.contains(&words[0]) {
            self.story.play(line);
            return None;
        }
        if words[0] == "usage" {
            self.usage(&words);
            return None;
        }
        self.projection.fold(&self.story.facts, usize::MAX);
        let users = ["ana", "bo"].map(|name| UserId::new(name).expect("an id"));
        let reading = Reading::of(&self.projection, self.story.now, &users);
        self.store.sweep(&reading);
        let mut gate = self.store.gate(&reading);
        let word = |n: usize| words.get(n).copied();
        let answer = match words[0] {
            // reserve <id> <user or -> <amount> [feature] [seconds]
            "reserve" => decided(gate.reserve(&reserve(&words))),
            // extend <id> <amount or -> [seconds]
            "extend" => {
                let amount =
                    word(2).filter(|amount| *amount != "-").map(|amount| amount.parse().expect("an amount"));
                let ttl_seconds = word(3).map(|seconds| seconds.parse().expect("seconds"));
                decided(gate.extend(&reservation(words[1]), &Extend { amount, ttl_seconds }))
            }
            "release" => {
                gate.release(&reservation(words[1])).map_or_else(refused, |()| "released".to_owned())
            }
            // settle <id> <event> <credits>
            "settle" => {
                let credits = words[3].parse().expect("credits");
                let by = settlement(words[2], words[3]);
                gate.settle(&reservation(words[1]), by, credits).map_or_else(
                    refused,
                    |Settling { held, repeat, .. }| {
                        let again = if repeat { " again" } else { "" };
                        format!("settling{again} over {}", over_hold(credits, held))
                    },
                )
            }
            // check <user or -> [amount or -] [feature]
            "check" => {
                let amount =
                    word(2).filter(|amount| *amount != "-").map(|amount| amount.parse().expect("an amount"));
                let feature = word(3).map(|feature| feature.parse().expect("a label"));
                let decision = gate.check(&Work { user_id: user(words[1]), feature, amount });
                decision.refusal.map_or("allowed", |refusal| refusal.code()).to_owned()
            }
            "spent" => gate.core().figures.used.to_string(),
            _ => gate.available().to_string(),
        };
        self.store.commit(&gate);
        self.store.adds_up().expect("sums of what is noted");
        Some(answer)
    }

    /// usage <event> <user> <credits> <hold>: the record that settling sends through the journal.
    fn usage(&mut self, words: &[&str]) {
        let body = format!(
            r#"{{"user_id":"{}","credits":"{}","reservation_id":"{}"}}"#,
            words[2], words[3], words[4]
        );
        self.story.event(words[1], "ledger.usage.recorded.v1", &body);
        if let Some(row) = self.store.rows.get_mut(&reservation(words[4])) {
            row.appended = Some(self.story.facts.len() - 1);
        }
    }
}

fn reserve(words: &[&str]) -> Reserve {
    Reserve {
        reservation_id: reservation(words[1]),
        user_id: user(words[2]),
        feature: words
            .get(4)
            .filter(|feature| **feature != "-")
            .map(|feature| feature.parse().expect("a label")),
        amount: words[3].parse().expect("an amount"),
        ttl_seconds: words.get(5).map(|seconds| seconds.parse().expect("seconds")),
    }
}

fn settlement(event: &str, content: &str) -> Settlement {
    let mut hash = [0; 32];
    hash[..content.len()].copy_from_slice(content.as_bytes());
    Settlement {
        event_id: EventId::new(event).expect("an event id"),
        source: Source::new("/story").expect("a source"),
        content: ContentHash(hash),
    }
}

fn reservation(text: &str) -> ReservationId {
    ReservationId::new(text).expect("an id")
}

fn user(word: &str) -> Option<UserId> {
    Some(word).filter(|word| *word != "-").map(|name| UserId::new(name).expect("an id"))
}

fn decided<T>(answer: Result<Option<T>, Refused>) -> String {
    answer
        .map_or_else(refused, |decision| if decision.is_some() { "granted" } else { "as before" }.to_owned())
}

fn refused(refusal: Refused) -> String {
    match refusal {
        Refused::Decision(decision) => decision.refusal.expect("refused").code().to_owned(),
        Refused::OtherRequest => "other request".to_owned(),
        Refused::Ended => "ended".to_owned(),
        Refused::Unknown => "unknown".to_owned(),
    }
}

fn check(opening: &str, script: &str, expected: &str) {
    assert_eq!(Desk::new(opening).play(script), expected, "{opening}: {script}");
}

#[test]
fn the_examples_of_the_concepts_are_what_the_gate_decides() {
    let tables = documented("| request | answer |");
    assert!(!tables.is_empty(), "no example");
    for table in tables {
        let mut desk = Desk::new(OPEN);
        for (request, answer) in table {
            assert_eq!(desk.play(&request), answer, "docs/concepts.md: {request}");
        }
    }
}

#[test]
fn a_hold_takes_of_what_is_available_and_leaves_the_balance_alone() {
    check(OPEN, "reserve r1 - 4; available; spent; reserve r2 - 6; available", "granted, 6, 0, granted, 0");
}

#[test]
fn holds_are_granted_to_the_last_credit_and_no_further() {
    check(
        OPEN,
        "reserve r1 - 9.999999999; reserve r2 - 0.000000002; reserve r3 - 0.000000001",
        "granted, credits_exhausted, granted",
    );
    check(UNTIL, "reserve r1 - 15; reserve r2 - 0.000000001; available", "granted, credits_exhausted, -5");
}

#[test]
fn a_users_limit_covers_what_counts_and_what_the_user_holds() {
    check(
        LIMITED,
        "by ana 4; reserve r1 ana 5; reserve r2 ana 1.1; reserve r3 ana 1",
        "granted, user_limit_reached, granted",
    );
    check(LIMITED, "reserve r1 ana 10; reserve r2 bo 20; reserve r3 - 20", "granted, granted, granted");
}

#[test]
fn the_users_limit_is_tested_before_the_balance() {
    check(LIMITED, "use 100; reserve r1 ana 11; reserve r2 bo 11", "user_limit_reached, credits_exhausted");
}

#[test]
fn work_in_excluded_features_is_held_outside_of_the_limit() {
    check(
        LIMITED,
        "reserve r1 ana 30 workflow; reserve r2 ana 10 chat; reserve r3 ana 1 chat; available",
        "granted, granted, user_limit_reached, 60",
    );
}

#[test]
fn limits_that_change_are_those_that_the_next_request_meets() {
    check(
        LIMITED,
        r#"reserve r1 ana 8; limits {"default_limit":"5"}; reserve r2 ana 1; limits {"default_limit":"9"}; reserve r3 ana 1"#,
        "granted, user_limit_reached, granted",
    );
    // Holds for a feature that is excluded from now on no longer count.
    check(
        LIMITED,
        "reserve r1 ana 8; limit ana 8; reserve r2 ana 1; limit ana 9; reserve r3 ana 1; limit ana none; reserve r4 ana 1",
        "granted, user_limit_reached, granted, granted",
    );
    // All own limits are replaced: bo's, which was none, is the default again.
    check(
        LIMITED,
        r#"limits {"default_limit":"10"}; reserve r1 bo 11; limits {"default_limit":"10","custom":{"ana":"1"}}; reserve r2 bo 1; reserve r3 ana 2"#,
        "granted, user_limit_reached, user_limit_reached",
    );
    check(
        LIMITED,
        r#"reserve r1 ana 10 chat; limits {"default_limit":"10","excluded_features":["chat"]}; reserve r2 ana 10 search"#,
        "granted, granted",
    );
}

#[test]
fn without_an_amount_the_smallest_work_is_decided_on() {
    check(
        OPEN,
        "reserve r1 - 9.9; check -; reserve r2 - 0.1; check -; check - 0.1",
        "granted, allowed, granted, credits_exhausted, credits_exhausted",
    );
    check(
        LIMITED,
        "reserve r1 ana 10; check ana; check ana - workflow; check bo",
        "granted, user_limit_reached, allowed, allowed",
    );
}

#[test]
fn a_check_changes_nothing() {
    check(OPEN, "check - 10; check - 10; reserve r1 - 10", "allowed, allowed, granted");
}

#[test]
fn the_same_request_again_is_answered_again_and_another_under_its_id_is_refused() {
    check(OPEN, "reserve r1 - 6; reserve r1 - 6; available", "granted, as before, 4");
    check(
        OPEN,
        "reserve r1 - 6; reserve r1 - 5; reserve r1 - 6 - 901; reserve r1 - 6 - 900",
        "granted, other request, other request, as before",
    );
    check(OPEN, "reserve r1 - 6; release r1; reserve r1 - 6; available", "granted, released, as before, 10");
}

#[test]
fn a_hold_ends_by_itself_at_its_expiry() {
    check(
        OPEN,
        "reserve r1 - 10; at 2026-01-01T00:14:59Z; reserve r2 - 1; at 2026-01-01T00:15:00Z; reserve r2 - 1",
        "granted, credits_exhausted, granted",
    );
    check(
        OPEN,
        "reserve r1 - 10 - 60; at 2026-01-01T00:01:00Z; available; extend r1 - 60",
        "granted, 10, ended",
    );
}

#[test]
fn a_hold_that_is_extended_holds_the_new_amount_in_all() {
    check(
        OPEN,
        "reserve r1 - 4; extend r1 9; available; extend r1 9; extend r1 10.1; available",
        "granted, granted, 1, as before, credits_exhausted, 1",
    );
    check(LIMITED, "reserve r1 ana 4; extend r1 10; extend r1 11", "granted, granted, user_limit_reached");
}

#[test]
fn a_hold_that_is_made_smaller_gives_back_the_rest_even_where_nothing_is_left() {
    check(
        OPEN,
        "reserve r1 - 10; extend r1 4; available; use 8; extend r1 3; available",
        "granted, as before, 6, as before, -1",
    );
}

#[test]
fn a_hold_that_is_prolonged_lives_from_now_on_and_needs_no_credits() {
    check(
        OPEN,
        "reserve r1 - 10 - 60; at 2026-01-01T00:00:50Z; extend r1 - 60; at 2026-01-01T00:01:49Z; available; at 2026-01-01T00:01:50Z; available",
        "granted, as before, 0, 10",
    );
}

#[test]
fn a_hold_that_is_given_back_frees_what_it_held_once() {
    check(
        OPEN,
        "reserve r1 - 6; release r1; available; release r1; available; extend r1 7",
        "granted, released, 10, released, 10, ended",
    );
    check(
        OPEN,
        "reserve r1 - 6 - 60; at 2026-01-01T00:01:00Z; release r1; available",
        "granted, released, 10",
    );
}

#[test]
fn a_hold_that_never_was_is_not_known() {
    check(OPEN, "extend r1 1; release r1; settle r1 u1 1; available", "unknown, unknown, unknown, 10");
}

#[test]
fn a_settling_hold_stays_until_its_usage_is_projected_whatever_the_time() {
    check(
        OPEN,
        "reserve r1 - 6 - 60; settle r1 u1 4; at 2026-01-01T01:00:00Z; available; usage u1 ana 4 r1; available; spent",
        "granted, settling over 0, 4, 6, 4",
    );
}

#[test]
fn a_settling_hold_takes_the_more_of_what_it_held_and_what_is_charged() {
    check(
        OPEN,
        "reserve r1 - 2; settle r1 u1 7; available; reserve r2 - 4",
        "granted, settling over 5, 3, credits_exhausted",
    );
    check(
        OPEN,
        "reserve r1 - 6; settle r1 u1 2; available; reserve r2 - 5",
        "granted, settling over 0, 4, credits_exhausted",
    );
}

#[test]
fn a_hold_is_settled_by_one_usage() {
    check(
        OPEN,
        "reserve r1 - 6; settle r1 u1 4; settle r1 u1 4; settle r1 u2 4; settle r1 u1 5; available",
        "granted, settling over 0, settling again over 0, ended, other request, 4",
    );
    check(
        OPEN,
        "reserve r1 - 6; settle r1 u1 4; usage u1 ana 4 r1; settle r1 u1 4; settle r1 u2 4",
        "granted, settling over 0, settling again over 0, ended",
    );
    check(
        OPEN,
        "reserve r1 - 6; settle r1 u1 4; extend r1 7; release r1; available",
        "granted, settling over 0, ended, ended, 4",
    );
}

#[test]
fn a_hold_is_charged_also_after_it_has_ended_by_time_or_was_given_back() {
    check(
        OPEN,
        "reserve r1 - 6 - 60; at 2026-01-01T00:01:00Z; settle r1 u1 4; available; usage u1 ana 4 r1; available",
        "granted, settling over 0, 6, 6",
    );
    check(
        OPEN,
        "reserve r1 - 6; release r1; settle r1 u1 7; available",
        "granted, released, settling over 1, 3",
    );
}

#[test]
fn a_hold_whose_usage_came_to_nothing_is_held_again_under_its_old_expiry() {
    let taken = "by ana 1; reserve r1 ana 6 - 60; settle r1 u1 9; available; usage u1 ana 9 r1; available; settle r1 u2 2; available";
    let story = taken.replace("u1", "u0-taken");
    // Other usage already had the id: the record folds to a conflict.
    let opening = format!("{OPEN}; use 0 u0-taken");
    check(&opening, &story, "granted, settling over 3, 0, 3, settling over 0, 3");
    let late = "reserve r1 ana 6 - 60; settle r1 u0-taken 9; at 2026-01-01T00:02:00Z; usage u0-taken ana 9 r1; available";
    check(&opening, late, "granted, settling over 3, 10");
    let released =
        "reserve r1 ana 6; release r1; settle r1 u0-taken 9; available; usage u0-taken ana 9 r1; available";
    check(&opening, released, "granted, released, settling over 3, 1, 10");
}

#[test]
fn a_name_that_usage_has_used_is_given_to_no_hold() {
    // As after a restore of the tables: the journal has records that they do not.
    check(
        OPEN,
        "usage u1 ana 4 r1; reserve r1 ana 1; extend r1 2; settle r1 u9 2; available",
        "ended, ended, ended, 6",
    );
}

#[test]
fn a_decision_is_made_on_the_period_that_has_begun_by_now() {
    let opening = format!(r#"{LIMITED}; by ana 10"#);
    check(
        &opening,
        "check ana; at 2026-02-01T00:00:00Z; check ana; reserve r1 ana 10; reserve r2 ana 1",
        "user_limit_reached, allowed, granted, user_limit_reached",
    );
    let opening = format!("{OPEN}; use 10");
    check(
        &opening,
        "check -; at 2026-02-01T00:00:00Z; available; reserve r1 - 10",
        "credits_exhausted, 10, granted",
    );
}

#[test]
fn what_is_held_over_a_boundary_is_held_in_the_next_period_too() {
    check(
        LIMITED,
        "at 2026-01-31T23:59:00Z; reserve r1 ana 7; at 2026-02-01T00:00:30Z; reserve r2 ana 4; reserve r3 ana 3; available",
        "granted, user_limit_reached, granted, 90",
    );
}

#[test]
fn a_lot_that_ends_by_now_is_gone_before_its_event() {
    let opening = format!(r#"{OPEN}; grant g1 5 "expires_at":"2026-01-01T01:00:00Z""#);
    check(&opening, "at 2026-01-01T00:59:59Z; available; at 2026-01-01T01:00:00Z; available", "15, 10");
}

#[test]
fn everything_opens_again_by_itself_when_credits_come() {
    check(OPEN, "use 10; check -; buy p1 5; check -; reserve r1 - 5", "credits_exhausted, allowed, granted");
    check(LIMITED, "use 10 u1; check ana; reverse u1; check ana", "user_limit_reached, allowed");
}

#[test]
fn usage_is_recorded_no_earlier_than_the_last_grant() {
    let mut desk = Desk::new(OPEN);
    desk.play("reserve r1 - 4; at 2026-01-01T00:05:00Z; extend r1 5; at 2026-01-01T00:06:00Z");
    desk.projection.fold(&desk.story.facts, usize::MAX);
    let reading = Reading::of(&desk.projection, desk.story.now, &[]);
    let mut gate = desk.store.gate(&reading);
    let settling = gate
        .settle(&reservation("r1"), settlement("u1", "1"), "1".parse().expect("credits"))
        .expect("a hold");
    assert_eq!(settling.not_before, time("2026-01-01T00:05:00Z"));
}

#[test]
fn one_turn_decides_its_requests_one_after_another() {
    let mut desk = Desk::new(OPEN);
    desk.projection.fold(&desk.story.facts, usize::MAX);
    let reading = Reading::of(&desk.projection, desk.story.now, &[UserId::new("ana").expect("an id")]);
    let mut gate = desk.store.gate(&reading);
    let outcomes: Vec<String> =
        ["reserve r1 ana 6", "reserve r2 ana 6", "reserve r3 ana 4", "reserve r1 ana 6"]
            .map(|line| decided(gate.reserve(&reserve(&line.split(' ').collect::<Vec<_>>()))))
            .to_vec();
    assert_eq!(outcomes, ["granted", "credits_exhausted", "granted", "as before"]);
    assert_eq!((gate.changes().holds.len(), gate.changes().held.to_string()), (2, "10".to_owned()));
    assert_eq!(reading.core.account.as_str(), ACCOUNT);
}

prop_compose! {
    /// Few values, so that two requests often differ in one thing alone, or in nothing.
    fn a_request()(
        hold in 0..3_u8, who in 0..3_u8, what in 0..3_u8, amount in 1..4_i64, places in any::<bool>(), ttl in 0..3_u8,
    ) -> (Reserve, (u8, u8, u8, i64, u32)) {
        let named = |n: u8, of: char| (n > 0).then(|| format!("{of}{n}"));
        let ttl_seconds = [None, Some(900), Some(60)][usize::from(ttl)];
        let text = format!("{amount}{}", if places { ".0" } else { "" });
        let request = Reserve {
            reservation_id: reservation(&format!("r{hold}")),
            // One word for both: a user may be called as a feature is.
            user_id: named(who, 'x').map(|text| UserId::new(&text).expect("an id")),
            feature: named(what, 'x').map(|text| text.parse().expect("a label")),
            amount: text.parse().expect("an amount"),
            ttl_seconds,
        };
        (request, (hold, who, what, amount, ttl_seconds.unwrap_or(900)))
    }
}

proptest! {
    #[test]
    fn requests_have_the_same_content_where_they_ask_for_the_same((a, fields) in a_request(), (b, other) in a_request()) {
        prop_assert_eq!(a.content() == b.content(), fields == other, "{:?} {:?}", a, b);
    }
}
