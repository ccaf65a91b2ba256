//! Refusal: why usage is not accepted.

use ledger_core::event::field_error::FieldError;
use ledger_core::event::wire;
use ledger_core::value::id::{AccountId, ReservationId};
use web::http::Problem;

use super::ledger_time::CLOCK_IS_LIVE;
use crate::holds::request::{HOLD_ENDED, RESERVATION_NOT_FOUND, no_reservation};

/// Whether a projection that has caught up would refuse as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    Final,
    /// A lagging projection may be the cause.
    Doubtful,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub code: &'static str,
    pub detail: String,
    /// The invalid fields, if fields are the reason.
    pub errors: Vec<FieldError>,
    pub certainty: Certainty,
}

/// The projection did not catch up in time to decide whether something is absent.
pub const BEHIND: &str = "behind";
/// The record would be longer than the journal accepts.
pub const TOO_LARGE: &str = "too_large";
pub const ACCOUNT_NOT_FOUND: &str = "account_not_found";
pub const ACCOUNT_CLOSED: &str = "account_closed";
/// Usage of this id settled the hold with other content.
pub const CONFLICT: &str = "conflict";
/// The key has no access to the account.
pub const FORBIDDEN: &str = "forbidden";

/// Codes that are reported for an item as they are; every other field error makes it `invalid`.
const OWN_CODES: [&str; 3] = ["too_new", "too_old", "unpriced_usage"];

impl Refusal {
    /// Refuses for one reason that does not concern a field.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Refusal {
        let (detail, errors) = (detail.into(), Vec::new());
        Refusal { code, detail, errors, certainty: Certainty::Final }
    }

    pub fn invalid(errors: Vec<FieldError>) -> Refusal {
        let own = OWN_CODES.into_iter().find(|own| errors.iter().any(|error| error.code == *own));
        let code = own.unwrap_or("invalid");
        let parts: Vec<String> =
            errors.iter().map(|error| format!("{}: {}", error.field, error.detail)).collect();
        Refusal { code, detail: parts.join("; "), errors, certainty: Certainty::Final }
    }

    pub fn field(field: String, code: &str, detail: impl Into<String>) -> Refusal {
        Refusal::invalid(vec![FieldError::new(field, code, detail)])
    }

    pub fn doubtful(self) -> Refusal {
        Refusal { certainty: Certainty::Doubtful, ..self }
    }

    pub fn account_not_found(account: &AccountId) -> Refusal {
        Refusal::new(ACCOUNT_NOT_FOUND, format!("account {account} does not exist")).doubtful()
    }

    pub fn account_closed(account: &AccountId) -> Refusal {
        Refusal::new(ACCOUNT_CLOSED, format!("account {account} is closed"))
    }

    pub fn reservation_not_found(account: &AccountId, reservation: &ReservationId) -> Refusal {
        Refusal::new(RESERVATION_NOT_FOUND, no_reservation(account, reservation))
    }

    /// Returns the answer to a request whose only event is refused.
    pub fn problem(self) -> Problem {
        let Refusal { code, detail, errors, .. } = self;
        match code {
            ACCOUNT_NOT_FOUND | RESERVATION_NOT_FOUND => Problem::not_found(code, detail),
            CLOCK_IS_LIVE | HOLD_ENDED | CONFLICT | ACCOUNT_CLOSED => Problem::conflicting(code, detail),
            FORBIDDEN => Problem::forbidden(),
            TOO_LARGE => Problem::too_large(wire::RECORD_BYTES_MAX),
            BEHIND => Problem::behind(detail),
            _ => Problem { errors, ..Problem::unprocessable(code, detail) },
        }
    }

    pub fn behind() -> Refusal {
        Refusal::new(BEHIND, "the projection is behind the journal: send it again").doubtful()
    }
}

/// Refuses a record because of its length.
pub fn too_large(bytes: usize) -> Refusal {
    Refusal::new(
        TOO_LARGE,
        format!("a record has at most {} bytes, this one {bytes}", wire::RECORD_BYTES_MAX),
    )
}
