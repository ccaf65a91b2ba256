//! The hashes of RFC 6962: SHA-256, with a prefix that keeps leaves and nodes apart.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const LEAF_PREFIX: u8 = 0;
const NODE_PREFIX: u8 = 1;

/// A SHA-256 hash, or a root, or a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; Hash::BYTES]);

impl Hash {
    pub const BYTES: usize = 32;

    /// What stands for the hash of something absent.
    pub const ZERO: Hash = Hash([0; Hash::BYTES]);

    /// Returns the SHA-256 of bytes, without any prefix.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(Sha256::digest(bytes).into())
    }

    /// Returns the root of a tree without leaves.
    pub fn of_empty_tree() -> Hash {
        Hash::of(&[])
    }

    /// Returns the hash of an entry as a leaf of the tree.
    pub fn of_leaf(entry: &[u8]) -> Hash {
        Hash(Sha256::new().chain_update([LEAF_PREFIX]).chain_update(entry).finalize().into())
    }

    /// Returns the hash of the node above two others.
    pub fn of_node(left: Hash, right: Hash) -> Hash {
        let mut bytes = [NODE_PREFIX; 1 + 2 * Hash::BYTES];
        bytes[1..=Hash::BYTES].copy_from_slice(&left.0);
        bytes[1 + Hash::BYTES..].copy_from_slice(&right.0);
        Hash::of(&bytes)
    }

    /// Reads a hash from exactly as many bytes as it has.
    pub fn from_slice(bytes: &[u8]) -> Option<Hash> {
        bytes.try_into().ok().map(Hash)
    }

    /// Reads padded standard base64; no other spelling of the same bytes.
    pub fn from_base64(text: &str) -> Option<Hash> {
        Hash::from_slice(&STANDARD.decode(text).ok()?)
    }
}

/// Padded standard base64, as in checkpoints and proofs.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_has_one_spelling() {
        let text = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        assert_eq!(Hash::from_base64(text).unwrap().to_string(), text);
        // The last two bits are lost on decoding, so `J` would mean the same bytes.
        for other in [
            "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J=",
            "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I",
            "CsUYapGGPo4dkMgIAUqom_Xajj7h2fB2MPA3j2jxq2I=",
            " CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=",
            "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxqw==",
            "",
        ] {
            assert_eq!(Hash::from_base64(other), None, "{other}");
        }
    }
}
