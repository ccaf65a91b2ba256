//! Intake: what a journal record is, before any account is looked at.

use std::num::NonZeroU32;

use ledger_core::event::Event;
use ledger_core::fold::Fact;
use ledger_core::value::id::Id;
use ledger_core::event::partition::partition_of;
use ledger_core::event::wire::DecodeError;

use crate::kafka::Record;

/// Reads a record's value; a newer binary's knows more types.
pub type Decode = fn(&[u8]) -> Result<Event, DecodeError>;

/// A record and what it is.
#[derive(Debug)]
pub struct Item<'a> {
    /// As stored.
    pub record: &'a Record,
    /// What it is.
    pub intake: Intake,
}

/// What a record is.
#[derive(Debug)]
pub enum Intake {
    /// An event to fold.
    Fold(Fact),
    /// An event of a type that this binary does not know: it halts its account.
    Unknown {
        /// The account that halts.
        account: Id,
        /// The type.
        event_type: String,
    },
    /// No event of its key in its partition: kept whole, folded never.
    Dead(String),
}

impl Item<'_> {
    /// Returns the account that the record is about, unless it is a dead letter.
    pub fn account(&self) -> Option<&Id> {
        match &self.intake {
            Intake::Fold(fact) => Some(&fact.event.account),
            Intake::Unknown { account, .. } => Some(account),
            Intake::Dead(_) => None,
        }
    }
}

/// Says what a record is.
pub fn read(record: &Record, decode: Decode, partitions: NonZeroU32) -> Item<'_> {
    Item { record, intake: intake(record, decode, partitions) }
}

fn intake(record: &Record, decode: Decode, partitions: NonZeroU32) -> Intake {
    match decode(&record.value) {
        Err(DecodeError::NotAnEvent(reason)) => Intake::Dead(format!("not_an_event: {}", printable(&reason))),
        Err(DecodeError::UnknownType { account, event_type }) => {
            match misplaced(record, &account, partitions) {
                Some(reason) => Intake::Dead(reason),
                None => Intake::Unknown { account, event_type: printable(&event_type) },
            }
        }
        Ok(event) => match misplaced(record, &event.account, partitions) {
            Some(reason) => Intake::Dead(reason),
            None => Intake::Fold(Fact::new(event, record.appended_at, record.position.offset)),
        },
    }
}

/// Postgres takes no NUL in a text, and a reason is for people anyway.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Says why a record stands where its account's events never do: someone else wrote it, or wrote it wrongly.
fn misplaced(record: &Record, account: &Id, partitions: NonZeroU32) -> Option<String> {
    let Some(key) = &record.key else {
        return Some(format!("wrong_key: no key on an event of account {account}"));
    };
    if key != account.as_str().as_bytes() {
        let key = printable(&String::from_utf8_lossy(key));
        return Some(format!("wrong_key: key {key:?} on an event of account {account}"));
    }
    let expected = partition_of(key, partitions);
    let actual = record.position.partition;
    (i64::from(expected) != i64::from(actual))
        .then(|| format!("wrong_partition: account {account} belongs to partition {expected}, not {actual}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Position;
    use ledger_core::value::time::Time;
    use ledger_core::event::wire;

    const EVENT: &str = r#"{"specversion":"1.0","id":"e1","source":"/app","type":"ledger.usage.recorded.v1",
        "subject":"acme","time":"2026-02-03T10:00:00Z","recordedat":"2026-02-03T10:00:01Z","actor":"k",
        "data":{"credits":"1"}}"#;

    fn partitions() -> NonZeroU32 {
        NonZeroU32::new(32).expect("not zero")
    }

    fn home() -> i32 {
        partition_of(b"acme", partitions()) as i32
    }

    fn check(key: Option<&str>, partition: i32, value: &str, expected: &str) {
        let record = Record {
            position: Position { partition, offset: 7 },
            key: key.map(|key| key.as_bytes().to_vec()),
            value: value.as_bytes().to_vec(),
            appended_at: Time::from_millis(0),
        };
        let said = match read(&record, wire::decode, partitions()).intake {
            Intake::Fold(fact) => format!("fold {}", fact.event.id),
            Intake::Unknown { account, event_type } => format!("unknown {account} {event_type}"),
            Intake::Dead(reason) => reason,
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
