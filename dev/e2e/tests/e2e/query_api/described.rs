//! Described: checks every answer of these tests against the OpenAPI document.

use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use e2e::{Answer, Caller};

static DOCUMENT: LazyLock<Value> = LazyLock::new(query_api::openapi);

/// Reads, and fails where the OpenAPI document does not describe the answer.
pub async fn read(caller: &Caller, path: &str) -> Result<Answer> {
    let answer = caller.get(path).await?;
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    ensure_described(path, &answer)?;
    Ok(answer)
}

fn ensure_described(path: &str, answer: &Answer) -> Result<()> {
    let template = template_of(path).with_context(|| format!("{path} is not described"))?;
    let media_type = answer.content_type.split(';').next().unwrap_or_default();
    // A list as CSV is an operation of its own, whichever way it was asked for.
    let of_csv = media_type == "text/csv" && !template.ends_with(".csv");
    let template = if of_csv { format!("{template}.csv") } else { template.clone() };
    let responses = &DOCUMENT["paths"][template]["get"]["responses"];
    let named = &responses[answer.status.to_string()];
    let is_refused = named.is_null() && answer.status >= 400;
    let response = followed(if is_refused { &responses["default"] } else { named });
    ensure!(response.is_object(), "{}: {} is not described: {}", answer.asked, answer.status, answer.text);
    let content = &response["content"][media_type];
    ensure!(content.is_object(), "{}: {media_type} is not described", answer.asked);
    match media_type {
        "application/x-ndjson" => {
            let lines = answer.text.lines().map(serde_json::from_str);
            lines
                .collect::<Result<Vec<Value>, _>>()?
                .iter()
                .try_for_each(|line| fits(&content["schema"], line))
        }
        "application/json" | "application/problem+json" => fits(&content["schema"], &answer.body),
        _ => Ok(()),
    }
    .with_context(|| format!("{} answered {}", answer.asked, answer.text))
}

fn template_of(path: &str) -> Option<&'static String> {
    let segments: Vec<&str> = path.split('/').collect();
    let paths = DOCUMENT["paths"].as_object()?;
    paths.keys().find(|template| {
        let described: Vec<&str> = template.split('/').collect();
        let alike = |(described, segment): (&&str, &&str)| described == segment || described.starts_with('{');
        described.len() == segments.len() && described.iter().zip(&segments).all(alike)
    })
}

fn followed(value: &'static Value) -> &'static Value {
    let target = value["$ref"].as_str().and_then(|to| DOCUMENT.pointer(to.trim_start_matches('#')));
    target.unwrap_or(value)
}

fn fits(schema: &Value, value: &Value) -> Result<()> {
    let mut whole = schema.clone();
    whole["components"] = DOCUMENT["components"].clone();
    whole["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    let validator = jsonschema::validator_for(&whole)?;
    let errors: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    ensure!(errors.is_empty(), "{}", errors.join("; "));
    Ok(())
}

/// Fails unless both have the same fields with the same values; `"*"` stands for any value.
pub fn ensure_is(found: &Value, expected: &Value) -> Result<()> {
    ensure!(is(found, expected), "found {found:#}, expected {expected:#}");
    Ok(())
}

fn is(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (_, Value::String(any)) if any == "*" => true,
        (Value::Object(found), Value::Object(expected)) => {
            found.len() == expected.len()
                && expected.iter().all(|(name, value)| found.get(name).is_some_and(|it| is(it, value)))
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(found, value)| is(found, value))
        }
        _ => found == expected,
    }
}

#[test]
fn an_answer_that_is_not_described_is_noticed() {
    let answer = |status, content_type: &str, body: Value| Answer {
        asked: "GET".into(),
        status,
        content_type: content_type.into(),
        retry_after: String::new(),
        headers: Default::default(),
        text: body.to_string(),
        body,
    };
    let json = "application/json";
    let balance = "/v1/accounts/acme/balance";
    let page = json!({"items": [], "next_cursor": null});
    assert!(ensure_described("/v1/accounts", &answer(200, json, page.clone())).is_ok());
    assert!(ensure_described("/v1/accounts", &answer(200, "text/csv", page.clone())).is_err());
    assert!(ensure_described("/v1/accounts", &answer(418, json, page.clone())).is_err());
    assert!(ensure_described(balance, &answer(200, json, page.clone())).is_err());
    assert!(ensure_described("/v1/nothing", &answer(200, json, page)).is_err());
}
