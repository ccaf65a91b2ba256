//! Key file: the log's private keys as PKCS#8 PEM, and the key of each partition that follows from them.

use std::fmt;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::key::SignerKey;
use crate::name::KeyName;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// The most keys of one file. During a rotation there are two.
const KEYS_MAX: usize = 16;

/// One private key of a file. No log signs with it: each has a key of its own, since a policy may not hold two logs of
/// one key.
#[derive(Clone, PartialEq, Eq)]
pub struct LogKey(Zeroizing<[u8; 32]>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFile {
    #[error("the file has no PKCS#8 private key in PEM")]
    Empty,
    #[error("private key {0} of the file is not a PKCS#8 Ed25519 key in PEM")]
    Malformed(usize),
    #[error("private key {0} of the file stands in it twice")]
    Twice(usize),
    #[error("the file has more than {KEYS_MAX} private keys")]
    TooMany,
}

impl LogKey {
    /// Makes a key of 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> LogKey {
        LogKey(Zeroizing::new(seed))
    }

    /// Writes the key as `openssl genpkey -algorithm ed25519` does.
    pub fn to_pem(&self) -> Zeroizing<String> {
        // Without the public key: that form is newer, and OpenSSL doesn't read it.
        let bytes = KeypairBytes { secret_key: *self.0, public_key: None };
        bytes.to_pkcs8_pem(LineEnding::LF).expect("a key of 32 bytes has a PEM form")
    }

    /// Returns the key with which the log of this origin signs: HKDF-SHA-256 of the file's bytes, without a salt.
    pub fn signer(&self, origin: &KeyName) -> SignerKey {
        let mut seed = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, self.0.as_slice())
            .expand(origin.as_str().as_bytes(), seed.as_mut_slice())
            .expect("32 bytes are one block");
        SignerKey::new(origin.clone(), &seed)
    }
}

/// Says nothing of the key.
impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogKey")
    }
}

/// Reads all keys of a file. What stands between them is ignored, as OpenSSL does.
pub fn parse(file: &str) -> Result<Vec<LogKey>, BadFile> {
    let mut keys: Vec<LogKey> = Vec::new();
    for (at, block) in file.split(BEGIN).skip(1).enumerate() {
        let number = at + 1;
        if number > KEYS_MAX {
            return Err(BadFile::TooMany);
        }
        let key = parse_block(block).ok_or(BadFile::Malformed(number))?;
        if keys.contains(&key) {
            return Err(BadFile::Twice(number));
        }
        keys.push(key);
    }
    if keys.is_empty() { Err(BadFile::Empty) } else { Ok(keys) }
}

fn parse_block(behind_begin: &str) -> Option<LogKey> {
    let (body, _) = behind_begin.split_once(END)?;
    let pem = Zeroizing::new(format!("{BEGIN}{body}{END}\n"));
    let key = SigningKey::from_pkcs8_pem(&pem).ok()?;
    Some(LogKey::from_seed(key.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Kind;

    /// Made by `openssl genpkey -algorithm ed25519`, from RFC 8410, 10.3.
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    /// The same with its public key, from the same place.
    const PEM_WITH_PUBLIC: &str = "-----BEGIN PRIVATE KEY-----\n\
        MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\n\
        Z9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PRIVATE KEY-----\n";

    fn key(seed: u8) -> LogKey {
        LogKey::from_seed([seed; 32])
    }

    #[test]
    fn a_key_is_read_and_written_as_openssl_does() {
        let keys = parse(PEM).unwrap();
        assert_eq!(
            hex::encode(*keys[0].0),
            "d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842"
        );
        assert_eq!(keys[0].to_pem().as_str(), PEM);
        assert_eq!(parse(PEM_WITH_PUBLIC).unwrap(), keys);
        assert_eq!(parse(&PEM.replace('\n', "\r\n")).unwrap(), keys);
    }

    #[test]
    fn a_file_may_have_several_keys() {
        let file = format!("the old one:\n{}\nthe new one:\n{}", *key(1).to_pem(), *key(2).to_pem());
        assert_eq!(parse(&file).unwrap(), [key(1), key(2)]);
    }

    #[test]
    fn a_file_that_is_off_is_refused() {
        assert_eq!(parse(""), Err(BadFile::Empty));
        assert_eq!(parse("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"), Err(BadFile::Empty));
        assert_eq!(parse(&PEM.replace("MC4C", "MC4D")), Err(BadFile::Malformed(1)));
        assert_eq!(parse(&PEM[..PEM.len() - 20]), Err(BadFile::Malformed(1)));
        assert_eq!(parse(&format!("{PEM}{}", PEM.replace("VwBC", "VuBC"))), Err(BadFile::Malformed(2)));
        assert_eq!(parse(&format!("{PEM}{PEM}")), Err(BadFile::Twice(2)));
        let many: String = (0..=16).map(|seed| key(seed).to_pem().to_string()).collect();
        assert_eq!(parse(&many), Err(BadFile::TooMany));
    }

    #[test]
    fn each_log_has_a_key_of_its_own() {
        let public = |seed: u8, origin: &str| {
            hex::encode(key(seed).signer(&origin.parse().unwrap()).verifier(Kind::Ed25519).public_key())
        };
        assert_ne!(public(1, "ledger.local/v1/audit/log/a/0"), public(1, "ledger.local/v1/audit/log/a/1"));
        assert_ne!(public(1, "ledger.local/v1/audit/log/a/0"), public(2, "ledger.local/v1/audit/log/a/0"));
        // Made by Python's `cryptography`: HKDF(SHA256, 32, salt=None, info=origin), then Ed25519.
        assert_eq!(
            public(1, "ledger.local/v1/audit/log/a/0"),
            "33e871f82c52a7878fd28d4dc9f12e0445c6498777425f5c72290b4faf53c733"
        );
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", key(1)), "LogKey");
    }
}
