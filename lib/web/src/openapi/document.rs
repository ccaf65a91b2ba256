//! Documents: all operations of a service with the schemas that they name.

use serde_json::{Value, json};

use super::pages;
use super::route::Route;
use super::schemas::Schemas;
use crate::http::ProblemBody;
use crate::http::ops;

/// The parts of the API in the order in which a reader meets them; every document lists all.
const TAGS: [(&str, &str); 10] = [
    ("accounts", "Accounts: open, read, change, close; balances, periods and the lines of the ledger."),
    ("usage", "What was used by whom, and what each event and message cost."),
    ("grants", "Credits that are given: grants, corrections, promo codes and referrals."),
    ("limits and holds", "Limits of users, checks, and credits held for work that is under way."),
    ("alerts", "Alerts on the figures of an account and of its users, and what was sent of them."),
    ("payments", "Purchases, refunds and automatic top-ups."),
    ("people", "Who is notified, member tokens, and the erasure of a person."),
    ("keys", "API keys."),
    ("audit", "The journal as it is stored, and what proves that it was not changed."),
    ("operations", "The health of a process, its metrics and documents."),
];

/// What a document says of its API as a whole.
#[derive(Debug, Clone, Copy)]
pub struct About {
    pub title: &'static str,
    pub description: &'static str,
    /// JSON: requests and answers by operation, as they were recorded.
    pub examples: &'static str,
}

/// Makes the document of a service by OpenAPI 3.1; the operator's pages, which every process serves, are in it too.
pub fn document<S: Clone + Send + Sync + 'static>(about: About, routes: &[Route<S>]) -> Value {
    let mut schemas = Schemas::default();
    let mut paths = json!({});
    let examples: Value =
        serde_json::from_str(about.examples).expect("the examples are JSON, as a test says");
    for route in routes {
        let mut operation = route.describe(&mut schemas);
        set_example(&mut operation, &examples);
        // A variable for the rest of the path has no mark of its own here.
        paths[route.path.replace("{*", "{")][route.method] = operation;
    }
    for route in ops::routes() {
        paths[route.path][route.method] = route.describe(&mut schemas);
    }
    for route in pages::routes() {
        paths[route.path][route.method] = route.describe(&mut schemas);
    }
    let problem = schemas.of_answer::<ProblemBody>();
    let tags: Vec<Value> =
        TAGS.iter().map(|(name, description)| json!({"name": name, "description": description})).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": about.title,
            "version": env!("CARGO_PKG_VERSION"),
            "description": about.description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The process that serves this document."}],
        "security": [{"key": []}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.into_components(),
            "responses": {"Refused": refused(&problem)},
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key, as `ledger key create` and `POST /v1/keys` make it, or a member token.",
                },
            },
        },
    })
}

/// Adds the request and the answer that were recorded of an operation.
fn set_example(operation: &mut Value, examples: &Value) {
    let Some(example) = operation["operationId"].as_str().map(|id| &examples[id]) else { return };
    let request = operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut);
    let taken = request.and_then(|content| content.get_mut(example["media_type"].as_str()?));
    if let Some(taken) = taken.filter(|_| !example["request"].is_null()) {
        taken["example"] = example["request"].clone();
    }
    let status = example["status"].as_u64().unwrap_or_default();
    if let Some(answer) = operation.pointer_mut(&format!("/responses/{status}/content/application~1json")) {
        answer["example"] = example["answer"].clone();
    }
}

fn refused(problem: &Value) -> Value {
    json!({
        "description": "Refused, or failed: `code` says why.",
        "headers": {
            "Retry-After": {
                "description": "With 429 and 503: seconds until the same request may succeed.",
                "schema": {"type": "integer", "minimum": 0},
            },
        },
        "content": {"application/problem+json": {"schema": problem}},
    })
}

/// Adds the missing parts of another document, object by object; never overwrites.
pub fn merge(into: &mut Value, from: Value) {
    let (Value::Object(into), Value::Object(from)) = (into, from) else { return };
    for (name, value) in from {
        match into.get_mut(&name) {
            Some(existing) => merge(existing, value),
            None => {
                into.insert(name, value);
            }
        }
    }
}
