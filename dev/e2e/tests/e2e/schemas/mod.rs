//! The public contract and the code agree on every schema, every frozen sample, every derived id.
#![allow(clippy::unwrap_used, missing_docs)]

mod contract;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use alert_worker::delivery::{About, OutboxRow, event_of};
use ledger_core::event::derive::NAMESPACE;
use ledger_core::event::partition::partition_of;
use ledger_core::event::wire::{decode, encode, schema_path};
use ledger_core::event::{Data, Unit};
use ledger_core::policy::alert::Kind;
use ledger_core::value::time::{Time, Zone};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use contract::{
    Contract, OFFERED, OUTPUTS, all_samples, at, leaves, objects, put, read_by_the_code, samples, text,
};

/// Schema of the firings that the ledger publishes.
const FIRED_SCHEMA: &str = "alert.fired.v1";

#[test]
fn every_event_type_has_a_schema_and_a_sample() {
    let contract = Contract::read();
    let sampled: BTreeSet<String> = samples().into_iter().map(|sample| sample.schema).collect();
    for event_type in Data::TYPES {
        let path = schema_path(event_type);
        let name = path.trim_start_matches("schemas/").trim_end_matches(".json");
        assert!(contract.has(name), "no schema {path}");
        assert!(sampled.contains(name), "no sample of {name}");
    }
    assert!(sampled.contains(OFFERED));
    assert_eq!(sampled.len(), Data::TYPES.len() + 1, "samples of types that are not known: {sampled:?}");
}

#[test]
fn every_field_is_described_in_words() {
    for (name, schema) in Contract::read().schemas {
        let mut stack = vec![(name, schema)];
        while let Some((path, schema)) = stack.pop() {
            let Value::Object(schema) = schema else { continue };
            for (key, part) in schema {
                let path = format!("{path}/{key}");
                if matches!(key.as_str(), "properties" | "$defs") && !path.contains("/if/") {
                    for (field, schema) in part.as_object().unwrap() {
                        let is_described =
                            schema.get("title").is_some() && schema.get("description").is_some();
                        let said_elsewhere = schema.get("const").is_some()
                            || schema
                                .get("$ref")
                                .is_some_and(|to| to.as_str().unwrap().contains("properties"))
                            || path.ends_with(".v1/properties") && field == "time";
                        let narrowed = path.contains("/else/") || path.contains("/anyOf/properties");
                        assert!(
                            is_described || said_elsewhere || narrowed,
                            "{path}/{field} has no title or description"
                        );
                    }
                }
                if !matches!(key.as_str(), "anyOf" | "enum") {
                    stack.push((path, part));
                }
            }
        }
    }
}

#[test]
fn samples_are_frozen() {
    let listed: BTreeMap<String, String> = text("samples/SHA256SUMS")
        .lines()
        .map(|line| line.split_once("  ").unwrap())
        .map(|(sum, path)| (path.to_owned(), sum.to_owned()))
        .collect();
    let found: BTreeMap<String, String> = all_samples()
        .into_iter()
        .map(|sample| (sample.path, hex::encode(Sha256::digest(sample.bytes))))
        .collect();
    assert_eq!(found, listed, "samples are never edited; a new one goes into samples/SHA256SUMS");
}

#[test]
fn every_sample_fits_its_schema_and_decodes_and_is_written_alike() {
    let contract = Contract::read();
    for sample in samples() {
        contract.check_fits(&sample.schema, &sample.json());
        if sample.schema == OFFERED {
            assert_eq!(read_by_the_code(OFFERED, &sample.bytes), Ok(()), "{}", sample.path);
            continue;
        }
        let event = decode(&sample.bytes).unwrap_or_else(|error| panic!("{}: {error}", sample.path));
        let written: Value = serde_json::from_slice(&encode(&event)).unwrap();
        assert_eq!(written, sample.json(), "{}", sample.path);
    }
}

#[test]
fn outputs_fit_their_schema_and_are_written_alike() {
    let contract = Contract::read();
    let outputs = || all_samples().into_iter().filter(|sample| sample.schema == FIRED_SCHEMA);
    assert!(OUTPUTS.contains(&FIRED_SCHEMA) && outputs().count() > 0);
    for sample in outputs() {
        contract.check_fits(&sample.schema, &sample.json());
        let row = OutboxRow {
            account_id: serde_json::from_value(sample.json()["subject"].clone()).unwrap(),
            firing: serde_json::from_value(sample.json()["data"].clone()).unwrap(),
            about: About {
                name: None,
                unit: Unit::Credits,
                timezone: Zone::UTC,
                period_starts_at: Time::MIN,
                period_ends_at: Time::MAX,
                basis: None,
            },
            is_from_before: false,
        };
        let written: Value = serde_json::from_str(&event_of(&row).unwrap()).unwrap();
        assert_eq!(written, sample.json(), "{}", sample.path);
    }
    let sample = outputs().next().unwrap().json();
    for path in leaves(&sample) {
        let mut event = sample.clone();
        put(&mut event, &path, json!([]));
        assert!(!contract.fits(FIRED_SCHEMA, &event), "{path} may be anything");
    }
    for kind in Kind::ALL {
        let mut event = sample.clone();
        event["data"]["kind"] = serde_json::to_value(kind).unwrap();
        contract.check_fits(FIRED_SCHEMA, &event);
    }
}

/// Rules that JSON Schema can't express and the code checks: a zone that exists, a day that exists, an end after a
/// start, how a whole number is written. The values of the tests below are chosen around these.
fn only_the_code_can_decide(path: &str, value: &Value) -> bool {
    path.ends_with("timezone") && value.as_str().is_some_and(|zone| !zone.is_empty())
        || path.ends_with("expires_at")
        || path.ends_with("effective_at")
        || value.as_str().is_some_and(is_longer_in_bytes)
}

/// JSON Schema counts characters alone.
fn is_longer_in_bytes(text: &str) -> bool {
    text.len() > 256 && text.chars().count() <= 256
}

/// Texts, most of which are no valid id, name or time.
const TEXTS: [&str; 66] = [
    "",
    "x",
    "X-1:a",
    "-x",
    "a b",
    "ä",
    "a\u{7}b",
    "a\u{85}b",
    "a\nb",
    "/x",
    "urn:ledger:x",
    "1",
    "-1",
    "0",
    "-0",
    "-0.00",
    "007",
    "1.",
    ".5",
    "+1",
    "1e3",
    " 1",
    "1.123456789",
    "1.1234567891",
    "999999999999999999",
    "1000000000000000000",
    "-999999999999999999.999999999",
    "0.000000000",
    "1,5",
    "٣",
    "unlimited",
    "none",
    "now",
    "usd",
    "test",
    "allow",
    "carry",
    "promo",
    "monthly",
    "plan:1",
    "auth0|64ab",
    "projects/7/calls/9",
    " x",
    "x\u{a0}",
    "x\u{2003}",
    "1.0",
    "2026-02-03",
    "2026-02-03T10:00:00",
    "2026-02-03T10:00:00Z",
    "2026-02-03T10:00:00.1234567Z",
    "2026-02-03t10:00:00z",
    "2026-02-03T10:00:00+01:00",
    "2026-02-03T10:00:00−01:00",
    "2026-02-03 10:00:00Z",
    "2026-02-03T24:00:00Z",
    "2026-02-03T10:00:60Z",
    "2026-02-03T10:00:00+24:00",
    "2026-02-03T10:00:00+0100",
    "2026-02-03T10:00:00+01",
    "2026-13-03T10:00:00Z",
    "2026-00-03T10:00:00Z",
    "2026-02-00T10:00:00Z",
    "2026-02-03T10:00Z",
    "2026-02-03T10:00:00.Z",
    "12026-02-03T10:00:00Z",
    "٢026-02-03T10:00:00Z",
];

fn strange_values() -> Vec<Value> {
    let long = |letter: &str, times: usize| Value::String(letter.repeat(times));
    let mut values =
        vec![json!(null), json!(true), json!(0), json!(7), json!(-1), json!(1.5), json!([]), json!({})];
    values.extend([json!(["a"]), json!({"a": null}), json!({"a": "1"}), json!({"A b": "1"}), json!([{}])]);
    values.extend([json!({"monthly": null}), json!(["capped", "5"]), json!(u64::MAX), json!(1e30)]);
    values.extend(TEXTS.map(Value::from));
    values.extend([64, 65, 128, 129, 256, 257, 1000, 1001].map(|times| long("x", times)));
    values.extend([128, 129, 1000, 1001].map(|times| long("ü", times)));
    let keys = |count: usize| (0..count).map(|n| (format!("k{n}"), json!("1"))).collect::<Value>();
    values.extend([16, 17, 32, 33, 2_000, 2_001].map(keys));
    let list = |count: usize| (0..count).map(|n| json!(format!("k{n}"))).collect::<Value>();
    values.extend([100, 101].map(list));
    values.extend([json!(["a", "a"]), json!(["email", "in_app"]), json!("all_admins")]);
    values.extend([json!({"a": "unlimited"}), json!(false)]);
    values.extend(["0.9", "1.0", "99.9", "100", "100.0", "100.01", "0100", "101"].map(Value::from));
    values
}

/// Checks that schema and code agree, and returns their answer.
fn check_alike(contract: &Contract, schema: &str, event: &Value, what: &str) -> bool {
    let by_schema = contract.fits(schema, event);
    let by_code = read_by_the_code(schema, &serde_json::to_vec(event).unwrap());
    assert_eq!(by_schema, by_code.is_ok(), "{what}: schema fits: {by_schema}, code: {by_code:?}\n{event}");
    by_schema
}

#[test]
fn schema_and_code_judge_every_value_in_every_field_alike() {
    let contract = Contract::read();
    let (values, mut fit, mut refused) = (strange_values(), 0, 0);
    for sample in samples() {
        for path in leaves(&sample.json()) {
            for value in values.iter().filter(|value| !only_the_code_can_decide(&path, value)) {
                let mut event = sample.json();
                put(&mut event, &path, value.clone());
                let what = format!("{} {path} = {value}", sample.path);
                if check_alike(&contract, &sample.schema, &event, &what) { fit += 1 } else { refused += 1 }
            }
        }
    }
    assert!(fit > 1_000 && refused > 10_000, "{fit} fit, {refused} refused");
}

#[test]
fn schema_and_code_require_the_same_fields() {
    let contract = Contract::read();
    let mut required = BTreeSet::new();
    for sample in samples() {
        for path in leaves(&sample.json()) {
            let mut event = sample.json();
            let (parent, field) = path.rsplit_once('/').unwrap();
            let Value::Object(fields) = at(&mut event, parent) else { continue };
            fields.remove(field);
            if !check_alike(&contract, &sample.schema, &event, &format!("{} without {path}", sample.path)) {
                required.insert(format!("{} {path}", sample.schema));
            }
        }
    }
    for expected in [
        "account.opened.v1 /subject",
        "account.opened.v1 /data/plan/allowance",
        "account.opened.v1 /data/plan/cycle",
        "account.opened.v1 /data/plan/rollover/mode",
        "usage.recorded.v1 /recordedat",
        "usage.recorded.v1 /actor",
        "usage.recorded.v1 /data/credits",
        "usage.recorded.v1 /data/lines/0/per",
        "usage.offered.v1 /id",
        "credits.adjusted.v1 /data/reason",
        "usage.reversed.v1 /data/source",
        "period.reset.v1 /data/index",
        "org_alert.set.v1 /data/threshold",
        "org_alert.removed.v1 /data/alert_id",
        "user_alert.set.v1 /data/threshold",
        "auto_top_up.set.v1 /data/payment_method",
        "top_up.started.v1 /data/attempt_id",
        "top_up.failed.v1 /data/reason",
        "credits.topped_up.v1 /data/payment_id",
        "dispute.won.v1 /data/dispute_id",
        "refund.failed.v1 /data/refund_id",
        "user_limit.set.v1 /data/user_id",
        "account.closed.v1 /data/reason",
        "credits.purchased.v1 /data/price/currency",
    ] {
        assert!(required.contains(expected), "{expected} may be left out");
    }
}

#[test]
fn an_unknown_field_is_refused_in_data_and_dropped_in_the_envelope() {
    let contract = Contract::read();
    for sample in samples() {
        for path in objects(&sample.json()) {
            let mut event = sample.json();
            at(&mut event, &path)["surprise"] = json!("1");
            let fits =
                check_alike(&contract, &sample.schema, &event, &format!("{} {path}/surprise", sample.path));
            let open = path.is_empty()
                || path.contains("/metadata")
                || path.ends_with("/quantities")
                || path.ends_with("/custom");
            assert_eq!(fits, open, "{} {path}", sample.path);
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_both() {
    let contract = Contract::read();
    for (sample, path, value) in [
        ("credits.purchased.v1/paid.json", "/data/amount", json!("-5")),
        ("credits.purchased.v1/paid.json", "/data/amount", json!("0")),
        ("credits.granted.v1/with_times.json", "/data/amount", json!("1.0000000001")),
        ("credits.granted.v1/with_times.json", "/data/priority", json!(1001)),
        ("credits.adjusted.v1/taken.json", "/data/amount", json!("0.0")),
        ("credits.adjusted.v1/taken.json", "/data/reason", json!("")),
        ("account.opened.v1/full.json", "/data/plan/allowance", json!("-1")),
        ("account.opened.v1/full.json", "/data/plan/rollover", json!({"mode": "none", "cap": "5"})),
        ("account.opened.v1/full.json", "/data/usd_per_unit", json!("0")),
        ("account.changed.v1/line_moved.json", "/data", json!({"name": null, "overdraft": null})),
        ("usage.recorded.v1/priced.json", "/data/credits", json!("-0.38")),
        ("usage.recorded.v1/priced.json", "/data/quantities/input_tokens", json!(-1)),
        ("usage.recorded.v1/priced.json", "/data/lines/0/per", json!("0")),
        ("usage.recorded.v1/settles_a_hold.json", "/data/held", json!("-1")),
        ("usage.offered.v1/to_price.json", "/source", json!("urn:ledger:api")),
        ("usage.offered.v1/to_price.json", "/data/held", json!("1")),
        ("usage.offered.v1/to_price.json", "/data/lines", json!([])),
        ("usage.offered.v1/to_price.json", "/type", json!("ledger.credits.granted.v1")),
        ("period.reset.v1/monthly.json", "/data/index", json!("1")),
        ("usage.offered.v1/to_price.json", "/id", json!(" e1")),
        ("usage.offered.v1/ids_of_others.json", "/data/model", json!("gpt-4o ")),
        ("usage.offered.v1/ids_of_others.json", "/data/provider", json!(" openai")),
        ("usage.recorded.v1/ids_of_others.json", "/data/user_id", json!("auth0|64ab ")),
        ("usage.recorded.v1/ids_of_others.json", "/data/call_id", json!("")),
        ("credits.granted.v1/with_times.json", "/data/grant_id", json!("a/b")),
        ("credits.purchased.v1/with_price.json", "/data/price/amount", json!("-1")),
        ("credits.purchased.v1/with_price.json", "/data/price/currency", json!("USD")),
        ("account.closed.v1/closed.json", "/data/reason", json!("")),
        ("user_limit.set.v1/set.json", "/data/limit", json!("-1")),
        ("refund.failed.v1/part.json", "/data/amount", json!("0")),
        ("limits.set.v1/full.json", "/data/default_limit", json!("-1")),
        ("limits.set.v1/full.json", "/data/custom/ana", json!("-1")),
        ("limits.set.v1/full.json", "/data/custom/ana", json!(null)),
        ("limits.set.v1/full.json", "/data/excluded_features", json!(["a", "a"])),
        ("limits.set.v1/full.json", "/data/notify", json!(["carl", "carl"])),
        ("org_alert.set.v1/full.json", "/data/threshold", json!("0.9")),
        ("org_alert.set.v1/full.json", "/data/threshold", json!("100.1")),
        ("org_alert.set.v1/percent_remaining.json", "/data/threshold", json!("101")),
        ("org_alert.set.v1/minimal.json", "/data/threshold", json!("-1")),
        ("org_alert.set.v1/full.json", "/data/channels", json!([])),
        ("org_alert.set.v1/full.json", "/data/channels", json!(["email", "email"])),
        ("org_alert.set.v1/full.json", "/data/recipients", json!(["carl", "carl"])),
        ("user_alert.set.v1/minimal.json", "/data/threshold", json!(null)),
        ("user_alert.set.v1/full.json", "/data/enabled", json!("true")),
        ("user_alert.set.v1/minimal.json", "/data/recipients", json!([])),
        ("user_alert.set.v1/only_the_user.json", "/data/notify_user", json!(false)),
        ("auto_top_up.set.v1/full.json", "/data/amount", json!("0")),
        ("auto_top_up.set.v1/full.json", "/data/amount", json!("100000.000000001")),
        ("auto_top_up.set.v1/full.json", "/data/amount", json!(null)),
        ("auto_top_up.set.v1/full.json", "/data/threshold", json!("-1")),
        ("auto_top_up.set.v1/full.json", "/data/max_per_period", json!(0)),
        ("auto_top_up.set.v1/full.json", "/data/max_per_period", json!("5")),
        ("auto_top_up.set.v1/full.json", "/data/max_amount_per_period", json!("0")),
        ("auto_top_up.set.v1/off.json", "/data/enabled", json!(true)),
        ("top_up.refused.v1/by_count.json", "/data/reason", json!("max")),
        ("top_up.failed.v1/declined.json", "/data/reason", json!("")),
        ("dispute.opened.v1/part.json", "/data/amount", json!("0")),
    ] {
        let sample = samples().into_iter().find(|found| found.path == sample).expect(sample);
        let mut event = sample.json();
        put(&mut event, path, value.clone());
        assert!(!check_alike(&contract, &sample.schema, &event, path), "{} {path} = {value}", sample.path);
    }
}

#[test]
fn what_json_schema_cannot_say_the_code_refuses() {
    let sample = |path: &str| samples().into_iter().find(|sample| sample.path == path).expect(path).json();
    for (path, field, value) in [
        ("account.opened.v1/full.json", "/data/plan/timezone", json!("Mars/One")),
        ("account.opened.v1/full.json", "/data/plan/anchor", json!("2026-02-30T00:00:00Z")),
        ("account.opened.v1/full.json", "/time", json!("0000-01-01T00:00:00Z")),
        ("credits.granted.v1/with_times.json", "/data/expires_at", json!("2026-02-15T12:00:00Z")),
        ("credits.granted.v1/with_times.json", "/data/priority", json!(30.0)),
        ("usage.recorded.v1/priced.json", "/data/quantities/input_tokens", json!(1e17)),
        ("usage.recorded.v1/priced.json", "/data/user_id", json!("ü".repeat(129))),
        ("usage.recorded.v1/priced.json", "/data/model", json!("ü".repeat(129))),
    ] {
        let mut event = sample(path);
        put(&mut event, field, value);
        let schema = path.split_once('/').unwrap().0;
        assert!(read_by_the_code(schema, &serde_json::to_vec(&event).unwrap()).is_err(), "{path} {field}");
        assert!(Contract::read().fits(schema, &event), "{path} {field}: the schema can tell");
    }
}

/// Rows of README tables whose first two cells are code: `| `name` | `value` |`.
fn readme_rows(prefix: &str) -> Vec<(String, String)> {
    let readme = text("README.md");
    let rows = readme.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split("` | `");
        let (name, value) = (cells.next()?, cells.next()?.split('`').next()?);
        Some((name.to_owned(), value.to_owned()))
    });
    rows.filter(|(name, _)| name.starts_with(prefix)).collect()
}

#[test]
fn the_readme_names_the_namespace_and_derives_ids_as_the_code_does() {
    assert!(text("README.md").contains(&NAMESPACE.to_string()));
    let payments = ["dispute_opened/", "dispute_won/", "refunded/", "refund_failed/"];
    let top_ups = ["attempt/", "topped_up/", "top_up_failed/", "top_up_refused/"];
    let others = ["reset/", "tick/", "open/", "close/", "reversal/", "void/", "firing/", "notice/"];
    for kind in others.into_iter().chain(top_ups).chain(payments) {
        let rows = readme_rows(kind);
        assert!(!rows.is_empty(), "no example of {kind}");
        for (name, id) in rows {
            assert_eq!(Uuid::new_v5(&NAMESPACE, name.as_bytes()).to_string(), id, "{name}");
        }
    }
}

#[test]
fn the_readme_puts_accounts_where_the_code_does() {
    let rows = readme_rows("key=");
    assert!(rows.len() >= 3);
    for (name, partition) in rows {
        let key = name.trim_start_matches("key=");
        assert_eq!(
            partition_of(key.as_bytes(), NonZeroU32::new(32).unwrap()).to_string(),
            partition,
            "{key}"
        );
    }
}
