//! Alerts and limits: section 8's rules, each as a story.

use std::collections::BTreeSet;

use ledger_core::event::{Channel, Recipients, derive};
use ledger_core::policy::alert::{ENDED_MAX, Kind, REMOVED_MAX, firing};
use ledger_core::value::id::{AccountId, AlertId, UserId};

use crate::story::story;
use crate::watched::{Watched, check, shown, watched};

const FEBRUARY: &str = "at 2026-02-01T00:00:00Z; reset 1";

fn user(text: &str) -> UserId {
    UserId::new(text).expect("an id")
}

#[test]
fn the_contracts_example() {
    let at_75 = "plan 10000; alert a percent_used 75; use 7499 u1; use 1 u2";
    check(at_75, "org_alert a v1 75");
    let back = format!("{at_75}; reverse u2; use 101 u3; reverse u3; use 500 u4");
    check(&back, "org_alert a v1 75");
    let to_70 = format!("{back}; alert a percent_used 70");
    check(&to_70, "org_alert a v1 75; org_alert a v2 79.99");
    let to_90 = format!("{to_70}; alert a percent_used 90; use 1000 u5");
    check(&to_90, "org_alert a v1 75; org_alert a v2 79.99");
    let at_9_000 = format!("{to_90}; use 1 u6");
    check(&at_9_000, "org_alert a v1 75; org_alert a v2 79.99; org_alert a v3 90");
    let next = format!("{at_9_000}; {FEBRUARY}; use 8999 u7; use 1 u8");
    check(&next, "org_alert a v1 75; org_alert a v2 79.99; org_alert a v3 90; org_alert a v3 90");
    check("plan 10000; alert a percent_used 75; use 7000; buy p 10000; use 7999", "");
    check("plan 10000; alert a percent_used 75; use 7000; buy p 10000; use 8000", "org_alert a v1 75");
}

#[test]
fn used_fires_at_or_above_and_remaining_at_or_below() {
    for (basis, threshold, quiet, fires, figure) in [
        ("percent_used", "75", "use 7.499999999", "use 7.5", "75"),
        ("absolute_used", "7.5", "use 7.499999999", "use 7.6", "7.6"),
        ("percent_remaining", "25", "use 7.499999999", "use 7.5", "25"),
        ("percent_remaining", "0", "use 9.999999999", "use 12", "0"),
        ("absolute_remaining", "2.5", "use 7.499999999", "use 7.5", "2.5"),
        ("absolute_remaining", "0", "use 9.999999999", "use 12", "-2"),
    ] {
        let fired = |event: &str| {
            let firings = watched(&format!("plan 10; alert a {basis} {threshold}; {event}")).firings;
            shown(&firings.into_iter().filter(|firing| firing.kind == Kind::OrgAlert).collect::<Vec<_>>())
        };
        assert_eq!(fired(quiet), "", "{basis} {threshold} after {quiet}");
        assert_eq!(fired(fires), format!("org_alert a v1 {figure}"), "{basis} {threshold} after {fires}");
    }
}

#[test]
fn percents_are_compared_exactly_and_shown_rounded() {
    // A third of 3 is 33.333… %: below 33.333333334 % and above 33.333333333 %, which both are shown as the latter.
    check("plan 3; alert a percent_used 33.333333334; use 1", "");
    check("plan 3; alert a percent_used 33.333333333; use 1", "org_alert a v1 33.333333333");
    // Two thirds are 66.666… %, shown as 66.666666667 and yet below it.
    check("plan 3; alert a percent_used 66.666666667; use 2", "");
    check("plan 3; alert a percent_remaining 33.333333333; use 2", "");
    check("plan 3; alert a percent_remaining 33.333333334; use 2", "org_alert a v1 33.333333333");
}

#[test]
fn percents_of_no_maximum_fire_nothing() {
    let both = "plan 0; alert a percent_used 1; alert b percent_remaining 100; use 5";
    check(both, "");
    check(&format!("{both}; grant g 20"), "org_alert a v1 25; org_alert b v1 75");
}

#[test]
fn an_alert_fires_once_a_period_and_is_armed_again_by_the_next() {
    check("plan 10; alert a absolute_used 5; use 6; use 1; use 1", "org_alert a v1 6");
    check("plan 10; alert a absolute_used 5; use 6; reverse u2; use 9", "org_alert a v1 6");
    check(
        &format!("plan 10; alert a absolute_used 5; use 6; {FEBRUARY}; use 4; use 1"),
        "org_alert a v1 6; org_alert a v1 5",
    );
}

#[test]
fn a_new_alert_already_past_fires_at_once() {
    check("plan 10; use 6; alert a absolute_used 5", "org_alert a v1 6");
    check("plan 10; alert a absolute_remaining 10", "org_alert a v1 10");
}

#[test]
fn changing_threshold_or_basis_arms_again_and_changing_who_is_told_does_not() {
    let fired = "plan 10; alert a absolute_used 5; use 6";
    check(&format!("{fired}; alert a absolute_used 5.0 \"recipients\":[\"carl\"]"), "org_alert a v1 6");
    check(&format!("{fired}; alert a absolute_used 5 \"channels\":[\"webhook\"]"), "org_alert a v1 6");
    check(&format!("{fired}; alert a absolute_used 4"), "org_alert a v1 6; org_alert a v2 6");
    check(&format!("{fired}; alert a percent_used 5"), "org_alert a v1 6; org_alert a v2 60");
    let and_back = format!("{fired}; alert a absolute_used 8; alert a absolute_used 5");
    check(&and_back, "org_alert a v1 6; org_alert a v3 6");
}

#[test]
fn a_removed_alert_never_fires_and_is_a_new_version_when_it_comes_again() {
    check("plan 10; alert a absolute_used 5; no-alert a; use 6", "");
    let again = "plan 10; alert a absolute_used 5; use 6; no-alert a; alert a absolute_used 5";
    check(again, "org_alert a v1 6; org_alert a v2 6");
    check(&format!("{again}; no-alert a; {FEBRUARY}; alert a absolute_used 0"), {
        "org_alert a v1 6; org_alert a v2 6; org_alert a v3 0"
    });
}

#[test]
fn of_more_removed_alerts_than_are_kept_none_comes_again_as_an_old_version() {
    let mut watched = Watched::default();
    let mut story = story("plan 10; alert a-first absolute_used 5; use 6; no-alert a-first");
    for number in 0..REMOVED_MAX {
        story.play(&format!("alert b{number} absolute_used 50; no-alert b{number}"));
    }
    story.play("alert a-first absolute_used 5");
    watched.batch(&story.facts);
    assert_eq!(shown(&watched.firings), "org_alert a-first v1 6; org_alert a-first v2 6");
}

/// A user lost their own limit before more series ended than are told apart; their limit's version must not begin again.
#[test]
fn of_more_series_of_limits_than_are_told_apart_none_fires_under_an_old_version() {
    let mut story = story("plan 100; by a 10; by b 1");
    story.play(r#"limits {"custom":{"a":"5","b":"0"}}; limits {"custom":{"a":"6"}}"#);
    for default in 0..=ENDED_MAX {
        story.play(&format!(r#"limits {{"default_limit":"{}","custom":{{}}}}"#, 50 + default));
    }
    story.play(r#"limits {"custom":{"a":"5"}}; limits {"custom":{"a":"7"}}; limits {"custom":{"b":"0"}}"#);
    let mut watched = Watched::default();
    for fact in &story.facts {
        watched.batch(std::slice::from_ref(fact));
    }
    let of_a: Vec<_> = watched
        .firings
        .iter()
        .filter(|firing| firing.subject.as_str() == "a")
        .map(|firing| firing.threshold_version)
        .collect();
    assert_eq!(of_a.len(), 4, "{}", shown(&watched.firings));
    assert!(of_a.is_sorted_by(|before, after| before < after), "{of_a:?}");
    let ids: BTreeSet<_> = watched.firings.iter().map(|firing| firing.firing_id).collect();
    assert_eq!(ids.len(), watched.firings.len(), "an id fired twice");
}

#[test]
fn limits_without_custom_meet_users_past_their_own_limit_some_at_a_time() {
    let used = "plan 100; by eve 9; by cy 9; by ana 6; by bo 4; by dan 7; by flo 5; by gus 1";
    let own =
        r#"limits {"enabled":false}; limit ana 5; limit bo 5; limit cy unlimited; limit dan 7; limit eve 1"#;
    let check = |script: &str, expected: &str, parts: usize| {
        let watched = watched(script);
        assert_eq!((shown(&watched.firings).as_str(), watched.parts), (expected, parts), "{script}");
    };
    let past = "user_limit_reached ana v1 6; user_limit_reached dan v1 7; user_limit_reached eve v1 9";
    check(&format!("{used}; {own}; limits {{}}"), past, 2);
    // With a default, users without a limit of their own are met among them.
    check(
        &format!(r#"{used}; {own}; limits {{"default_limit":"1"}}"#),
        "user_limit_reached ana v1 6; user_limit_reached dan v1 7; user_limit_reached eve v1 9; \
         user_limit_reached flo v1 5; user_limit_reached gus v1 1",
        4,
    );
    // Where none is in force any more, nobody is met.
    check(&format!(r#"{used}; {own}; limits {{"custom":{{}}}}"#), "", 0);
}

#[test]
fn all_alerts_of_one_moment_fire_by_id_and_before_notices() {
    check(
        "plan 10; alert b absolute_used 5; alert a percent_used 10; alert c absolute_remaining 0; use 10",
        "org_alert a v1 100; org_alert b v1 10; org_alert c v1 0; credit_balance_depleted 0",
    );
}

#[test]
fn crossings_are_looked_at_as_if_an_event_stood_there() {
    // The promotion ends on the 10th and another begins on the 20th; the next event comes in March.
    let script = r#"plan 10; grant g 5 "expires_at":"2026-01-10T00:00:00Z"; use 3;
        grant h 50 "effective_at":"2026-01-20T00:00:00Z"; alert a absolute_remaining 7; alert b absolute_remaining 60;
        at 2026-03-05T00:00:00Z; tick"#;
    let firings = watched(script).firings;
    // The plan gives first: 7 of it remain, and the promotion's 5 end on the 10th.
    let times: Vec<_> = firings
        .iter()
        .map(|firing| (firing.fired_at.to_string(), shown(std::slice::from_ref(firing))))
        .collect();
    let fired: Vec<_> = times.iter().map(|(at, fired)| (at.as_str(), fired.as_str())).collect();
    assert_eq!(
        fired,
        [
            ("2026-01-01T00:00:00Z", "org_alert b v1 12"),
            ("2026-01-10T00:00:00Z", "org_alert a v1 7"),
            ("2026-02-01T00:00:00Z", "org_alert b v1 60"),
            ("2026-03-01T00:00:00Z", "org_alert b v1 60"),
        ],
    );
    let acme = AccountId::new("acme").expect("an id");
    assert_eq!(firings[2].event_id, derive::reset_id(&acme, 1));
    assert_eq!((firings[2].period_index, firings[3].period_index), (1, 2));
}

#[test]
fn a_lot_that_ends_or_starts_fires_at_its_instant() {
    let ends = r#"plan 10; grant g 5 "expires_at":"2026-01-10T00:00:00Z"; alert a absolute_remaining 10;
        at 2026-01-15T00:00:00Z; tick"#;
    let fired = watched(ends).firings;
    assert_eq!(shown(&fired), "org_alert a v1 10");
    assert_eq!(fired[0].fired_at.to_string(), "2026-01-10T00:00:00Z");
    assert_eq!(
        fired[0].event_id,
        derive::tick_id(&AccountId::new("acme").expect("an id"), fired[0].fired_at)
    );

    let starts = r#"plan 0; use 5; grant g 50 "effective_at":"2026-01-10T00:00:00Z"; alert a percent_used 10;
        at 2026-01-15T00:00:00Z; tick"#;
    let fired = watched(starts).firings;
    assert_eq!(shown(&fired), "org_alert a v1 10");
    assert_eq!(fired[0].fired_at.to_string(), "2026-01-10T00:00:00Z");
    assert_eq!(fired[0].event_id.as_str(), "e2");
}

#[test]
fn lots_that_end_and_start_at_one_instant_are_looked_at_one_by_one() {
    // 6 end before 6 others start: for a moment nothing is left.
    let script = r#"plan 0; grant g 6 "expires_at":"2026-01-10T00:00:00Z";
        grant h 6 "effective_at":"2026-01-10T00:00:00Z"; at 2026-01-12T00:00:00Z; tick"#;
    check(script, "credit_balance_depleted 0; credits_available_again 6");
    // A boundary is one moment: what it takes and gives is evaluated together.
    check("plan 5; use 1; at 2026-02-02T00:00:00Z; tick", "");
}

#[test]
fn a_duplicate_or_refused_event_fires_nothing_again() {
    check("plan 10; alert a absolute_used 5; use 6 x; use 6 x; use 7 x; reset 9", "org_alert a v1 6");
}

#[test]
fn the_user_alert_fires_for_each_user_by_his_own_usage() {
    let set = r#"plan 100; user-alert {"threshold":"5"}"#;
    check(&format!("{set}; by ana 4; by bo 4; by ana 1; by bo 2; by ana 9"), {
        "user_alert ana v1 5; user_alert bo v1 6"
    });
    check(&format!("{set}; by ana 5; {FEBRUARY}; by ana 4; by ana 1"), {
        "user_alert ana v1 5; user_alert ana v1 5"
    });
    check(&format!("{set}; nobody 50"), "");
}

#[test]
fn a_user_alert_set_or_changed_fires_at_once_for_all_who_are_past() {
    let used = "plan 100; by cy 9; by ana 6; by bo 4";
    check(&format!(r#"{used}; user-alert {{"threshold":"5"}}"#), "user_alert ana v1 6; user_alert cy v1 9");
    check(
        &format!(r#"{used}; user-alert {{"threshold":"5"}}; user-alert {{"threshold":"4"}}"#),
        "user_alert ana v1 6; user_alert cy v1 9; user_alert ana v2 6; user_alert bo v2 4; user_alert cy v2 9",
    );
    check(
        &format!(
            r#"{used}; user-alert {{"threshold":"5"}}; user-alert {{"threshold":"5.0","notify_user":true}}"#
        ),
        "user_alert ana v1 6; user_alert cy v1 9",
    );
}

#[test]
fn an_edit_meets_all_users_some_at_a_time_by_id() {
    let check = |script: &str, expected: &str, parts: usize| {
        let watched = watched(script);
        assert_eq!((shown(&watched.firings).as_str(), watched.parts), (expected, parts), "{script}");
    };
    let used = "plan 100; by eve 9; by cy 9; by ana 6; by bo 4; by dan 7; by flo 5; by gus 1";
    let alert = r#"user-alert {"threshold":"5"}"#;
    let all = "user_alert ana v1 6; user_alert cy v1 9; user_alert dan v1 7; user_alert eve v1 9; user_alert flo v1 5";
    check(&format!("{used}; {alert}"), all, 3);
    // The next edit knows the firings for users who had passed before.
    check(&format!(r#"{used}; {alert}; user-alert {{"threshold":"5","notify_user":true}}"#), all, 6);
    check(
        &format!(
            r#"{used}; limits {{"default_limit":"6","custom":{{"dan":"8","gus":"1","cy":"unlimited"}}}}"#
        ),
        "user_limit_reached ana v1 6; user_limit_reached eve v1 9; user_limit_reached gus v1 1",
        3,
    );
}

#[test]
fn a_user_alert_that_is_off_fires_nothing_and_on_again_tells_only_what_is_new() {
    check(r#"plan 100; user-alert {"enabled":false,"threshold":"5"}; by ana 9"#, "");
    check(
        r#"plan 100; user-alert {"threshold":"5"}; by ana 9; user-alert {"enabled":false}; by bo 9;
           user-alert {"threshold":"5"}"#,
        "user_alert ana v1 9; user_alert bo v1 9",
    );
}

#[test]
fn a_user_without_usage_fires_nothing() {
    check(r#"plan 100; by ana 0; user-alert {"threshold":"0"}"#, "user_alert ana v1 0");
    check(r#"plan 100; by ana 0; reverse u1; user-alert {"threshold":"0"}"#, "");
    check(r#"plan 100; limits {"default_limit":"0","custom":{"bo":"0"}}"#, "");
    check(r#"plan 100; by ana 3; reverse u1; limits {"default_limit":"0","custom":{"ana":"0"}}"#, "");
    check(
        &format!(
            r#"plan 100; by ana 9; {FEBRUARY}; limits {{"default_limit":"5"}}; user-alert {{"threshold":"5"}}"#
        ),
        "",
    );
}

#[test]
fn a_limit_is_reached_at_counted_usage() {
    let set = r#"plan 100; limits {"default_limit":"10","custom":{"bo":"5","cy":"unlimited"},"excluded_features":["voice"]}"#;
    check(&format!("{set}; by ana 9; by ana 1; by ana 5"), "user_limit_reached ana v1 10");
    check(&format!("{set}; by bo 6; by cy 500"), {
        "user_limit_reached bo v1 6; credit_balance_depleted -406"
    });
    check(&format!("{set}; by ana 50 voice; by ana 9 chat; by ana 1"), "user_limit_reached ana v1 10");
    check(&format!("{set}; nobody 50"), "");
    check(r#"plan 100; limits {"enabled":false,"default_limit":"10"}; by ana 50"#, "");
}

#[test]
fn excluded_usage_counts_toward_the_user_alert() {
    check(
        r#"plan 100; limits {"default_limit":"10","excluded_features":["voice"]}; user-alert {"threshold":"10"};
           by ana 10 voice; by ana 10 chat"#,
        "user_alert ana v1 10; user_limit_reached ana v1 10",
    );
}

#[test]
fn changing_exclusions_recounts_the_period() {
    let used = r#"plan 100; limits {"default_limit":"10","excluded_features":["voice"]}; by ana 6 voice; by ana 5 chat"#;
    check(&format!(r#"{used}; limits {{"default_limit":"10"}}"#), "user_limit_reached ana v1 11");
    check(&format!(r#"{used}; limits {{"default_limit":"10","excluded_features":["chat"]}}"#), "");
    // Counted again below the limit and back above it: the version has fired.
    check(
        &format!(
            r#"{used}; by ana 5; limits {{"default_limit":"10","excluded_features":["chat","voice"]}};
               limits {{"default_limit":"10"}}"#
        ),
        "user_limit_reached ana v1 10",
    );
}

#[test]
fn a_changed_limit_is_a_new_version_for_whom_it_changes() {
    let reached = r#"plan 100; limits {"default_limit":"10","custom":{"bo":"5"}}; by ana 12; by bo 6"#;
    let fired = "user_limit_reached ana v1 12; user_limit_reached bo v1 6";
    check(reached, fired);
    // The default changes: users with a limit of their own do not fire again.
    check(
        &format!(r#"{reached}; limits {{"default_limit":"11","custom":{{"bo":"5"}}}}"#),
        &format!("{fired}; user_limit_reached ana v2 12"),
    );
    check(
        &format!(r#"{reached}; limits {{"default_limit":"10","custom":{{"bo":"6"}}}}"#),
        &format!("{fired}; user_limit_reached bo v2 6"),
    );
    // Unlimited and back.
    check(
        &format!(
            r#"{reached}; limits {{"default_limit":"10","custom":{{"bo":"unlimited"}}}};
               limits {{"default_limit":"10","custom":{{"bo":"5"}}}}"#
        ),
        &format!("{fired}; user_limit_reached bo v2 6"),
    );
    // Off and on, and who is notified.
    check(
        &format!(
            r#"{reached}; limits {{"enabled":false,"default_limit":"10","custom":{{"bo":"5"}}}};
               limits {{"default_limit":"10","custom":{{"bo":"5"}},"notify":["carl"]}}"#
        ),
        fired,
    );
}

#[test]
fn limits_set_on_usage_that_is_past_fire_at_once_by_user() {
    check(
        r#"plan 100; by dan 20; by cy 3; by bo 7; by ana 30;
           limits {"default_limit":"20","custom":{"bo":"7","cy":"4","ana":"unlimited"}}"#,
        "user_limit_reached bo v1 7; user_limit_reached dan v1 20",
    );
}

#[test]
fn a_limit_of_ones_own_in_place_of_the_default_tells_nothing_twice() {
    let reached = r#"plan 100; limits {"default_limit":"10"}; by ana 12"#;
    let fired = "user_limit_reached ana v1 12";
    check(&format!(r#"{reached}; limits {{"default_limit":"10","custom":{{"ana":"10"}}}}"#), fired);
    check(
        &format!(
            r#"{reached}; limits {{"default_limit":"10","custom":{{"ana":"8"}}}};
               limits {{"default_limit":"10","custom":{{}}}}"#
        ),
        &format!("{fired}; user_limit_reached ana v2 12; user_limit_reached ana v3 12"),
    );
}

#[test]
fn one_users_limit_has_versions_and_edits_as_limits_do() {
    let reached = "plan 100; by ana 12; by bo 12; limit ana 10";
    let fired = "user_limit_reached ana v1 12";
    check(reached, fired);
    check(&format!("{reached}; limit ana 10; limit ana 13"), fired);
    check(&format!("{reached}; limit ana 11"), &format!("{fired}; user_limit_reached ana v2 12"));
    check(
        &format!("{reached}; limit ana unlimited; limit ana 10"),
        &format!("{fired}; user_limit_reached ana v2 12"),
    );
    // Back to the default, which is a limit as any.
    check(
        &format!(r#"{reached}; limits {{"default_limit":"12"}}; limit ana none"#),
        &format!("{fired}; user_limit_reached bo v1 12; user_limit_reached ana v2 12"),
    );
    check(&format!("{reached}; limit ana none; by ana 50"), fired);
}

#[test]
fn nothing_fires_once_an_account_is_closed() {
    check(
        "plan 10; alert a percent_used 75; user-alert {\"threshold\":\"5\"}; limit ana 5; close; settle 9",
        "",
    );
    check("plan 10; topup 5 20; start 1 20; close; declined 1", "");
}

#[test]
fn firings_say_who_is_told_and_how() {
    let script = r#"plan 10; alert a absolute_used 5 "recipients":["carl","dora"],"channels":["webhook"];
        alert b absolute_used 5; user-alert {"threshold":"5","notify_user":true,"recipients":["dora"]};
        limits {"default_limit":"5","notify":["erin"]}; by ana 10"#;
    let firings = watched(script).firings;
    let audience = |kind: Kind, alert: Option<&str>| {
        let of = |firing: &&ledger_core::policy::alert::Firing| {
            firing.kind == kind && firing.alert_id.as_ref().map(AlertId::as_str) == alert
        };
        firings.iter().find(of).expect("a firing").audience.clone()
    };
    let these = |ids: &[&str]| Recipients::These(ids.iter().map(|text| user(text)).collect());
    let a = audience(Kind::OrgAlert, Some("a"));
    assert_eq!(
        (a.recipients, a.channels, a.notify_user),
        (these(&["carl", "dora"]), vec![Channel::Webhook], false)
    );
    let b = audience(Kind::OrgAlert, Some("b"));
    assert_eq!((b.recipients, b.channels), (Recipients::AllAdmins, vec![Channel::Email, Channel::InApp]));
    let user = audience(Kind::UserAlert, None);
    assert_eq!(
        (user.recipients, user.channels, user.notify_user),
        (these(&["dora"]), Channel::ALL.to_vec(), true)
    );
    let limit = audience(Kind::UserLimitReached, None);
    assert_eq!((limit.recipients, limit.notify_user), (these(&["erin"]), false));
    let notice = audience(Kind::CreditBalanceDepleted, None);
    assert_eq!((notice.recipients, notice.channels), (Recipients::AllAdmins, Channel::ALL.to_vec()));
}

#[test]
fn a_firing_names_its_event_threshold_and_period() {
    let script = r#"plan 10; alert a75 percent_used 75; limits {"default_limit":"8"}; by ana 8"#;
    let firings = watched(script).firings;
    let (alert, limit) = (&firings[0], &firings[1]);
    assert_eq!((alert.subject.as_str(), alert.threshold.to_string().as_str()), ("acme", "75"));
    assert_eq!((limit.subject.as_str(), limit.threshold.to_string().as_str()), ("ana", "8"));
    assert_eq!((alert.event_id.as_str(), limit.event_id.as_str()), ("u3", "u3"));
    let acme = AccountId::new("acme").expect("an id");
    let a75 = AlertId::new("a75").expect("an id");
    assert_eq!(
        alert.firing_id,
        firing::firing_id(&acme, Kind::OrgAlert, Some(&a75), 1, &acme.as_subject(), 0)
    );
    assert_eq!(
        limit.firing_id,
        firing::firing_id(&acme, Kind::UserLimitReached, None, 1, &user("ana").as_subject(), 0)
    );
}

#[test]
fn admins_read_their_alerts_with_state_and_version() {
    let states = |script: &str| {
        let watched = watched(script);
        let core = watched.core().expect("an open account");
        serde_json::to_value(watched.watch.alerts(core).collect::<Vec<_>>()).expect("JSON")
    };
    let script = r#"plan 10; alert a75 percent_used 75 "recipients":["carl"],"channels":["email"]; alert b absolute_used 9;
        alert b absolute_used 20; at 2026-01-03T00:00:00Z; use 8"#;
    let a75 = serde_json::json!({
        "alert_id": "a75", "basis": "percent_used", "threshold": "75", "threshold_version": 1, "recipients": ["carl"],
        "channels": ["email"], "state": "fired", "fired_at": "2026-01-03T00:00:00Z",
    });
    let b = serde_json::json!({
        "alert_id": "b", "basis": "absolute_used", "threshold": "20", "threshold_version": 2,
        "recipients": "all_admins", "channels": ["email", "in_app"], "state": "armed", "fired_at": null,
    });
    assert_eq!(states(script), serde_json::json!([a75, b]));
    let next = states(&format!("{script}; {FEBRUARY}"));
    assert_eq!((&next[0]["state"], &next[0]["fired_at"]), (&"armed".into(), &serde_json::Value::Null));
}
