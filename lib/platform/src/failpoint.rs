//! Failpoints let a test kill the process at a named step.
//!
//! `LEDGER_FAILPOINT=projector.before_commit:3` aborts at the third hit; unset, a failpoint costs one comparison.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const VARIABLE: &str = "LEDGER_FAILPOINT";

struct Armed {
    name: String,
    left: AtomicU64,
}

/// Aborts the process, like a power failure, if this failpoint is armed and its count is used up.
pub fn hit(name: &str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| parse(&std::env::var(VARIABLE).unwrap_or_default()));
    if armed.as_ref().is_some_and(|armed| armed.is_due(name)) {
        tracing::error!(name, "failpoint aborts the process");
        std::process::abort();
    }
}

fn parse(text: &str) -> Option<Armed> {
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    if name.is_empty() {
        return None;
    }
    Some(Armed { name: name.to_owned(), left: AtomicU64::new(count.parse().unwrap_or(1)) })
}

impl Armed {
    fn is_due(&self, name: &str) -> bool {
        self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_fires_once_at_its_count() {
        let armed = parse("projector.before_commit:2").expect("armed");
        assert!(!armed.is_due("projector.after_commit"));
        assert!(!armed.is_due("projector.before_commit"));
        assert!(armed.is_due("projector.before_commit"));
        assert!(!armed.is_due("projector.before_commit"));
    }

    #[test]
    fn without_a_name_nothing_is_armed() {
        assert!(parse("").is_none());
        assert!(parse(":3").is_none());
    }
}
