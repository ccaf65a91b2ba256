//! Sent: a request whose JSON body has a type, read once the handler knows that the caller may send it.

use std::convert::Infallible;
use std::marker::PhantomData;

use axum::extract::{FromRequest, Request};
use ledger_core::request::Body;
use schemars::JsonSchema;
use serde_json::Value;

use super::operation::{JSON, Operation, Reads};
use crate::http::{Problem, RECORD_BYTES_MAX, read_body, read_json};

/// A request with a body of this schema.
#[derive(Debug)]
pub struct Sent<T>(Request, PhantomData<fn() -> T>);

impl<T> Sent<T> {
    /// Reads the body as JSON; the caller reads the schema's fields out of it.
    pub async fn value(self) -> Result<Value, Problem> {
        read_json(self.0, RECORD_BYTES_MAX).await
    }

    /// Returns the request, to read its body otherwise.
    pub fn into_request(self) -> Request {
        self.0
    }
}

impl<T: Body> Sent<T> {
    /// Reads the body strictly. Errors: every bad field.
    pub async fn read(self) -> Result<T, Problem> {
        read_body(self.0).await
    }
}

impl<T, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        Ok(Sent(request, PhantomData))
    }
}

impl<T: JsonSchema> Reads for Sent<T> {
    fn describe(operation: &mut Operation<'_>) {
        let schema = operation.schemas.of_request::<T>();
        operation.takes(JSON, schema);
    }
}
