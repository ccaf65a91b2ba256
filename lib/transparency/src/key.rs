//! Keys of signed notes: Ed25519 of logs (0x01), and of witnesses, who sign the time as well (0x04).

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::hash::Hash;
use crate::name::KeyName;
use crate::signature::Signature;

/// How many bytes of a cosignature are its time.
const TIME_BYTES: usize = 8;

/// How many hexadecimal digits a key id has in a verifier key.
const KEY_ID_DIGITS: usize = 8;

/// What a key's signatures say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A plain Ed25519 signature of the note's text, as logs make them.
    Ed25519,
    /// An Ed25519 signature of the text and the time at which a witness has seen it.
    Cosignature,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Ed25519 => 0x01,
            Kind::Cosignature => 0x04,
        }
    }

    fn of(byte: u8) -> Option<Kind> {
        [Kind::Ed25519, Kind::Cosignature].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// A public key with the name and kind for which it is trusted. Displayed as a `vkey`: `name+key id+base64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    kind: Kind,
    key: VerifyingKey,
    id: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("a verifier key has the form name+key id+base64")]
    Malformed,
    #[error("the key id of {0} is not that of its key")]
    Id(KeyName),
    #[error(
        "the key of {0} is of type {1:#04x}; only Ed25519 (0x01) and Ed25519 cosignatures (0x04) are known here"
    )]
    Kind(KeyName, u8),
    #[error("the key of {0} is one for which anybody can make signatures")]
    Weak(KeyName),
}

/// A signature by a known key that is not its signature of this text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not of this text")]
pub struct BadSignature;

impl VerifierKey {
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns the bare key, by which two verifier keys are the same whatever their names.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// Whether a signature names this key.
    pub fn is_key_of(&self, signature: &Signature) -> bool {
        self.id == signature.key_id && self.name == signature.name
    }

    /// Verifies a signature that names this key. Returns the time that a cosignature says, in seconds since 1970.
    pub fn verify(&self, text: &str, signature: &Signature) -> Result<Option<u64>, BadSignature> {
        match self.kind {
            Kind::Ed25519 => {
                self.verify_bytes(text, &signature.bytes)?;
                Ok(None)
            }
            Kind::Cosignature => {
                let (time, bytes) = signature.bytes.split_first_chunk::<TIME_BYTES>().ok_or(BadSignature)?;
                let seconds = u64::from_be_bytes(*time);
                if i64::try_from(seconds).is_err() {
                    return Err(BadSignature);
                }
                self.verify_bytes(&cosigned(text, seconds), bytes)?;
                Ok(Some(seconds))
            }
        }
    }

    fn verify_bytes(&self, message: &str, signature: &[u8]) -> Result<(), BadSignature> {
        let signature = signature.try_into().map_err(|_| BadSignature)?;
        self.key.verify_strict(message.as_bytes(), &signature).map_err(|_| BadSignature)
    }

    fn new(name: KeyName, kind: Kind, key: VerifyingKey) -> VerifierKey {
        let id = key_id(&name, kind, &key);
        VerifierKey { name, kind, key, id }
    }
}

/// Returns what a witness signs.
fn cosigned(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

fn key_id(name: &KeyName, kind: Kind, key: &VerifyingKey) -> u32 {
    let hash = Hash::of(&[name.as_str().as_bytes(), b"\n", &[kind.byte()], key.as_bytes()].concat());
    u32::from_be_bytes(std::array::from_fn(|at| hash.0[at]))
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[self.kind.byte()][..], self.key.as_bytes()].concat());
        write!(f, "{}+{:08x}+{key}", self.name, self.id)
    }
}

impl FromStr for VerifierKey {
    type Err = BadKey;

    fn from_str(vkey: &str) -> Result<VerifierKey, BadKey> {
        let (name, id, key) = parts(vkey).ok_or(BadKey::Malformed)?;
        let (kind, key) = key.split_first().ok_or(BadKey::Malformed)?;
        let kind = Kind::of(*kind).ok_or_else(|| BadKey::Kind(name.clone(), *kind))?;
        let key = key.try_into().ok().and_then(|key| VerifyingKey::from_bytes(key).ok());
        let key = VerifierKey::new(name, kind, key.ok_or(BadKey::Malformed)?);
        if key.id != id {
            return Err(BadKey::Id(key.name));
        }
        if key.key.is_weak() {
            return Err(BadKey::Weak(key.name));
        }
        Ok(key)
    }
}

/// Returns the name, the key id, and the kind with the key.
fn parts(vkey: &str) -> Option<(KeyName, u32, Vec<u8>)> {
    let mut parts = vkey.splitn(3, '+');
    let name = parts.next()?.parse().ok()?;
    let id = parts.next().filter(|id| id.len() == KEY_ID_DIGITS)?;
    Some((name, u32::from_str_radix(id, 16).ok()?, STANDARD.decode(parts.next()?).ok()?))
}

/// A private key with its name.
pub struct SignerKey {
    name: KeyName,
    key: SigningKey,
}

impl SignerKey {
    pub fn new(name: KeyName, seed: &[u8; 32]) -> SignerKey {
        SignerKey { name, key: SigningKey::from_bytes(seed) }
    }

    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Returns the public key, for signatures of a kind.
    pub fn verifier(&self, kind: Kind) -> VerifierKey {
        VerifierKey::new(self.name.clone(), kind, self.key.verifying_key())
    }

    /// Signs as a log does. The same text gets the same signature.
    pub fn sign(&self, text: &str) -> Signature {
        self.signature(Kind::Ed25519, self.key.sign(text.as_bytes()).to_vec())
    }

    /// Signs as a witness does, at a time in seconds since 1970.
    pub fn cosign(&self, text: &str, seconds: u64) -> Signature {
        let signature = self.key.sign(cosigned(text, seconds).as_bytes());
        self.signature(Kind::Cosignature, [&seconds.to_be_bytes()[..], &signature.to_bytes()].concat())
    }

    fn signature(&self, kind: Kind, bytes: Vec<u8>) -> Signature {
        let key_id = key_id(&self.name, kind, &self.key.verifying_key());
        Signature { name: self.name.clone(), key_id, bytes }
    }
}

/// The name alone.
impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignerKey").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

    #[test]
    fn a_verifier_key_is_read_and_written_the_same() {
        let key: VerifierKey = VKEY.parse().unwrap();
        assert_eq!(
            (key.name().as_str(), key.kind(), key.id()),
            ("example.com/foo", Kind::Ed25519, 0x530d_903a)
        );
        assert_eq!(key.to_string(), VKEY);
    }

    #[test]
    fn a_verifier_key_that_is_off_is_refused() {
        let refused = |vkey: &str| vkey.parse::<VerifierKey>().unwrap_err();
        for vkey in [
            "",
            "example.com/foo",
            "example.com/foo+530d903a",
            "example.com/foo+530d903a+",
            "example.com/foo+30d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo++530d903+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3Q==",
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k ",
            "example com+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        ] {
            assert_eq!(refused(vkey), BadKey::Malformed, "{vkey}");
        }
        assert!(matches!(refused(&VKEY.replace("530d903a", "530d903b")), BadKey::Id(_)));
        assert!(matches!(refused(&VKEY.replace("foo", "fop")), BadKey::Id(_)));
        let other = VKEY.replace("+Aeky", "+Beky");
        assert_eq!(
            refused(&other).to_string(),
            "the key of example.com/foo is of type 0x05; only Ed25519 (0x01) and Ed25519 cosignatures (0x04) are known here"
        );
    }

    #[test]
    fn a_key_for_which_anybody_can_sign_is_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let key = VerifyingKey::from_bytes(&identity).unwrap();
        let vkey = VerifierKey::new("a".parse().unwrap(), Kind::Ed25519, key).to_string();
        assert!(matches!(vkey.parse::<VerifierKey>(), Err(BadKey::Weak(_))));
    }

    #[test]
    fn one_key_of_two_kinds_has_two_ids() {
        let signer = SignerKey::new("witness.example/w1".parse().unwrap(), &[7; 32]);
        let (log, witness) = (signer.verifier(Kind::Ed25519), signer.verifier(Kind::Cosignature));
        assert_ne!(log.id(), witness.id());
        assert_eq!(log.public_key(), witness.public_key());
        assert_eq!(log.verify("text\n", &signer.sign("text\n")), Ok(None));
        assert_eq!(witness.verify("text\n", &signer.cosign("text\n", 5)), Ok(Some(5)));
        assert_eq!(witness.verify("text\n", &signer.sign("text\n")), Err(BadSignature));
        assert_eq!(log.verify("text\n", &signer.cosign("text\n", 5)), Err(BadSignature));
    }

    #[test]
    fn a_cosignature_covers_its_time() {
        let signer = SignerKey::new("witness.example/w1".parse().unwrap(), &[7; 32]);
        let witness = signer.verifier(Kind::Cosignature);
        let mut signature = signer.cosign("text\n", 1_679_315_147);
        assert_eq!(signature.bytes.len(), 72);
        assert_eq!(witness.verify("text\n", &signature), Ok(Some(1_679_315_147)));
        signature.bytes[7] ^= 1;
        assert_eq!(witness.verify("text\n", &signature), Err(BadSignature));
        let beyond = signer.cosign("text\n", 1 << 63);
        assert_eq!(witness.verify("text\n", &beyond), Err(BadSignature));
    }
}
