//! OpenAPI 3.0.3: the same document for generators that don't read 3.1.

use serde_json::{Map, Value, json};

/// Keywords whose values are data and no schemas.
const DATA: [&str; 4] = ["default", "enum", "example", "examples"];
const LICENSE_URL: &str = "https://www.apache.org/licenses/LICENSE-2.0";

/// Returns a document of OpenAPI 3.1 in the words of 3.0.3.
pub fn to_3_0(document: &Value) -> Value {
    let mut document = document.clone();
    rewrite(&mut document);
    document["openapi"] = "3.0.3".into();
    if let Some(license) = document.pointer_mut("/info/license") {
        *license = json!({"name": license["name"], "url": LICENSE_URL});
    }
    document
}

fn rewrite(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(rewrite),
        Value::Object(keywords) => {
            for (keyword, value) in keywords.iter_mut() {
                if DATA.contains(&keyword.as_str()) {
                    continue;
                }
                // The names of fields are no keywords.
                match value.as_object_mut().filter(|_| keyword == "properties") {
                    Some(fields) => fields.values_mut().for_each(rewrite),
                    None => rewrite(value),
                }
            }
            null_to_nullable(keywords);
            wrap_reference(keywords);
            one_example(keywords);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `anyOf` a schema and null becomes that schema, `nullable`.
fn null_to_nullable(keywords: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = keywords.get_mut("anyOf") else { return };
    let before = choices.len();
    choices.retain(|choice| *choice != json!({"type": "null"}));
    if choices.len() == before {
        return;
    }
    let choices = std::mem::take(choices);
    if choices.len() == 1 {
        keywords.remove("anyOf");
        keywords.insert("allOf".to_owned(), choices.into());
    } else {
        keywords.insert("anyOf".to_owned(), choices.into());
    }
    keywords.insert("nullable".to_owned(), true.into());
}

/// A reference may have no other keyword beside it.
fn wrap_reference(keywords: &mut Map<String, Value>) {
    if keywords.len() > 1
        && let Some(reference) = keywords.remove("$ref")
    {
        keywords.insert("allOf".to_owned(), json!([{"$ref": reference}]));
    }
}

/// A schema has one example and no list of them.
fn one_example(keywords: &mut Map<String, Value>) {
    if keywords.get("examples").is_some_and(Value::is_array)
        && let Some(Value::Array(examples)) = keywords.remove("examples")
    {
        keywords.extend(examples.into_iter().next().map(|example| ("example".to_owned(), example)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: Value, expected: &Value) {
        let document = json!({"components": {"schemas": {"A": schema}}});
        assert_eq!(to_3_0(&document)["components"]["schemas"]["A"], *expected, "{document}");
    }

    #[test]
    fn a_schema_says_the_same_in_the_older_words() {
        let (reference, nothing) = (json!({"$ref": "#/components/schemas/B"}), json!({"type": "null"}));
        check(json!({"anyOf": [reference, nothing]}), &json!({"allOf": [reference], "nullable": true}));
        check(
            json!({"anyOf": [reference, {"type": "string"}, nothing]}),
            &json!({"anyOf": [reference, {"type": "string"}], "nullable": true}),
        );
        check(reference.clone(), &reference);
        check(
            json!({"$ref": "#/components/schemas/B", "description": "Why."}),
            &json!({"allOf": [reference], "description": "Why."}),
        );
        check(json!({"type": "string", "examples": ["a", "b"]}), &json!({"type": "string", "example": "a"}));
        // Fields may have any names.
        let field =
            json!({"type": "object", "properties": {"examples": reference, "$ref": {"type": "string"}}});
        check(field.clone(), &field);
    }

    #[test]
    fn a_document_names_its_version_and_licence() {
        let document = json!({
            "openapi": "3.1.0",
            "info": {"license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        });
        let older = to_3_0(&document);
        assert_eq!(older["openapi"], "3.0.3");
        assert_eq!(older["info"]["license"], json!({"name": "Apache-2.0", "url": LICENSE_URL}));
    }
}
