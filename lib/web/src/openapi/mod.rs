//! The OpenAPI documents, made from the code that they describe.
//!
//! A [`Route`] joins a path to its handler. The handler's arguments say which parameters, headers and body it reads
//! ([`Reads`]), its return type what it answers ([`Answers`]), and the types themselves have their schemas
//! (`schemars::JsonSchema`). Only the words are added: a name, a sentence, the codes of the operation's own problems.
//! So no field, parameter or route can be described otherwise than it is.

mod answers;
pub(crate) mod docs;
mod document;
mod operation;
pub(crate) mod pages;
mod route;
mod schemas;
mod sent;
mod tidy;
mod v3_0;

pub use answers::{Created, Tagged};
pub use document::{About, document, merge};
pub use operation::{Answers, Described, Operation, Reads};
pub use route::{Route, delete, get, patch, post, put, router};
pub use schemas::Schemas;
pub use sent::Sent;
pub use v3_0::to_3_0;
