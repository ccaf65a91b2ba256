//! Request: reads what callers send, and names every bad field at once.

pub mod json;
pub mod read;

pub use read::*;
