//! Version 1 of the events has frozen bounds, independent of what the API accepts today.

use ledger_core::event::field_error::FieldError;
use ledger_core::event::rules_v1::{BOUNDS, Bounds, JSON_DEPTH_MAX, RECORD_BYTES_MAX, Rules};
use ledger_core::event::{Grant, SetAutoTopUp, SetLimits, SetOrgAlert, Usage, wire};
use ledger_core::request;
use ledger_core::value::credits::Credits;
use serde::de::DeserializeOwned;

/// An event as it is in the journal.
fn record(event: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"e1","source":"/app","type":"ledger.{event}.v1","subject":"acme",
            "time":"2026-02-03T10:00:00Z","recordedat":"2026-02-03T10:00:00Z","actor":"key_1","data":{data}}}"#
    )
}

/// The journal holds `last`, and `past` is no event.
fn check(event: &str, last: &str, past: &str) {
    let read = wire::decode(record(event, last).as_bytes());
    assert!(read.is_ok(), "{event} {last}: {read:?}");
    let read = wire::decode(record(event, past).as_bytes());
    assert!(read.is_err(), "{event} {past}: {read:?}");
}

/// An object of `count` names.
fn object(name: &str, count: usize, value: &str) -> String {
    let pairs: Vec<_> = (1..=count).map(|n| format!(r#""k{n}":{value}"#)).collect();
    format!(r#""{name}":{{{}}}"#, pairs.join(","))
}

fn list(name: &str, count: usize) -> String {
    let items: Vec<_> = (1..=count).map(|n| format!(r#""k{n}""#)).collect();
    format!(r#""{name}":[{}]"#, items.join(","))
}

#[test]
fn the_bounds_of_version_1_are_these_numbers() {
    let frozen = Bounds {
        metadata_keys_max: 16,
        quantities_max: 32,
        priority_max: 1_000,
        custom_limits_max: 2_000,
        excluded_features_max: 100,
        recipients_max: 100,
        top_up_max: Credits::whole(100_000),
        top_ups_per_period_max: 1_000,
    };
    assert_eq!(BOUNDS, frozen);
    assert_eq!((RECORD_BYTES_MAX, JSON_DEPTH_MAX), (65_536, 8));
}

#[test]
fn an_event_at_a_bound_is_read_and_one_past_it_is_none() {
    let usage = |field: String| format!(r#"{{"credits":"1",{field}}}"#);
    let metadata = |count| usage(object("metadata", count, "1"));
    check("usage.recorded", &metadata(16), &metadata(17));
    let quantities = |count| usage(object("quantities", count, "1"));
    check("usage.recorded", &quantities(32), &quantities(33));

    let grant =
        |priority: i32| format!(r#"{{"grant_id":"g","source":"promo","amount":"1","priority":{priority}}}"#);
    check("credits.granted", &grant(1_000), &grant(1_001));
    check("credits.granted", &grant(0), &grant(-1));

    let custom = |count| format!("{{{}}}", object("custom", count, r#""1""#));
    check("limits.set", &custom(2_000), &custom(2_001));
    let features = |count| format!("{{{}}}", list("excluded_features", count));
    check("limits.set", &features(100), &features(101));
    let notified = |count| format!("{{{}}}", list("notify", count));
    check("limits.set", &notified(100), &notified(101));
    let alert = |count| {
        format!(r#"{{"alert_id":"a","basis":"absolute_used","threshold":"1",{}}}"#, list("recipients", count))
    };
    check("org_alert.set", &alert(100), &alert(101));
    let user_alert = |count| format!(r#"{{"threshold":"1",{}}}"#, list("recipients", count));
    check("user_alert.set", &user_alert(100), &user_alert(101));
    let percent = |least: &str| format!(r#"{{"alert_id":"a","basis":"percent_used","threshold":"{least}"}}"#);
    check("org_alert.set", &percent("100"), &percent("100.000000001"));
    check("org_alert.set", &percent("1"), &percent("0.999999999"));

    let top_up = |amount: &str| format!(r#"{{"amount":"{amount}"}}"#);
    check("auto_top_up.set", &top_up("100000"), &top_up("100000.000000001"));
    let often = |count: u32| format!(r#"{{"max_per_period":{count}}}"#);
    check("auto_top_up.set", &often(1_000), &often(1_001));
    check("auto_top_up.set", &often(1), &often(0));
}

#[test]
fn names_and_amounts_of_an_event_keep_their_lengths() {
    let usage =
        |field: &str, length: usize| format!(r#"{{"credits":"1","{field}":"{}"}}"#, "a".repeat(length));
    for field in ["user_id", "message_id", "call_id", "model"] {
        check("usage.recorded", &usage(field, 256), &usage(field, 257));
    }
    check("usage.recorded", &usage("feature", 128), &usage("feature", 129));
    check("usage.recorded", &usage("category", 64), &usage("category", 65));
    let adjust = |length: usize| format!(r#"{{"amount":"1","reason":"{}"}}"#, "a".repeat(length));
    check("credits.adjusted", &adjust(1_000), &adjust(1_001));
    let amount = |text: &str| format!(r#"{{"amount":"{text}","reason":"r"}}"#);
    check("credits.adjusted", &amount("999999999999999999.999999999"), &amount("1000000000000000000"));
    check("credits.adjusted", &amount("0.000000001"), &amount("0.0000000001"));
}

#[test]
fn a_record_keeps_its_size_and_its_depth() {
    let metadata = |value: String| format!(r#"{{"credits":"1","metadata":{{"k":{value}}}}}"#);
    // The envelope, its data and the metadata are three levels.
    let nested = |depth: usize| metadata(format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    check("usage.recorded", &nested(5), &nested(6));

    let filled = |length: usize| metadata(format!(r#""{}""#, "x".repeat(length)));
    let room = 65_536 - record("usage.recorded", &filled(0)).len();
    check("usage.recorded", &filled(room), &filled(room + 1));
}

/// At its bound a body is read from the journal, though an API with lower limits refuses it.
fn check_lowered<T: Rules + DeserializeOwned>(event: &str, data: &str, lowered: &Bounds, expected: &str) {
    let body: T = serde_json::from_str(data).expect("a body");
    let broken = |bounds: &Bounds| {
        let mut errors = Vec::new();
        body.check_within(bounds, &mut errors);
        let named = |error: &FieldError| format!("{} {}: {}", error.field, error.code, error.detail);
        errors.iter().map(named).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(broken(&BOUNDS), "", "{data}");
    assert_eq!(broken(lowered), expected, "{data}");
    assert!(lowered.is_within(&BOUNDS) && !BOUNDS.is_within(lowered), "{lowered:?}");
    let read = wire::decode(record(event, data).as_bytes());
    assert!(read.is_ok(), "{event} {data}: {read:?}");
}

#[test]
fn a_lowered_limit_of_the_front_door_makes_no_recorded_event_unreadable() {
    check_lowered::<SetAutoTopUp>(
        "auto_top_up.set",
        r#"{"amount":"100000"}"#,
        &Bounds { top_up_max: Credits::whole(500), ..BOUNDS },
        "amount out_of_range: must be at most 500",
    );
    check_lowered::<SetAutoTopUp>(
        "auto_top_up.set",
        r#"{"max_per_period":1000}"#,
        &Bounds { top_ups_per_period_max: 5, ..BOUNDS },
        "max_per_period out_of_range: must be 1 to 5",
    );
    check_lowered::<Usage>(
        "usage.recorded",
        &format!(r#"{{"credits":"1",{},{}}}"#, object("metadata", 16, "1"), object("quantities", 32, "1")),
        &Bounds { metadata_keys_max: 8, quantities_max: 31, ..BOUNDS },
        "metadata too_many: has at most 8 keys, quantities too_many: has at most 31 names",
    );
    check_lowered::<Grant>(
        "credits.granted",
        r#"{"grant_id":"g","source":"promo","amount":"1","priority":1000}"#,
        &Bounds { priority_max: 100, ..BOUNDS },
        "priority out_of_range: must be 0 to 100",
    );
    check_lowered::<SetLimits>(
        "limits.set",
        &format!("{{{},{}}}", object("custom", 2_000, r#""1""#), list("excluded_features", 100)),
        &Bounds { custom_limits_max: 10, excluded_features_max: 1, ..BOUNDS },
        "custom too_many: has at most 10 users, excluded_features too_many: has at most 1 features",
    );
    check_lowered::<SetOrgAlert>(
        "org_alert.set",
        &format!(r#"{{"alert_id":"a","basis":"absolute_used","threshold":"1",{}}}"#, list("recipients", 100)),
        &Bounds { recipients_max: 99, ..BOUNDS },
        "recipients out_of_range: must be \"all_admins\" or 1 to 99 ids",
    );
}

#[test]
fn a_caller_is_held_to_more_than_the_journal() {
    let above = r#"{"threshold":"2","amount":"1"}"#;
    let refused = request::read::<SetAutoTopUp>(serde_json::from_str(above).expect("JSON"));
    assert_eq!(refused.expect_err("above the amount")[0].code, "above_amount");
    assert!(wire::decode(record("auto_top_up.set", above).as_bytes()).is_ok());
    let ours = r#"{"grant_id":"welcome:acme","source":"welcome","amount":"1"}"#;
    let refused = request::read::<Grant>(serde_json::from_str(ours).expect("JSON"));
    assert_eq!(refused.expect_err("an id of the ledger's")[0].code, "reserved_id");
    assert!(wire::decode(record("credits.granted", ours).as_bytes()).is_ok());
}
