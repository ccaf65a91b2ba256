//! Dead letters: unreadable records, kept whole for inspection.

use rdkafka::message::{Header, OwnedHeaders};

/// A record that is not a valid event: whole, with the reasons in headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    /// The reason, and the record's origin.
    pub headers: Vec<(&'static str, String)>,
}

impl DeadLetter {
    pub(super) fn headers(&self) -> OwnedHeaders {
        self.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_str()) })
        })
    }
}
