//! A tiled transparency log: entries, Merkle tree, proofs, signed checkpoints, policies and witnesses.
//!
//! Pure: no database, no HTTP, no clock, no chance. The formats are C2SP's (`tlog-tiles`, `tlog-checkpoint`,
//! `signed-note`, `tlog-cosignature`, `tlog-witness`, `tlog-policy`) over the hashes of RFC 6962, so that tools which
//! others wrote can read and check what this crate writes.

pub mod appender;
pub mod bundle;
pub mod checkpoint;
pub mod comparison;
mod decimal;
pub mod entry;
pub mod hash;
pub mod key;
pub mod key_file;
pub mod name;
pub mod note;
pub mod policy;
pub mod proof;
pub mod signature;
pub mod succession;
pub mod tile;
pub mod tree;
pub mod witness;
