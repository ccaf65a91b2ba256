//! OpenAPI: the document that describes these writes, made from their routes.

use serde_json::Value;
use web::openapi::{About, document};

use crate::routes::routes;

const ABOUT: About = About {
    title: "Credit ledger",
    description: "Usage, credits, plans and settings of accounts go into an append-only journal; balances, usage and history are read from it. A write is answered once every in-sync replica has it and, unless `wait=false`, once it is projected. Sending the same again is always safe.",
    examples: include_str!("../examples.json"),
};

pub fn openapi() -> Value {
    document(ABOUT, &routes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use ledger_core::fold::Reason;

    use super::*;

    #[test]
    fn every_reason_of_the_fold_is_named() {
        let document = openapi();
        let said =
            document["components"]["schemas"]["Problem"]["properties"]["code"]["description"].to_string();
        for reason in Reason::ALL {
            assert!(said.contains(reason.code()), "{}", reason.code());
        }
    }

    /// Returns a schema of the event contract, by its file's name.
    fn contract(file: &str) -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas").join(file);
        serde_json::from_slice(&std::fs::read(path).expect("a schema")).expect("JSON")
    }

    /// Follows a reference to another file of the event contract.
    fn followed(schema: &Value) -> Value {
        match schema["$ref"].as_str().and_then(|to| to.split_once('#')) {
            Some((file, pointer)) if !file.is_empty() && !file.starts_with("common.") => {
                followed(contract(file).pointer(pointer).expect("a part of the contract"))
            }
            _ => schema.clone(),
        }
    }

    /// Fields of an event's data that the path carries, not the body; or that only the ledger sets.
    const NOT_IN_BODY: [&str; 2] = ["alert_id", "refund_id"];
    /// Fields of a body that are not in the event's data: they stand in its envelope, or beside the journal.
    const NOT_IN_EVENT: [&str; 5] = ["account_id", "payment_customer", "id", "source", "occurred_at"];

    fn fields_of(schema: &Value, without: &[&str]) -> BTreeSet<String> {
        let fields = schema["properties"].as_object().expect("fields").iter();
        // Only the ledger sets a field that must be null.
        let fields = fields.filter(|(_, schema)| schema["type"] != "null").map(|(field, _)| field);
        fields.filter(|field| !without.contains(&field.as_str())).cloned().collect()
    }

    fn required_of(schema: &Value, without: &[&str]) -> BTreeSet<String> {
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        required.filter(|field| !without.contains(field)).map(str::to_owned).collect()
    }

    /// A body has the fields of its event, requires the same of them, and says something of each.
    fn check(body: &Value, event: &Value, name: &str) {
        let is_beside = |field: &&&str| event["properties"][**field].is_null();
        let beside: Vec<&str> = NOT_IN_EVENT.iter().filter(is_beside).copied().collect();
        assert_eq!(fields_of(body, &beside), fields_of(event, &NOT_IN_BODY), "{name}");
        assert_eq!(required_of(body, &beside), required_of(event, &NOT_IN_BODY), "{name}");
        assert_eq!(body["additionalProperties"], false, "{name}");
        for field in fields_of(event, &NOT_IN_BODY) {
            let said = followed(&event["properties"][&field])["description"].clone();
            let said_here = &body["properties"][&field]["description"];
            assert!(said_here.is_string(), "{name}.{field} says nothing: {said}");
        }
    }

    #[test]
    fn a_body_has_the_fields_of_its_event() {
        let document = openapi();
        let components = &document["components"]["schemas"];
        check(&components["NewPlan"], &contract("common.v1.json")["$defs"]["plan"], "NewPlan");
        for (name, event) in [
            ("NewAccount", "account.opened"),
            ("AccountChange", "account.changed"),
            ("PlanChange", "plan.changed"),
            ("ClockAdvance", "clock.advanced"),
            ("AccountClosing", "account.closed"),
            ("NewGrant", "credits.granted"),
            ("Adjustment", "credits.adjusted"),
            ("Purchase", "credits.purchased"),
            ("Refund", "credits.refunded"),
            ("Usage", "usage.offered"),
            ("PlainUsage", "usage.offered"),
            ("NewLimits", "limits.set"),
            ("NewAlert", "org_alert.set"),
            ("NewUserAlert", "user_alert.set"),
            ("NewAutoTopUp", "auto_top_up.set"),
        ] {
            let event = followed(&contract(&format!("{event}.v1.json"))["properties"]["data"]);
            check(&components[name], &event, name);
        }
    }
}
