//! Identifiers, labels and slugs.
//!
//! A value of these types is well formed: its constructor checks the shape. Error messages read `code: detail`;
//! `request` answers with both.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a valid name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "bad_id: an id is 1 to 128 characters of A-Z a-z 0-9 . _ : @ + - and begins with a letter or digit"
    )]
    Id,
    #[error(
        "bad_id: this id is 1 to 256 bytes of UTF-8 without control characters and without white space at either end"
    )]
    OutsideId,
    #[error("bad_id: an event id is 1 to 128 characters, or up to 256 bytes, without control characters")]
    EventId,
    #[error("bad_source: a source is a URI reference of 1 to 256 ASCII characters without spaces")]
    Source,
    #[error("bad_label: a label is 1 to 128 characters without control characters")]
    Label,
    #[error("bad_label: a name is 1 to 128 characters, or up to 256 bytes, without control characters")]
    OutsideName,
    #[error("bad_slug: a slug is 1 to 64 characters of a-z 0-9 _ - . and begins with a letter or digit")]
    Slug,
    #[error("bad_currency: a currency is its three-letter code in lower case, such as usd")]
    Currency,
    #[error("too_long: a text is at most 1000 characters without control characters")]
    Text,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $rule:path, $error:expr, $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the shape and takes the text.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if $rule(text) { Ok(Self(Arc::from(text))) } else { Err($error) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reader;
                impl Visitor<'_> for Reader {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string")
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Reader)
            }
        }
    };
}

/// One type for each kind of thing, all of one shape, so that ids of different kinds can't be confused.
macro_rules! id_types {
    ($rule:path, $error:expr, $schema:tt; $($(#[$doc:meta])* $name:ident)*) => {
        $(name_type!($(#[$doc])* $name, $rule, $error, $schema);)*
    };
}

// Ids that the ledger makes, or that stand in its paths as settings.
id_types! {
    is_id, NameError::Id, {
        "description": "An id of 1 to 128 characters.",
        "type": "string",
        "pattern": "^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}$",
    };
    AccountId
    /// An attempt to top up: also the payment provider's idempotency key.
    AttemptId
    ReservationId
    AlertId
    RateCardId
    PromoCode
    /// The origin of an invited account: the code of an invitation, or an account.
    ReferrerId
}

// Ids that the outside world makes.
id_types! {
    is_outside_id, NameError::OutsideId, {
        "description": "An id of the outside world: 1 to 256 bytes of UTF-8 without control characters, and without white space at either end.",
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
    };
    UserId
    OrgId
    /// A lot of credits, named by its grant or, if it was bought, by its payment.
    GrantId
    /// A payment at the payment provider.
    PaymentId
    PaymentMethodId
    DisputeId
    /// A refund at the payment provider.
    RefundId
    MessageId
    SessionId
    /// What the provider of a model calls one call, such as the id of its response.
    CallId
    /// The subject of a firing: an account or a user, depending on its kind.
    SubjectId
}
name_type!(
    /// The caller's event id: unique per account and source.
    EventId, is_event_id, NameError::EventId, {
        "description": "The id of an event, unique per account and source: 1 to 128 characters, or up to 256 bytes, without control characters.",
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
    }
);
name_type!(
    /// The producer of an event, a URI reference.
    Source, is_source, NameError::Source, {
        "description": "The producer of an event: a URI reference of 1 to 256 printable ASCII characters. Sources that begin with urn:ledger: are the ledger's own.",
        "type": "string",
        "pattern": "^[!-~]{1,256}$",
    }
);
name_type!(
    /// A free name, such as a feature's.
    Label, is_label, NameError::Label, {
        "description": "A free name, such as a feature's: 1 to 128 characters without control characters.",
        "type": "string",
        "minLength": 1,
        "maxLength": 128,
    }
);
name_type!(
    /// A name that the outside world gives: a model's or a provider's.
    OutsideName, is_wide_label, NameError::OutsideName, {
        "description": "A model's or a provider's name: 1 to 128 characters, or up to 256 bytes, without control characters.",
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
    }
);
name_type!(
    /// A lower-case name, such as a category or a quantity.
    Slug, is_slug, NameError::Slug, {
        "description": "A lower-case name, such as a category's or a quantity's.",
        "type": "string",
        "pattern": "^[a-z0-9][a-z0-9_.-]{0,63}$",
    }
);
name_type!(
    /// A currency, by its ISO 4217 code in lower case, such as `usd`.
    Currency, is_currency, NameError::Currency, {
        "description": "A currency by its ISO 4217 code in lower case.",
        "type": "string",
        "pattern": "^[a-z]{3}$",
    }
);
name_type!(
    /// A sentence for display: a name or a reason. May be empty.
    Text, is_text, NameError::Text, {
        "description": "Words for people: at most 1,000 characters without control characters. May be empty.",
        "type": "string",
        "maxLength": 1000,
    }
);

impl Source {
    /// Returns whether the source belongs to the ledger; callers may not use it.
    pub fn is_reserved(&self) -> bool {
        self.as_str().starts_with("urn:ledger:")
    }
}

impl Currency {
    pub fn usd() -> Currency {
        Currency(Arc::from("usd"))
    }
}

impl GrantId {
    /// Returns whether it has the shape of ids that stand in the ledger's paths: what a grant's id must have.
    pub fn is_of_grant(&self) -> bool {
        is_id(&self.0)
    }

    /// Returns the id of the event that grants it: in the source of grants, an event has its grant's id.
    pub fn as_event(&self) -> EventId {
        EventId(self.0.clone())
    }

    /// Returns the payment of this id: grants and payments share one id space.
    pub fn as_payment(&self) -> PaymentId {
        PaymentId(self.0.clone())
    }
}

impl PaymentId {
    /// Returns the id of the lot that it buys: a purchase's lot has its payment's id.
    pub fn as_grant(&self) -> GrantId {
        GrantId(self.0.clone())
    }

    /// Returns the id of its purchase, which shares the source of grants.
    pub fn as_event(&self) -> EventId {
        EventId(self.0.clone())
    }
}

impl AttemptId {
    /// Returns the id of the lot that it buys, which exists before the provider names a payment.
    pub fn as_grant(&self) -> GrantId {
        GrantId(self.0.clone())
    }

    /// Returns the id of its start: an attempt starts once.
    pub fn as_event(&self) -> EventId {
        EventId(self.0.clone())
    }
}

impl AccountId {
    /// Returns the subject of a firing on the account's own figures.
    pub fn as_subject(&self) -> SubjectId {
        SubjectId(self.0.clone())
    }
}

impl UserId {
    /// Returns the subject of a firing on one user's usage.
    pub fn as_subject(&self) -> SubjectId {
        SubjectId(self.0.clone())
    }
}

impl ReferrerId {
    /// Returns the account; wrong if this is the code of an invitation.
    pub fn as_account(&self) -> AccountId {
        AccountId(self.0.clone())
    }
}

impl SubjectId {
    /// Returns the user; wrong unless the firing's kind is about users.
    pub fn as_user(&self) -> UserId {
        UserId(self.0.clone())
    }
}

/// Returns whether white space stands at either end: the door refuses that in every id of the outside world.
pub fn is_padded(text: &str) -> bool {
    text.trim().len() < text.len()
}

/// Prefixes of the ids of lots that the ledger creates; callers may not use them.
const RESERVED_GRANT_PREFIXES: [&str; 5] = ["plan:", "rollover:", "welcome:", "promo:", "referral:"];

/// Returns whether a grant or payment id from a caller could clash with ids that the ledger creates.
pub fn is_reserved_grant(id: &GrantId) -> bool {
    RESERVED_GRANT_PREFIXES.iter().any(|prefix| id.as_str().starts_with(prefix))
}

fn is_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 128
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._:@+-".contains(b))
}

/// Most bytes of an id that the outside world makes.
const OUTSIDE_ID_BYTES_MAX: usize = 256;

fn is_outside_id(text: &str) -> bool {
    (1..=OUTSIDE_ID_BYTES_MAX).contains(&text.len())
        && !is_padded(text)
        && !text.chars().any(char::is_control)
}

fn is_event_id(text: &str) -> bool {
    is_wide_label(text)
}

/// 128 characters of four bytes are what records of version 1 may have; 256 bytes is what outside ids may have.
fn is_wide_label(text: &str) -> bool {
    let fits_bytes = (1..=OUTSIDE_ID_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    fits_bytes || is_label(text)
}

fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|b| b.is_ascii_lowercase())
}

fn is_source(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn is_label(text: &str) -> bool {
    let ascii = text.len() <= 128 && text.bytes().all(|b| (0x20..0x7f).contains(&b));
    !text.is_empty() && (ascii || (text.chars().count() <= 128 && !text.chars().any(char::is_control)))
}

fn is_slug(text: &str) -> bool {
    let bytes = text.as_bytes();
    let lower = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.len() <= 64
        && bytes.first().is_some_and(lower)
        && bytes.iter().all(|b| lower(b) || b"_-.".contains(b))
}

fn is_text(text: &str) -> bool {
    text.chars().count() <= 1000 && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_shape_of_the_contract() {
        for good in ["acme", "A", "0", "a.b_c:d@e+f-g", &"x".repeat(128)] {
            assert!(AccountId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", &"x".repeat(129)] {
            assert_eq!(AccountId::new(bad), Err(NameError::Id), "{bad}");
        }
    }

    #[test]
    fn event_ids_are_1_to_128_characters_or_256_bytes_of_any_script() {
        assert!(EventId::new("msg 1/ü").is_ok());
        for good in ["ü".repeat(128), "😀".repeat(128), "x".repeat(256)] {
            assert!(EventId::new(&good).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", &"ü".repeat(129), &"x".repeat(257)] {
            assert!(EventId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_of_the_outside_world_are_1_to_256_bytes_without_control_characters_and_outer_space() {
        for good in ["auth0|64ab", "projects/7/users/9", "a b", "-x", "ü", "=1+1", &"x".repeat(256)] {
            assert!(UserId::new(good).is_ok(), "{good}");
        }
        for bad in
            ["", " a", "a ", "\u{a0}a", "a\u{2003}", "a\nb", "a\u{85}b", &"x".repeat(257), &"ü".repeat(129)]
        {
            assert_eq!(UserId::new(bad), Err(NameError::OutsideId), "{bad}");
        }
    }

    #[test]
    fn sources_are_uri_references() {
        for good in ["/app", "https://a.example/b?c#d", "urn:ledger:api", &"x".repeat(256)] {
            assert!(Source::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "/ä", "a\n", &"x".repeat(257)] {
            assert!(Source::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slugs_are_lower_case() {
        assert!(Slug::new("ai_usage").is_ok());
        for bad in ["", "AI", "_a", "a b", &"x".repeat(65)] {
            assert!(Slug::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn callers_may_not_use_the_ledgers_own_grant_ids() {
        for id in ["plan:1", "rollover:-2", "welcome:acme", "promo:X", "referral:acme"] {
            assert!(is_reserved_grant(&GrantId::new(id).expect("an id")), "{id}");
        }
        assert!(!is_reserved_grant(&GrantId::new("planet").expect("an id")));
    }
}
