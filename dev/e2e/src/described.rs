//! Described: checks requests and answers against the OpenAPI document.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use jsonschema::Validator;
use reqwest::{Method, Request};
use serde_json::{Value, json};

use crate::answer::Answer;

static DOCUMENT: LazyLock<Value> = LazyLock::new(ledger::openapi::merged);
static READS: LazyLock<Value> = LazyLock::new(query_api::openapi);
static WRITES: LazyLock<Value> = LazyLock::new(command_api::openapi);
/// Validators by the pointer of their schema.
static VALIDATORS: LazyLock<Mutex<HashMap<String, &'static Validator>>> = LazyLock::new(Mutex::default);

/// Fails where the document does not describe the answer, or a request that was accepted.
pub fn ensure_described(request: &Request, answer: &Answer) -> Result<()> {
    let method = request.method().as_str().to_lowercase();
    let operation = template_of(request.url().path())
        .map(|template| format!("/paths/{}/{method}", escaped(&as_answered(template, answer))))
        .filter(|pointer| DOCUMENT.pointer(pointer).is_some());
    let Some(operation) = operation else {
        let refused = matches!(answer.status, 401 | 404 | 405);
        ensure!(refused && answer.content_type == PROBLEM, "{} is not described", answer.asked);
        return Ok(());
    };
    answer_fits(&operation, answer).with_context(|| format!("{} answered {}", answer.asked, answer.text))?;
    if answer.status < 300 { request_fits(&operation, request, answer) } else { Ok(()) }
}

/// Returns whether the read API serves this: its document has it, or the write API's does not know the path at all.
pub fn is_read(method: &Method, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let Some(template) = template_of(path) else { return false };
    let method = method.as_str().to_lowercase();
    let has_operation = |document: &Value| document["paths"][template][&method].is_object();
    has_operation(&READS) || (!has_operation(&WRITES) && WRITES["paths"][template].is_null())
}

const PROBLEM: &str = "application/problem+json";

fn answer_fits(operation: &str, answer: &Answer) -> Result<()> {
    let media_type = media_type_of(&answer.content_type);
    let response = format!("{operation}/responses/{}", answer.status);
    let is_refused = DOCUMENT.pointer(&response).is_none() && answer.status >= 400;
    let response = followed(&if is_refused { format!("{operation}/responses/default") } else { response });
    ensure!(DOCUMENT.pointer(&response).is_some(), "{} is not described", answer.status);
    let content = format!("{response}/content/{}", escaped(media_type));
    ensure!(DOCUMENT.pointer(&content).is_some(), "{media_type} is not described");
    match media_type {
        PROBLEM | "application/json" => fits(&format!("{content}/schema"), &answer.body),
        _ => Ok(()),
    }
}

fn request_fits(operation: &str, request: &Request, answer: &Answer) -> Result<()> {
    let content_type = request.headers().get("content-type").and_then(|value| value.to_str().ok());
    let (Some(content_type), Some(body)) = (content_type, request.body().and_then(|body| body.as_bytes()))
    else {
        return Ok(());
    };
    let content = format!("{operation}/requestBody/content/{}", escaped(media_type_of(content_type)));
    ensure!(DOCUMENT.pointer(&content).is_some(), "{content_type} is not described");
    let mut body: Value = serde_json::from_slice(body)?;
    drop_nulls(&mut body);
    drop_refused(&mut body, answer);
    fits(&format!("{content}/schema"), &body).with_context(|| format!("taken: {body}"))
}

/// Callers may send null for what may be absent; the document knows one way.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Removes the items of a batch that were refused: they need not be as the document has them.
fn drop_refused(body: &mut Value, answer: &Answer) {
    let (Some(items), Some(results)) = (body.as_array_mut(), answer.body["items"].as_array()) else { return };
    let mut results = results.iter();
    items.retain(|_| results.next().is_none_or(|result| result["result"] != "refused"));
}

/// A list as CSV is an operation of its own, whichever way it was asked for.
fn as_answered(template: &str, answer: &Answer) -> String {
    let is_csv = media_type_of(&answer.content_type) == "text/csv" && !template.ends_with(".csv");
    if is_csv { format!("{template}.csv") } else { template.to_owned() }
}

fn media_type_of(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default()
}

fn template_of(path: &str) -> Option<&'static String> {
    let segments: Vec<&str> = path.split('/').collect();
    let paths = DOCUMENT["paths"].as_object()?;
    paths.keys().find(|template| {
        let described: Vec<&str> = template.split('/').collect();
        let alike = |(described, segment): (&&str, &&str)| described == segment || described.starts_with('{');
        // `{path}` is the rest of a path.
        let fits = described.len() == segments.len() || described.last() == Some(&"{path}");
        fits && described.len() <= segments.len() && described.iter().zip(&segments).all(alike)
    })
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Returns the target of a pointer, through a reference if there is one.
fn followed(pointer: &str) -> String {
    let reference = DOCUMENT.pointer(pointer).and_then(|value| value["$ref"].as_str());
    reference.map_or_else(|| pointer.to_owned(), |to| to.trim_start_matches('#').to_owned())
}

fn fits(schema: &str, value: &Value) -> Result<()> {
    let errors: Vec<String> = validator(schema)?
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    ensure!(errors.is_empty(), "{schema}: {}", errors.join("; "));
    Ok(())
}

fn validator(schema: &str) -> Result<&'static Validator> {
    let mut known = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(validator) = known.get(schema) {
        return Ok(validator);
    }
    let mut whole = DOCUMENT.pointer(schema).with_context(|| schema.to_owned())?.clone();
    whole["components"] = DOCUMENT["components"].clone();
    whole["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    // A test program keeps each of its few dozen validators until it ends.
    let validator: &'static Validator = Box::leak(Box::new(jsonschema::validator_for(&whole)?));
    known.insert(schema.to_owned(), validator);
    Ok(validator)
}
