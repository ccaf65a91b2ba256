//! One lane: what a transaction works with.

use crate::log::Logs;

/// A worker, and the logs of its partitions if the generation keeps them.
pub(super) struct Lane<W> {
    pub worker: W,
    pub logs: Option<Logs>,
}
