//! Classifies journal records before any account is loaded.

use std::num::NonZeroU32;

use ledger_core::event::Event;
use ledger_core::event::partition::partition_of;
use ledger_core::event::wire::DecodeError;
use ledger_core::fold::Fact;
use ledger_core::value::id::AccountId;
use platform::kafka::Record;

/// Decodes a record's value; a newer binary's function knows more types.
pub type Decode = fn(&[u8]) -> Result<Event, DecodeError>;

#[derive(Debug)]
pub struct Classified<'a> {
    pub record: &'a Record,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    /// An event to fold.
    Fold(Fact),
    /// An event of a type unknown to this binary: halts its account.
    Unknown { account: AccountId, event_type: String },
    /// Not an event of its key in its partition: stored whole, never folded.
    Dead(Dead),
}

/// Why a record is no event of its key in its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// Such as `wrong_key`, by which it is counted.
    pub reason: &'static str,
    pub detail: String,
}

impl std::fmt::Display for Dead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl Classified<'_> {
    /// Returns the record's account, unless it is a dead letter.
    pub fn account(&self) -> Option<&AccountId> {
        match &self.kind {
            Kind::Fold(fact) => Some(&fact.event.account),
            Kind::Unknown { account, .. } => Some(account),
            Kind::Dead(_) => None,
        }
    }
}

pub fn classify(record: &Record, decode: Decode, partitions: NonZeroU32) -> Classified<'_> {
    Classified { record, kind: kind_of(record, decode, partitions) }
}

fn kind_of(record: &Record, decode: Decode, partitions: NonZeroU32) -> Kind {
    match decode(record.value_bytes()) {
        Err(DecodeError::NotAnEvent(reason)) => {
            Kind::Dead(Dead { reason: "not_an_event", detail: printable(&reason) })
        }
        Err(DecodeError::UnknownType { account, event_type }) => {
            match misplaced(record, &account, partitions) {
                Some(dead) => Kind::Dead(dead),
                None => Kind::Unknown { account, event_type: printable(&event_type) },
            }
        }
        Ok(event) => match misplaced(record, &event.account, partitions) {
            Some(dead) => Kind::Dead(dead),
            None => Kind::Fold(Fact::new(event, record.appended_at, record.position.offset)),
        },
    }
}

/// Postgres text can't contain NUL.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Returns why a record can't be an event of its account: its key or its partition is not the account's.
fn misplaced(record: &Record, account: &AccountId, partitions: NonZeroU32) -> Option<Dead> {
    let wrong_key = |detail| Some(Dead { reason: "wrong_key", detail });
    let Some(key) = &record.key else {
        return wrong_key(format!("no key on an event of account {account}"));
    };
    if key != account.as_str().as_bytes() {
        let key = printable(&String::from_utf8_lossy(key));
        return wrong_key(format!("key {key:?} on an event of account {account}"));
    }
    let expected = partition_of(key, partitions);
    let actual = record.position.partition;
    let detail = format!("account {account} belongs to partition {expected}, not {actual}");
    (i64::from(expected) != i64::from(actual)).then_some(Dead { reason: "wrong_partition", detail })
}

#[cfg(test)]
mod tests {
    use ledger_core::event::wire;
    use ledger_core::value::time::Time;
    use platform::kafka::Position;

    use super::*;

    const EVENT: &str = r#"{"specversion":"1.0","id":"e1","source":"/app","type":"ledger.usage.recorded.v1",
        "subject":"acme","time":"2026-02-03T10:00:00Z","recordedat":"2026-02-03T10:00:01Z","actor":"k",
        "data":{"credits":"1"}}"#;

    fn partitions() -> NonZeroU32 {
        NonZeroU32::new(32).expect("not zero")
    }

    fn home() -> i32 {
        i32::try_from(partition_of(b"acme", partitions())).expect("below 32")
    }

    fn check(key: Option<&str>, partition: i32, value: &str, expected: &str) {
        let record = Record {
            position: Position { partition, offset: 7 },
            key: key.map(|key| key.as_bytes().to_vec()),
            value: Some(value.as_bytes().to_vec()),
            appended_at: Time::from_millis(0),
        };
        let said = match classify(&record, wire::decode, partitions()).kind {
            Kind::Fold(fact) => format!("fold {}", fact.event.id),
            Kind::Unknown { account, event_type } => format!("unknown {account} {event_type}"),
            Kind::Dead(dead) => dead.to_string(),
        };
        assert!(said.starts_with(expected), "{said}");
    }

    #[test]
    fn an_event_folds_only_under_its_own_key_and_in_its_own_partition() {
        check(Some("acme"), home(), EVENT, "fold e1");
        check(Some("other"), home(), EVENT, "wrong_key");
        check(None, home(), EVENT, "wrong_key");
        check(Some("acme"), home() + 1, EVENT, "wrong_partition");
    }

    #[test]
    fn an_unknown_type_halts_only_where_its_account_is_at_home() {
        let newer = EVENT.replace("recorded.v1", "recorded.v2");
        check(Some("acme"), home(), &newer, "unknown acme ledger.usage.recorded.v2");
        check(Some("other"), home(), &newer, "wrong_key");
        check(Some("acme"), home() + 1, &newer, "wrong_partition");
    }

    #[test]
    fn bytes_that_are_no_event_are_dead_letters() {
        check(Some("acme"), home(), "", "not_an_event");
        check(Some("acme"), home(), "\u{0}", "not_an_event");
        check(None, home(), "{}", "not_an_event");
    }
}
