//! Explain: how a figure came about, as a tree whose amounts add up at every level.
//!
//! A level has a bounded number of children; what they leave over is one sum, with a cursor to go on with. Every
//! figure's parts come from other rows than the figure itself, so each answer is also a check: parts that do not add up
//! are an error and never an answer.

pub(crate) mod figures;
pub(crate) mod levels;
pub(crate) mod node;
pub(crate) mod questions;
pub(crate) mod reader;
