//! Pages: the documents as they are served.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::JsonSchema;
use serde_json::{Map, Value};

use super::operation::{Answers, JSON, Operation};
use super::route::{Route, get};
use super::v3_0::to_3_0;

/// The document of a process, in both versions.
#[derive(Debug)]
pub struct Documents {
    v3_1: Bytes,
    v3_0: Bytes,
}

impl Documents {
    /// Takes the document by OpenAPI 3.1.
    pub fn new(document: &Value) -> Documents {
        let bytes = |document: &Value| Bytes::from(document.to_string());
        Documents { v3_1: bytes(document), v3_0: bytes(&to_3_0(document)) }
    }
}

/// An OpenAPI document.
#[derive(JsonSchema)]
#[schemars(rename = "OpenApiDocument")]
struct Document(#[allow(dead_code, reason = "stands for its schema")] Map<String, Value>);

/// The answer with a document.
struct Served(Bytes);

impl IntoResponse for Served {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, JSON)], self.0).into_response()
    }
}

impl Answers for Served {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers_json::<Document>(200, "The document.");
    }
}

async fn v3_1(State(documents): State<Arc<Documents>>) -> Served {
    Served(documents.v3_1.clone())
}

async fn v3_0(State(documents): State<Arc<Documents>>) -> Served {
    Served(documents.v3_0.clone())
}

/// Returns the routes of the documents; none requires a key.
pub fn routes() -> Vec<Route<Arc<Documents>>> {
    vec![
        get("/openapi.json", v3_1)
            .tagged("operations")
            .named("getDocument", "Returns this document, by OpenAPI 3.1."),
        get("/openapi-3.0.json", v3_0).tagged("operations").named(
            "getOlderDocument",
            "Returns this document by OpenAPI 3.0.3, for generators that don't read 3.1.",
        ),
    ]
}
