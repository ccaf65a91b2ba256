//! OpenAPI: the document that describes these reads, `openapi.json` next to the manifest.

use serde_json::Value;

pub fn openapi() -> Value {
    let mut document: Value = serde_json::from_str(include_str!("../openapi.json"))
        .expect("the document is JSON, as its test says");
    document["info"]["version"] = Value::from(env!("CARGO_PKG_VERSION"));
    document
}
