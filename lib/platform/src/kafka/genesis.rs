//! The genesis record: first of every journal partition, it names the log.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ledger_core::value::time::Time;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::options::LogIdentity;

/// Type of a partition's first record.
pub(super) const GENESIS_TYPE: &str = "ledger.genesis.v1";

/// First record of every journal partition; it has no key and is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Genesis {
    #[serde(rename = "type")]
    pub kind: GenesisType,
    pub log_id: Uuid,
    pub partitions: i32,
    pub created_at: Time,
    /// The same in all partitions. Journals of before have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<Salt>,
}

/// Random bytes with which the transparency log hashes keys, so that nobody can guess accounts from the log alone.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Salt(pub [u8; 32]);

impl From<Salt> for String {
    fn from(salt: Salt) -> String {
        STANDARD.encode(salt.0)
    }
}

impl FromStr for Salt {
    type Err = String;

    fn from_str(text: &str) -> Result<Salt, String> {
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Salt).ok_or_else(|| "a salt is 32 bytes in base64".to_owned())
    }
}

impl TryFrom<String> for Salt {
    type Error = String;

    fn try_from(text: String) -> Result<Salt, String> {
        text.parse()
    }
}

/// Says nothing of it.
impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum GenesisType {
    #[serde(rename = "ledger.genesis.v1")]
    V1,
}

impl Genesis {
    pub fn identity(self) -> LogIdentity {
        LogIdentity { log_id: self.log_id, partitions: self.partitions }
    }
}

/// Reads a genesis record; `None` if the record is not one.
pub(super) fn read_genesis(key: Option<&[u8]>, value: &[u8]) -> Option<Genesis> {
    if key.is_some() { None } else { serde_json::from_slice(value).ok() }
}

/// Returns the salt that a genesis record gives its journal; `None` if the record is not one.
pub fn genesis_salt(key: Option<&[u8]>, value: &[u8]) -> Option<Vec<u8>> {
    let genesis = read_genesis(key, value)?;
    Some(genesis.salt.map_or_else(|| genesis.log_id.as_bytes().to_vec(), |salt| salt.0.to_vec()))
}

/// Returns the identity in a genesis record; `None` if the record is not one.
pub fn genesis_of(key: Option<&[u8]>, value: &[u8]) -> Option<LogIdentity> {
    read_genesis(key, value).map(Genesis::identity)
}
