//! Tidying: brings derived schemas into the form that generators of clients read without loss.
//!
//! Null stands only as `anyOf` of a reference and null, and only where it differs from an absent field; one of several
//! words is an `enum`; names of fields that are free are `additionalProperties`.

use serde_json::{Map, Value, json};

/// Marks a field of which null says something else than its absence; it does not enter the document.
const NULLABLE: &str = "nullable";

/// Where a schema stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Answer,
}

/// Tidies a schema and everything within it.
pub(super) fn tidy(schema: &mut Value, direction: Direction) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(|schema| tidy(schema, direction)),
        Value::Object(keywords) => {
            // What a field is called is no keyword.
            let mut properties = keywords.remove("properties");
            if let Some(Value::Object(fields)) = &mut properties {
                fields.values_mut().for_each(|field| tidy(field, direction));
                drop_idle_nulls(fields, keywords.get("required"));
            }
            for (keyword, value) in keywords.iter_mut() {
                if !matches!(keyword.as_str(), "default" | "examples" | "enum" | "const") {
                    tidy(value, direction);
                }
            }
            let is_object = properties.is_some();
            keywords.extend(properties.map(|fields| ("properties".to_owned(), fields)));
            tidy_keywords(keywords);
            // A field that no schema names is a mistake, on either side.
            if is_object && direction == Direction::Answer {
                keywords.entry("additionalProperties").or_insert(Value::Bool(false));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A field that may be absent needs no null, unless it is marked.
fn drop_idle_nulls(fields: &mut Map<String, Value>, required: Option<&Value>) {
    let required = required.and_then(Value::as_array);
    for (name, field) in fields {
        let marked = field.as_object_mut().and_then(|field| field.remove(NULLABLE)).is_some();
        let is_required = required.is_some_and(|names| names.iter().any(|required| required == name));
        if !is_required && !marked {
            without_null(field);
        }
    }
}

/// Takes null out of `anyOf` a schema and null, and out of a list of types.
fn without_null(field: &mut Value) {
    let Value::Object(keywords) = field else { return };
    if let Some(Value::Array(types)) = keywords.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            keywords.insert("type".to_owned(), one);
        }
    }
    let Some(Value::Array(choices)) = keywords.get_mut("anyOf") else { return };
    choices.retain(|choice| *choice != json!({"type": "null"}));
    if let [Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        keywords.remove("anyOf");
        for (keyword, value) in only {
            keywords.entry(keyword).or_insert(value);
        }
    }
}

fn tidy_keywords(keywords: &mut Map<String, Value>) {
    if keywords.get("default") == Some(&Value::Null) {
        keywords.remove("default");
    }
    if let Some(Value::String(said)) = keywords.get_mut("description") {
        *said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(value) = keywords.remove("const") {
        keywords.insert("enum".to_owned(), json!([value]));
    }
    words_to_enum(keywords);
    if let Some(format) = keywords.get("format").and_then(Value::as_str)
        && format.starts_with("uint")
    {
        // OpenAPI knows two formats of whole numbers; the minimum says the rest.
        let known = if matches!(format, "uint8" | "uint16") { "int32" } else { "int64" };
        keywords.insert("format".to_owned(), known.into());
    }
    keywords.remove("propertyNames");
    if let Some(Value::Object(patterns)) = keywords.remove("patternProperties") {
        keywords.extend(patterns.into_iter().map(|(_, value)| ("additionalProperties".to_owned(), value)));
    }
}

/// Turns `oneOf` some words, each with a sentence, into an `enum`, and the sentences into its description.
fn words_to_enum(keywords: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = keywords.get("oneOf") else { return };
    let (mut words, mut sentences) = (Vec::new(), Vec::new());
    for choice in choices {
        let Some(Value::Array(of_choice)) = choice.get("enum") else { return };
        words.extend(of_choice.iter().cloned());
        if let ([word], Some(said)) = (of_choice.as_slice(), choice["description"].as_str()) {
            sentences.push(format!("{}: {said}", word.as_str().unwrap_or_default()));
        }
    }
    let before = keywords.get("description").and_then(Value::as_str).map(str::to_owned);
    let description: Vec<String> = before.into_iter().chain(sentences).collect();
    keywords.remove("oneOf");
    keywords.insert("type".to_owned(), "string".into());
    keywords.insert("enum".to_owned(), Value::Array(words));
    if !description.is_empty() {
        keywords.insert("description".to_owned(), description.join(" ").into());
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::super::Schemas;
    use super::*;

    /// What work costs.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Price {
        /// Nothing.
        Free,
        Paid,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Work {
        /// Said over
        /// two lines.
        price: Option<Price>,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("nullable" = true))]
        line: Option<Price>,
        count: u16,
    }

    #[derive(Serialize, JsonSchema)]
    struct Answer {
        #[serde(flatten)]
        work: Work,
    }

    #[test]
    fn a_schema_reads_as_generators_need_it() {
        let mut schemas = Schemas::default();
        schemas.of_answer::<Answer>();
        let named = schemas.into_components();
        assert_eq!(
            named["Price"],
            json!({"type": "string", "enum": ["paid", "free"], "description": "What work costs. free: Nothing."})
        );
        let or_null = json!([{"$ref": "#/components/schemas/Price"}, {"type": "null"}]);
        assert_eq!(
            named["Answer"],
            json!({
                "type": "object",
                "properties": {
                    "price": {"anyOf": or_null, "description": "Said over two lines."},
                    "note": {"type": "string"},
                    "line": {"anyOf": or_null},
                    "count": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 65535},
                },
                "required": ["price", "count"],
                "additionalProperties": false,
            })
        );
    }

    #[test]
    fn a_request_may_leave_out_what_may_be_null() {
        let mut schemas = Schemas::default();
        schemas.of_request::<Work>();
        let named = schemas.into_components();
        let price = json!({"$ref": "#/components/schemas/Price", "description": "Said over two lines."});
        assert_eq!(named["Work"]["properties"]["price"], price);
        assert_eq!(named["Work"]["required"], json!(["count"]));
        assert!(named["Work"].get("additionalProperties").is_none());
    }
}
