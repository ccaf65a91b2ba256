//! Seal: a session as the value of a cookie, which only processes with the same operator key can make or read.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

/// Separates this use of the operator key from all others.
const PURPOSE: &[u8] = b"ledger console session 1";
/// How long a session lasts.
pub const SESSION_SECONDS: i64 = 12 * 60 * 60;

/// What a browser that is signed in has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The API key, which each request uses: the session ends with it.
    pub key: String,
    /// Stands in every form.
    pub csrf: String,
    /// Seconds since 1970.
    pub ends_at: i64,
}

/// Seals and opens sessions.
pub struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
}

/// Returns random text for tokens: 128 bits in hex.
pub fn random_text() -> String {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    hex::encode(bytes)
}

impl Session {
    pub fn begin(key: &str, now_seconds: i64) -> Session {
        Session { key: key.to_owned(), csrf: random_text(), ends_at: now_seconds + SESSION_SECONDS }
    }
}

impl Seal {
    /// Derives the secret from the operator key; without one it is drawn, and sessions end with the process.
    pub fn new(operator_key: Option<&str>) -> Seal {
        let random = SystemRandom::new();
        let drawn = random_text() + &random_text();
        let from = operator_key.filter(|key| !key.is_empty()).unwrap_or(&drawn);
        let secret = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, from.as_bytes()), PURPOSE);
        let key = UnboundKey::new(&AES_256_GCM, secret.as_ref()).expect("32 bytes, as AES-256 takes");
        Seal { key: LessSafeKey::new(key), random }
    }

    pub fn close(&self, session: &Session) -> String {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).expect("the system has randomness");
        let mut sealed = serde_json::to_vec(session).expect("plain JSON");
        let whole = self.key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(PURPOSE),
            &mut sealed,
        );
        whole.expect("far below what one nonce seals");
        URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat())
    }

    /// Returns the session of a value that this ledger has sealed, until it ends.
    pub fn open(&self, value: &str, now_seconds: i64) -> Option<Session> {
        let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::from(PURPOSE), &mut sealed).ok()?;
        let session: Session = serde_json::from_slice(opened).ok()?;
        (now_seconds < session.ends_at).then_some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATOR: Option<&str> = Some("the operator's key of these tests");

    #[test]
    fn every_process_with_the_operator_key_opens_a_session_until_it_ends() {
        let session = Session::begin("ldg_a_b", 1_000);
        let value = Seal::new(OPERATOR).close(&session);
        let other = Seal::new(OPERATOR);
        assert_eq!(other.open(&value, 1_000), Some(session.clone()));
        assert_eq!(other.open(&value, 1_000 + SESSION_SECONDS - 1), Some(session));
        assert_eq!(other.open(&value, 1_000 + SESSION_SECONDS), None);
    }

    #[test]
    fn a_value_that_this_ledger_has_not_sealed_opens_nothing() {
        let session = Session::begin("ldg_a_b", 1_000);
        let value = Seal::new(OPERATOR).close(&session);
        assert!(!value.contains("ldg"), "{value}");
        for other in [Seal::new(Some("another operator's key of these tests")), Seal::new(None)] {
            assert_eq!(other.open(&value, 1_000), None);
        }
        let mut changed = value.clone().into_bytes();
        changed[30] = if changed[30] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("text");
        for bad in ["", "AAAA", "!", &value[..value.len() - 2], &changed] {
            assert_eq!(Seal::new(OPERATOR).open(bad, 1_000), None, "{bad}");
        }
    }
}
