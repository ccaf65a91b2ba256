//! OpenAPI: the document that describes these reads, made from their routes.

use serde_json::Value;
use web::openapi::{About, document};

use crate::routes::routes;

const ABOUT: About = About {
    title: "Credit ledger: reads",
    description: "Balances, usage and history of accounts. Every read of an account is one snapshot, and says the position in the journal that it reflects.",
    examples: include_str!("../examples.json"),
};

pub fn openapi() -> Value {
    document(ABOUT, &routes())
}
