//! A tiled transparency log: entries, Merkle tree and proofs.
//!
//! Pure: no database, no HTTP, no clock, no chance. The formats are C2SP's (`tlog-tiles`) over the hashes of RFC 6962, so that tools which others
//! wrote can read and check what this crate writes.

pub mod appender;
pub mod bundle;
mod decimal;
pub mod entry;
pub mod hash;
pub mod proof;
pub mod tile;
pub mod tree;
