//! Derived ids that exist already: counted, and no error.

use metrics::counter;
use tracing::warn;

/// Notes that rows with derived ids were there before; each writer derives the same row.
pub fn note_repeated(kind: &'static str, count: u64) {
    if count == 0 {
        return;
    }
    counter!("ledger_derived_ids_repeated_total", "kind" => kind).increment(count);
    warn!(kind, count, "derived ids were there before, nothing is written again");
}
