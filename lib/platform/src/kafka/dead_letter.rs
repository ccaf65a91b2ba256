//! Dead letters: records that could not be understood, kept for inspection, counted by who refused them and why.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use rdkafka::message::{Header, OwnedHeaders};

/// How often the log says how many there were.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// A record that is not a valid event: whole, with the reasons in headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// The reason, and the record's origin.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl DeadLetter {
    pub(super) fn headers(&self) -> OwnedHeaders {
        self.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_slice()) })
        })
    }
}

type Source = (&'static str, &'static str);

/// Counts since the log was written last.
struct Tally {
    logged_at: Option<Instant>,
    counts: BTreeMap<Source, u64>,
}

static TALLY: Mutex<Tally> = Mutex::new(Tally { logged_at: None, counts: BTreeMap::new() });

/// Counts dead letters of one source, such as `ingress`, for one reason, such as `invalid`.
pub fn count_dead_letters(source: &'static str, reason: &'static str, letters: u64) {
    counter!("ledger_dead_letters_total", "source" => source, "reason" => reason).increment(letters);
    let mut tally = TALLY.lock().unwrap_or_else(PoisonError::into_inner);
    *tally.counts.entry((source, reason)).or_default() += letters;
    drop(tally);
    log_dead_letters();
}

/// Writes to the log what was counted, at most once a minute; to be called now and then.
pub fn log_dead_letters() {
    let mut tally = TALLY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(line) = tally.line(Instant::now()) {
        tracing::warn!(counts = line, "dead letters");
    }
}

impl Tally {
    /// Returns the counts in one line, if there are any and the last line is old enough.
    fn line(&mut self, now: Instant) -> Option<String> {
        let is_due = self.logged_at.is_none_or(|at| now.duration_since(at) >= LOG_EVERY);
        if self.counts.is_empty() || !is_due {
            return None;
        }
        self.logged_at = Some(now);
        let counts = std::mem::take(&mut self.counts);
        let one = |((source, reason), count): (Source, u64)| format!("{source} {reason}: {count}");
        Some(counts.into_iter().map(one).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_once_a_minute_how_many_there_were_for_which_reason() {
        let mut tally = Tally { logged_at: None, counts: BTreeMap::new() };
        let start = Instant::now();
        assert_eq!(tally.line(start), None);
        tally.counts.insert(("ingress", "invalid"), 87);
        tally.counts.insert(("ingress", "unreadable"), 1);
        assert_eq!(tally.line(start).as_deref(), Some("ingress invalid: 87, ingress unreadable: 1"));
        tally.counts.insert(("projector", "wrong_key"), 2);
        assert_eq!(tally.line(start + LOG_EVERY / 2), None);
        assert_eq!(tally.line(start + LOG_EVERY).as_deref(), Some("projector wrong_key: 2"));
        assert_eq!(tally.line(start + 3 * LOG_EVERY), None);
    }
}
