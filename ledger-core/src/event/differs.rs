//! Where the content of two events differs: what a conflict answers with.

use serde_json::{Map, Value};

use crate::event::key::as_sent;
use crate::event::{Data, Event};

/// Returns the paths, as in a CloudEvent, of the fields in which the content of two events differs; no values.
pub fn differs(first: &Event, other: &Event) -> Vec<String> {
    let mut paths = Vec::new();
    if first.data.type_name() != other.data.type_name() {
        paths.push("type".to_owned());
    }
    if matches!(first.data, Data::UsageRecorded(_)) && first.occurred_at != other.occurred_at {
        paths.push("time".to_owned());
    }
    let envelope = paths.len();
    compare("data", &object(&first.data), &object(&other.data), &mut paths);
    paths[envelope..].sort_unstable();
    paths
}

fn object(data: &Data) -> Map<String, Value> {
    serde_json::from_slice(&as_sent(data)).unwrap_or_default()
}

fn compare(path: &str, first: &Map<String, Value>, other: &Map<String, Value>, paths: &mut Vec<String>) {
    let names = first.keys().chain(other.keys().filter(|name| !first.contains_key(*name)));
    for name in names {
        let path = format!("{path}.{name}");
        match (first.get(name), other.get(name)) {
            (Some(Value::Object(first)), Some(Value::Object(other))) => compare(&path, first, other, paths),
            (first, other) if first != other => paths.push(path),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::wire::decode;

    fn check(first: &str, other: &str, expected: &[&str]) {
        let event = |text: &str| {
            let (time, data) = text.split_once(' ').expect("a time and data");
            let record = format!(
                r#"{{"specversion":"1.0","id":"e","source":"/app","type":"ledger.usage.recorded.v1","subject":"acme",
                "time":"{time}","recordedat":"2026-02-03T10:00:00Z","actor":"k","data":{data}}}"#
            );
            decode(record.as_bytes()).expect("an event")
        };
        assert_eq!(differs(&event(first), &event(other)), expected, "{first} | {other}");
    }

    #[test]
    fn a_conflict_names_the_fields_that_differ_as_they_were_sent() {
        let first = r#"2026-02-03T10:00:00Z {"credits":"1","model":"a","quantities":{"x":"1","y":"2"}}"#;
        check(first, &first.replace("\"1\"", "\"1.0\""), &[]);
        check(first, &first.replace("10:00:00", "10:00:01"), &["time"]);
        check(first, &first.replace("\"a\"", "\"b\""), &["data.model"]);
        check(first, &first.replace("\"2\"", "\"3\""), &["data.quantities.y"]);
        check(
            first,
            r#"2026-02-03T10:00:00Z {"credits":"2","user_id":"ana"}"#,
            &["data.credits", "data.model", "data.quantities", "data.user_id"],
        );
    }
}
