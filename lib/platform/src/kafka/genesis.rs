//! The genesis record: first of every journal partition, it names the log.

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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum GenesisType {
    #[serde(rename = "ledger.genesis.v1")]
    V1,
}

/// Returns the identity in a genesis record; `None` if the record is not one.
pub fn genesis_of(key: Option<&[u8]>, value: &[u8]) -> Option<LogIdentity> {
    if key.is_some() {
        return None;
    }
    let genesis: Genesis = serde_json::from_slice(value).ok()?;
    Some(LogIdentity { log_id: genesis.log_id, partitions: genesis.partitions })
}
