//! Signature: Stripe's scheme: HMAC-SHA256 by the endpoint's secret over the time and the body.

use ledger_core::time::Time;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::is_recent;

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// Says whether a body was signed with the secret, not more than five minutes ago or ahead. No secret takes nothing.
pub fn is_good(secret: &str, header: &str, body: &[u8], now: Time) -> bool {
    let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
    let time = parts().find(|(name, _)| *name == "t").map(|(_, value)| value);
    let Some(time) = time.filter(|_| !secret.is_empty()) else { return false };
    let Ok(signed_at) = time.parse::<i64>() else { return false };
    if !is_recent(signed_at, now) {
        return false;
    }
    let mut signed = format!("{time}.").into_bytes();
    signed.extend_from_slice(body);
    let expected = hex::encode(hmac(secret.as_bytes(), &signed));
    let mut given = parts().filter(|(name, _)| *name == "v1").map(|(_, value)| value);
    given.any(|given| bool::from(given.as_bytes().ct_eq(expected.as_bytes())))
}

/// RFC 2104.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_hmac_as_its_rfc_has_it() {
        // RFC 4231, test cases 2 and 6.
        let short = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex::encode(short), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let long = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex::encode(long), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    #[test]
    fn only_the_body_that_was_signed_passes_for_five_minutes() {
        let (secret, body) = ("whsec_test", br#"{"id":"evt_1"}"#);
        let now = Time::from_millis(1_800_000_000_000);
        let header = |time: i64, secret: &str| {
            let signed = [format!("{time}.").as_bytes(), body].concat();
            format!("t={time},v1={},v0=x", hex::encode(hmac(secret.as_bytes(), &signed)))
        };
        let good = |header: &str, body: &[u8]| is_good(secret, header, body, now);
        assert!(good(&header(1_800_000_000, secret), body));
        assert!(good(&header(1_800_000_000 - 300, secret), body));
        assert!(good(&format!("v1=00,{}", header(1_800_000_000, secret)), body), "one of several");
        assert!(!good(&header(1_800_000_000 - 301, secret), body), "too old");
        assert!(!good(&header(1_800_000_000 + 301, secret), body), "too new");
        assert!(!good(&header(1_800_000_000, "whsec_other"), body), "another's");
        assert!(!good(&header(1_800_000_000, secret), b"{}"), "another body");
        for header in ["", "t=1800000000", "v1=00", "t=x,v1=00", "t=1800000000,v1="] {
            assert!(!good(header, body), "{header}");
        }
        assert!(!is_good("", &header(1_800_000_000, ""), body, now), "without a secret nothing is taken");
    }
}
