//! OpenAPI: merges the documents of the write side and the read side. `ledger openapi` writes the result.

use std::io::{self, Write};

use serde_json::Value;
use web::openapi::{merge, to_3_0};

/// Which document to write.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Openapi {
    /// By OpenAPI 3.0.3, for generators that don't read 3.1.
    #[arg(long)]
    older: bool,
}

/// Writes the document of the whole ledger.
pub fn write(which: Openapi, out: &mut impl Write) -> io::Result<()> {
    let document = if which.older { to_3_0(&merged()) } else { merged() };
    writeln!(out, "{document:#}")
}

/// Returns the whole HTTP contract, merged from the services' documents.
pub fn merged() -> Value {
    let mut document = command_api::openapi();
    merge(&mut document, query_api::openapi());
    document
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use serde_json::json;

    /// Calls `visit` with every object of a document and its place, but for examples, which are data.
    fn each_object<'a>(value: &'a Value, place: &str, visit: &mut dyn FnMut(&str, &'a Value)) {
        match value {
            Value::Object(fields) => {
                visit(place, value);
                for (name, field) in
                    fields.iter().filter(|(name, _)| *name != "example" && *name != "examples")
                {
                    each_object(field, &format!("{place}/{}", name.replace('/', "~1")), visit);
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    each_object(item, &format!("{place}/{at}"), visit);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn operations(document: &Value) -> Vec<(String, &Value)> {
        let paths = document["paths"].as_object().expect("paths");
        let all = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("methods");
            methods.iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
        });
        all.collect()
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for document in [command_api::openapi(), query_api::openapi(), merged(), to_3_0(&merged())] {
            let mut found = BTreeSet::new();
            each_object(&document, "", &mut |_, object| {
                found.extend(object["$ref"].as_str());
            });
            assert!(found.len() > 20);
            for reference in found {
                let pointer = reference.trim_start_matches('#');
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
        }
    }

    #[test]
    fn what_both_sides_name_alike_is_alike() {
        let (writes, reads) = (command_api::openapi(), query_api::openapi());
        for kind in ["responses", "schemas", "securitySchemes"] {
            for (name, said) in writes["components"][kind].as_object().into_iter().flatten() {
                let other = &reads["components"][kind][name];
                assert!(other.is_null() || other == said, "{kind}/{name}: {said:#} and {other:#}");
            }
        }
        let both = |document: &Value| -> BTreeMap<String, Value> {
            operations(document).into_iter().map(|(route, operation)| (route, operation.clone())).collect()
        };
        let (writes, reads) = (both(&writes), both(&reads));
        for (route, operation) in writes.iter().filter(|(route, _)| reads.contains_key(*route)) {
            assert_eq!(operation, &reads[route], "{route}");
        }
    }

    #[test]
    fn a_path_of_both_sides_keeps_both_methods() {
        let document = merged();
        let accounts = &document["paths"]["/v1/accounts"];
        assert!(accounts["get"].is_object() && accounts["post"].is_object());
    }

    /// Whether a name is a verb in lower case and a noun behind it.
    fn is_verb_noun(name: &str) -> bool {
        let verb = name.find(|letter: char| !letter.is_ascii_lowercase()).unwrap_or_default();
        verb > 1
            && name[verb..].starts_with(|letter: char| letter.is_ascii_uppercase())
            && name.chars().all(|letter| letter.is_ascii_alphanumeric())
    }

    #[test]
    fn each_operation_has_a_name_a_sentence_and_an_answer_to_whatever_it_refuses() {
        let document = merged();
        let mut names = BTreeSet::new();
        for (route, operation) in operations(&document) {
            let name = operation["operationId"].as_str().expect("a name");
            assert!(is_verb_noun(name), "{route}: {name}");
            assert!(names.insert(name.to_lowercase()), "{route}: {name} names two operations");
            let summary = operation["summary"].as_str().expect("a sentence");
            assert!(summary.len() > 10 && summary.ends_with('.'), "{route}: {summary}");
            let listed = document["tags"].as_array().expect("tags");
            assert!(listed.iter().any(|tag| tag["name"] == operation["tags"][0]), "{route}");
            assert_eq!(
                operation["responses"]["default"]["$ref"], "#/components/responses/Refused",
                "{route}"
            );
            // CSV, lines of JSON and events are operations of their own.
            for (status, answer) in operation["responses"].as_object().expect("answers") {
                let content = answer["content"].as_object();
                assert!(content.is_none_or(|content| content.len() == 1), "{route}: {status}");
            }
        }
        assert!(names.len() > 70, "{}", names.len());
        assert_eq!(document["servers"][0]["url"], "/");
    }

    #[test]
    fn generators_of_clients_can_read_every_schema() {
        let document = merged();
        let null = json!({"type": "null"});
        let mut faults = Vec::new();
        each_object(&document, "", &mut |place, schema| {
            let mut refuse = |bad: bool, why: &str| {
                if bad {
                    faults.push(format!("{place}: {why}: {schema}"));
                }
            };
            // What a field is called is no keyword.
            if place.ends_with("/properties") {
                let mut fields = schema.as_object().into_iter().flatten();
                refuse(fields.any(|(_, field)| field.is_boolean()), "a field whose schema is no object");
                return;
            }
            refuse(schema["type"].is_array(), "a list of types");
            for keyword in ["const", "propertyNames", "prefixItems", "patternProperties"] {
                refuse(!schema[keyword].is_null(), keyword);
            }
            let has_null = |list: &Value| list.as_array().is_some_and(|list| list.contains(&Value::Null));
            refuse(has_null(&schema["enum"]), "null as a word");
            if let Some(choices) = schema["anyOf"].as_array().filter(|choices| choices.contains(&null)) {
                refuse(
                    choices.len() != 2 || choices[0]["$ref"].is_null(),
                    "null beside other than one reference",
                );
            }
            let names = place.strip_prefix("/components/schemas/").map(|rest| rest.split('/').count());
            let is_object = schema["type"] == "object" || schema["properties"].is_object();
            refuse(is_object && names != Some(1), "an object without a name");
            refuse(schema["format"] == "decimal" && schema["type"] != "string", "an amount that is no text");
        });
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        let mut names = BTreeSet::new();
        for name in document["components"]["schemas"].as_object().expect("schemas").keys() {
            assert!(name.starts_with(|letter: char| letter.is_ascii_uppercase()), "{name}");
            assert!(names.insert(name.to_lowercase()), "{name} differs from another by case alone");
            let is_second = name.ends_with(|last: char| last.is_ascii_digit());
            assert!(!is_second, "two types want the name of {name}");
        }
        for name in ["Amount", "Dollars"] {
            let schema = &document["components"]["schemas"][name];
            assert_eq!((&schema["type"], &schema["format"]), (&json!("string"), &json!("decimal")), "{name}");
        }
    }

    #[test]
    fn every_example_fits_its_schema() {
        let document = merged();
        let mut checked = 0;
        for (route, operation) in operations(&document) {
            let request = operation["requestBody"]["content"].as_object().into_iter().flatten();
            let answers = operation["responses"].as_object().into_iter().flatten();
            let answers = answers.flat_map(|(_, answer)| answer["content"].as_object().into_iter().flatten());
            for (media_type, content) in request.chain(answers).filter(|(_, it)| !it["example"].is_null()) {
                let mut whole = content["schema"].clone();
                whole["components"] = document["components"].clone();
                whole["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
                let validator = jsonschema::validator_for(&whole).expect("a schema");
                let faults: Vec<String> = validator
                    .iter_errors(&content["example"])
                    .map(|fault| format!("{}: {fault}", fault.instance_path()))
                    .collect();
                assert!(faults.is_empty(), "{route} {media_type}: {}", faults.join("; "));
                checked += 1;
            }
        }
        assert!(checked > 60, "{checked} examples");
    }
}
