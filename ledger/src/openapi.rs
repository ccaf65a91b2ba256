//! OpenAPI: merges the documents of the write side and the read side.

use serde_json::Value;
use web::http::merge_documents;

/// Returns the whole HTTP contract, merged from the services' documents.
pub fn merged() -> Value {
    let mut document = command_api::openapi();
    merge_documents(&mut document, query_api::openapi());
    document
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(map) => {
                if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                    found.insert(reference);
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for document in [command_api::openapi(), query_api::openapi(), merged()] {
            assert_eq!(document["openapi"], "3.1.0");
            let mut found = BTreeSet::new();
            references(&document, &mut found);
            assert!(!found.is_empty());
            for reference in found {
                let pointer = reference.trim_start_matches('#');
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
        }
    }

    #[test]
    fn what_both_sides_name_alike_is_alike() {
        let (writes, reads) = (command_api::openapi(), query_api::openapi());
        for kind in ["parameters", "responses", "schemas", "headers", "securitySchemes"] {
            for (name, said) in writes["components"][kind].as_object().into_iter().flatten() {
                let other = &reads["components"][kind][name];
                assert!(other.is_null() || other == said, "{kind}/{name}");
            }
        }
    }

    #[test]
    fn a_path_of_both_sides_keeps_both_methods() {
        let document = merged();
        let accounts = &document["paths"]["/v1/accounts"];
        assert!(accounts["get"].is_object() && accounts["post"].is_object());
    }
}
