//! HTTP: problems, strict extractors, the server with its limits, and the operator's endpoints.

mod body;
mod cors;
mod etag;
mod observe;
pub mod ops;
mod params;
mod peer;
mod problem;
mod serve;
mod service;
mod stall;

pub use body::{
    Accepts, BATCH_BYTES_MAX, Payload, RECORD_BYTES_MAX, Value, json_value, read_body, read_json,
};
pub use cors::MEMBER_TOKEN_PREFIX;
pub use etag::{ETag, IfMatch};
pub use observe::{NotFoundPage, finish};
pub use params::{Path, Query, header};
pub use peer::Peer;
pub use problem::{ACCOUNT_HALTED, FieldError, Problem, ProblemBody};
pub use serve::{HttpConfig, bind, serve};
pub use service::{Deps, Running, Service, Tasks};
