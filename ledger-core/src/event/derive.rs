//! Derived ids: an event that the ledger creates has an id computed from its subject.
//!
//! UUIDv5 over `NAMESPACE` and a name whose parts are joined by `/` (`%` and `/` within a part are percent-encoded), so a replay, a restart or a second worker produces the
//! same id. The names are part of the public contract (`schemas/README.md`).

use uuid::Uuid;

use crate::event::Brake;
use crate::value::id::{AccountId, AttemptId, DisputeId, EventId, GrantId, RefundId, Source};
use crate::value::time::Time;

pub const NAMESPACE: Uuid = Uuid::from_u128(0x6c_65_64_67_65_72_50_00_80_00_63_72_65_64_69_74);

/// Source of resets and clock ticks.
pub const SCHEDULER: &str = "urn:ledger:scheduler";
/// Source of grants and payments: one id space.
pub const GRANTS: &str = "urn:ledger:grants";
/// Source of auto top-up events.
pub const TOP_UPS: &str = "urn:ledger:auto-top-up";
/// Source of disputes, which only the payment provider reports.
pub const DISPUTES: &str = "urn:ledger:disputes";
/// Source of all other writes of the API.
pub const API: &str = "urn:ledger:api";

/// Returns the id derived from a kind and its parts.
pub fn derived(kind: &str, parts: &[&str]) -> EventId {
    let id = named(kind, parts);
    EventId::new(&id.to_string()).expect("a UUID is a well-formed event id")
}

pub(crate) fn named(kind: &str, parts: &[&str]) -> Uuid {
    let mut name = String::from(kind);
    for part in parts {
        name.push('/');
        push_encoded(&mut name, part);
    }
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// Appends a part so that no two lists of parts give one name. Ids without `%` and `/` stay as they are.
fn push_encoded(name: &mut String, part: &str) {
    for character in part.chars() {
        match character {
            '%' => name.push_str("%25"),
            '/' => name.push_str("%2F"),
            other => name.push(other),
        }
    }
}

pub fn reset_id(account: &AccountId, index: i64) -> EventId {
    derived("reset", &[account.as_str(), &index.to_string()])
}

/// Returns the id of the tick at an instant where a lot starts or ends.
pub fn tick_id(account: &AccountId, at: Time) -> EventId {
    derived("tick", &[account.as_str(), &at.to_string()])
}

pub fn opening_id(account: &AccountId) -> EventId {
    derived("open", &[account.as_str()])
}

pub fn reversal_id(account: &AccountId, source: &Source, event: &EventId) -> EventId {
    derived("reversal", &[account.as_str(), source.as_str(), event.as_str()])
}

pub fn void_id(account: &AccountId, grant: &GrantId) -> EventId {
    derived("void", &[account.as_str(), grant.as_str()])
}

/// Returns the id of an account's `number`-th top-up attempt: also the provider's idempotency key, the lot's id, and
/// the id of its start event.
pub fn attempt_id(account: &AccountId, number: u32) -> AttemptId {
    let id = named("attempt", &[account.as_str(), &number.to_string()]);
    AttemptId::new(&id.to_string()).expect("a UUID is a well-formed id")
}

pub fn topped_up_id(account: &AccountId, attempt: &AttemptId) -> EventId {
    derived("topped_up", &[account.as_str(), attempt.as_str()])
}

pub fn top_up_failed_id(account: &AccountId, attempt: &AttemptId) -> EventId {
    derived("top_up_failed", &[account.as_str(), attempt.as_str()])
}

/// Returns the id of a brake's refusal: one for each version of the settings in each period.
pub fn top_up_refused_id(account: &AccountId, brake: Brake, version: u32, period_index: i64) -> EventId {
    let (version, period) = (version.to_string(), period_index.to_string());
    derived("top_up_refused", &[account.as_str(), brake.as_str(), &version, &period])
}

pub fn dispute_opened_id(account: &AccountId, dispute: &DisputeId) -> EventId {
    derived("dispute_opened", &[account.as_str(), dispute.as_str()])
}

pub fn dispute_won_id(account: &AccountId, dispute: &DisputeId) -> EventId {
    derived("dispute_won", &[account.as_str(), dispute.as_str()])
}

/// Returns the id of the event that records a provider's refund.
pub fn refunded_id(account: &AccountId, refund: &RefundId) -> EventId {
    derived("refunded", &[account.as_str(), refund.as_str()])
}

pub fn refund_failed_id(account: &AccountId, refund: &RefundId) -> EventId {
    derived("refund_failed", &[account.as_str(), refund.as_str()])
}

pub fn closing_id(account: &AccountId) -> EventId {
    derived("close", &[account.as_str()])
}

/// Returns the id of a write with an `Idempotency-Key`.
pub fn keyed_id(kind: &str, account: &AccountId, idempotency_key: &str) -> EventId {
    derived(kind, &[account.as_str(), idempotency_key])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_never_change() {
        let acme = AccountId::new("acme").expect("an id");
        assert_eq!(reset_id(&acme, 3), reset_id(&acme, 3));
        assert_ne!(reset_id(&acme, 3), reset_id(&acme, 4));
        // Frozen: resets in old journals carry it.
        assert_eq!(reset_id(&acme, 3).as_str(), Uuid::new_v5(&NAMESPACE, b"reset/acme/3").to_string());
    }

    #[test]
    fn no_two_usages_share_a_reversal() {
        let acme = AccountId::new("acme").expect("an id");
        let reversal = |source: &str, event: &str| {
            let (source, event) =
                (Source::new(source).expect("a source"), EventId::new(event).expect("an id"));
            reversal_id(&acme, &source, &event).to_string()
        };
        assert_ne!(reversal("/v1", "usage/x"), reversal("/v1/usage", "x"));
        assert_ne!(reversal("/a%2Fb", "x"), reversal("/a/b", "x"));
        let named = |name: &[u8]| Uuid::new_v5(&NAMESPACE, name).to_string();
        assert_eq!(reversal("/v1/usage", "x"), named(b"reversal/acme/%2Fv1%2Fusage/x"));
        assert_eq!(reversal("/a%b", "x/1"), named(b"reversal/acme/%2Fa%25b/x%2F1"));
        assert_eq!(reversal("urn:app", "x"), named(b"reversal/acme/urn:app/x"), "as it always was");
    }

    #[test]
    fn ids_of_attempts_never_change() {
        // Frozen: the provider knows charges by it.
        let acme = AccountId::new("acme").expect("an id");
        let expected = Uuid::new_v5(&NAMESPACE, b"attempt/acme/1").to_string();
        assert_eq!(attempt_id(&acme, 1).as_str(), expected);
        assert_ne!(attempt_id(&acme, 2).as_str(), expected);
    }
}
