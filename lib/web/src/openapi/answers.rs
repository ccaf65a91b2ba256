//! Answers that several handlers share.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::operation::{Answers, Operation};
use crate::http::ETag;

/// 201 with what was made.
#[derive(Debug)]
pub struct Created<T>(pub T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

impl<T: JsonSchema> Answers for Created<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers_json::<T>(201, "Made.");
    }
}

/// An answer with the tag of a setting's state, where it has one.
#[derive(Debug)]
pub struct Tagged<A>(pub A, pub Option<ETag>);

impl<A: IntoResponse> IntoResponse for Tagged<A> {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        let marked = self.1.map_or(Ok(()), |etag| etag.mark(&mut response));
        marked.map_or_else(IntoResponse::into_response, |()| response)
    }
}

impl<A: Answers> Answers for Tagged<A> {
    fn describe(operation: &mut Operation<'_>) {
        A::describe(operation);
        operation.answers_with::<String>("ETag", "The state of the setting, for `If-Match`.");
    }
}
