//! OpenAPI: the document that describes these reads, `openapi.json` beside the manifest.

use serde_json::Value;

/// Returns the OpenAPI 3.1 document of the reads.
pub fn openapi() -> Value {
    let mut document: Value = serde_json::from_str(include_str!("../openapi.json"))
        .expect("the document is JSON, as its test says");
    document["info"]["version"] = Value::from(env!("CARGO_PKG_VERSION"));
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
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = openapi();
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
