//! Dead letters: records that could not be read, kept whole for people to read.

use rdkafka::message::{Header, OwnedHeaders};

/// A record that is no event of ours: whole, with the reasons in headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The key, as it was found.
    pub key: Option<Vec<u8>>,
    /// The value, as it was found.
    pub value: Vec<u8>,
    /// Why it is dead, and where it came from.
    pub headers: Vec<(&'static str, String)>,
}

impl DeadLetter {
    pub(super) fn headers(&self) -> OwnedHeaders {
        self.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_str()) })
        })
    }
}
