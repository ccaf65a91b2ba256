//! OpenAPI: the document that describes these writes, `openapi.json` next to the manifest.

use serde_json::Value;

pub fn openapi() -> Value {
    let mut document: Value = serde_json::from_str(include_str!("../openapi.json"))
        .expect("the document is JSON, as its test says");
    document["info"]["version"] = Value::from(env!("CARGO_PKG_VERSION"));
    document
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ledger_core::fold::Reason;

    use super::*;

    #[test]
    fn every_reason_of_the_fold_is_named() {
        let document = openapi();
        let refused = document["components"]["responses"]["Refused"]["description"].as_str().expect("a text");
        for reason in Reason::ALL {
            assert!(refused.contains(reason.code()), "{}", reason.code());
        }
    }

    /// Returns a schema of the event contract, by its file's name.
    fn contract(file: &str) -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas").join(file);
        serde_json::from_slice(&std::fs::read(path).expect("a schema")).expect("JSON")
    }

    /// Returns a part of the event contract for this document: common types become references to its components, and
    /// parts of other files are inlined.
    fn as_said_here(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                match map.get("$ref").and_then(Value::as_str).and_then(|to| to.split_once('#')) {
                    Some((file, pointer)) if !file.is_empty() && !file.starts_with("common.") => {
                        as_said_here(contract(file).pointer(pointer).expect("a part of the contract"))
                    }
                    _ => map.iter().map(|(name, value)| (name.clone(), said_of(name, value))).collect(),
                }
            }
            Value::Array(list) => list.iter().map(as_said_here).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        }
    }

    fn said_of(name: &str, value: &Value) -> Value {
        let common = value.as_str().and_then(|to| to.split_once("#/$defs/"));
        match common {
            Some((_, of)) if name == "$ref" => Value::from(format!("#/components/schemas/{of}")),
            _ => as_said_here(value),
        }
    }

    /// Fields of an event's data that the path carries, not the body.
    /// Or that only the ledger sets.
    const NOT_IN_BODY: [&str; 2] = ["alert_id", "refund_id"];
    /// The schema keywords for rules between fields.
    const RULES: [&str; 6] = ["if", "then", "else", "anyOf", "oneOf", "allOf"];

    /// A field of a body that never enters the journal.
    const BESIDE_EVENT: &str = "payment_customer";

    /// Returns a rule without the alternative that is about no event.
    fn of_event(rule: &Value) -> Value {
        let Value::Array(alternatives) = rule else { return rule.clone() };
        let beside = serde_json::json!({"required": [BESIDE_EVENT]});
        alternatives.iter().filter(|alternative| **alternative != beside).cloned().collect()
    }

    #[test]
    fn a_body_says_what_its_event_says() {
        let document = openapi();
        let components = &document["components"]["schemas"];
        for (name, schema) in contract("common.v1.json")["$defs"].as_object().expect("definitions") {
            // Only the ledger writes lines.
            if name != "price_line" {
                assert_eq!(components[name], as_said_here(schema), "{name}");
            }
        }
        let bodies = [
            ("OpenAccount", "account.opened"),
            ("ChangeAccount", "account.changed"),
            ("ChangePlan", "plan.changed"),
            ("AdvanceClock", "clock.advanced"),
            ("CloseAccount", "account.closed"),
            ("NewGrant", "credits.granted"),
            ("Adjustment", "credits.adjusted"),
            ("Purchase", "credits.purchased"),
            ("Refund", "credits.refunded"),
            ("Usage", "usage.offered"),
            ("SetLimits", "limits.set"),
            ("SetOrgAlert", "org_alert.set"),
            ("SetUserAlert", "user_alert.set"),
            ("SetAutoTopUp", "auto_top_up.set"),
        ];
        for (name, event) in bodies {
            let event = as_said_here(&contract(&format!("{event}.v1.json"))["properties"]["data"]);
            let body = &components[name];
            let said = |field: &&String| !NOT_IN_BODY.contains(&field.as_str());
            for field in event["properties"].as_object().expect("fields").keys().filter(said) {
                let schema = &event["properties"][field];
                assert_eq!(&body["properties"][field], schema, "{name}.{field}");
            }
            assert_eq!(body["additionalProperties"], false, "{name}");
            for rule in RULES {
                assert_eq!(of_event(&body[rule]), event[rule], "{name}.{rule}");
            }
            let required = event["required"].as_array().into_iter().flatten();
            let required = required.filter(|field| !NOT_IN_BODY.iter().any(|other| *field == *other));
            for field in required {
                assert!(
                    body["required"].as_array().is_some_and(|all| all.contains(field)),
                    "{name}: {field}"
                );
            }
        }
    }
}
