//! Signature: Stripe's scheme: HMAC-SHA256 by the endpoint's secret over the time and the body.

use hmac::{Hmac, KeyInit, Mac};
use ledger_core::value::time::Time;
use sha2::Sha256;

/// Largest difference between the time of the signature and now.
const TOLERANCE_SECONDS: u64 = 5 * 60;

/// Returns whether a body was signed with the secret, within five minutes of now. An empty secret accepts nothing.
pub fn is_good(secret: &str, header: &str, body: &[u8], now: Time) -> bool {
    let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
    let time = parts().find(|(name, _)| *name == "t").map(|(_, value)| value);
    let Some(time) = time.filter(|_| !secret.is_empty()) else { return false };
    let Ok(signed_at) = time.parse::<i64>() else { return false };
    if now.micros().div_euclid(1_000_000).abs_diff(signed_at) > TOLERANCE_SECONDS {
        return false;
    }
    let expected = sign(secret, time, body);
    let mut given =
        parts().filter(|(name, _)| *name == "v1").filter_map(|(_, value)| hex::decode(value).ok());
    given.any(|given| expected.clone().verify_slice(&given).is_ok())
}

fn sign(secret: &str, time: &str, body: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.chain_update(time).chain_update(".").chain_update(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_body_that_was_signed_passes_for_five_minutes() {
        let (secret, body) = ("whsec_test", br#"{"id":"evt_1"}"#);
        let now = Time::from_millis(1_800_000_000_000);
        let header = |time: i64, secret: &str| {
            let signature = sign(secret, &time.to_string(), body).finalize().into_bytes();
            format!("t={time},v1={},v0=x", hex::encode(signature))
        };
        let good = |header: &str, body: &[u8]| is_good(secret, header, body, now);
        assert!(good(&header(1_800_000_000, secret), body));
        assert!(good(&header(1_800_000_000 - 300, secret), body));
        assert!(good(&format!("v1=00,{}", header(1_800_000_000, secret)), body), "one of several");
        assert!(!good(&header(1_800_000_000 - 301, secret), body), "too old");
        assert!(!good(&header(1_800_000_000 + 301, secret), body), "too new");
        assert!(!good(&header(1_800_000_000, "whsec_other"), body), "another's");
        assert!(!good(&header(1_800_000_000, secret), b"{}"), "another body");
        // Computed with: openssl dgst -sha256 -hmac whsec_test.
        let elsewhere = "t=1800000000,v1=45705be2a45ab5acdd1395cc695e9e7073125385ec24194921c401dff44176f8";
        assert!(good(elsewhere, body));
        let distant = format!("t={},v1=00", i64::MIN);
        for header in ["", "t=1800000000", "v1=00", "t=x,v1=00", "t=1800000000,v1=", &distant] {
            assert!(!good(header, body), "{header}");
        }
        assert!(!is_good("", &header(1_800_000_000, ""), body, now), "without a secret nothing is taken");
    }
}
