//! API keys `ldg_<key id>_<secret>`; only a hash is stored.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use ledger_core::event::field_error::FieldError;
use ledger_core::request;
use ledger_core::value::id::{AccountId, UserId};
use ledger_core::value::time::Time;
use rand::TryRng;
use rand::rngs::SysRng;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgExecutor};
use subtle::ConstantTimeEq;

use super::member_token::Issuer;
use super::role::{Accounts, Principal, Role};
use platform::pg;

/// Key id of the operator key from the environment.
pub const OPERATOR_KEY_ID: &str = "operator";
/// Bytes of a public key id; 16 hex digits in text.
const KEY_ID_BYTES: usize = 8;
/// Bytes of a secret: 256 bits can't be guessed, so a plain hash keeps it safe.
const SECRET_BYTES: usize = 32;
/// Most accounts of one key.
const ACCOUNTS_MAX: usize = 1_000;
/// Longest name of a key, in characters.
const NAME_CHARS_MAX: usize = 128;
/// Stands for all accounts.
const ALL_ACCOUNTS: &str = "*";

/// SHA-256 of a whole key.
pub(super) type Hash = [u8; 32];

pub(super) fn hash_of(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

/// Returns the key id in a token, if it has the form of a key.
pub(super) fn key_id_in(token: &str) -> Option<&str> {
    let (key_id, secret) = token.strip_prefix("ldg_")?.split_once('_')?;
    let is_secret = secret.len() == (SECRET_BYTES * 4).div_ceil(3);
    (is_key_id(key_id) && is_secret).then_some(key_id)
}

pub(super) fn is_key_id(text: &str) -> bool {
    text.len() == 2 * KEY_ID_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The request body that creates a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    pub role: Role,
    /// Account ids, or `["*"]`; none for operator and auditor, exactly one for a member.
    #[serde(default, deserialize_with = "or_default")]
    pub accounts: Vec<String>,
    /// The member; only for member keys.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// Absent means never.
    #[serde(default)]
    pub expires_at: Option<Time>,
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
}

/// Accepts null as absent.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl request::Body for NewKey {
    const GOOD: &'static str = r#"{"role":"operator"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        self.check_accounts(errors);
        let is_member = self.role == Role::Member;
        if is_member && self.user_id.is_none() {
            errors.push(FieldError::new("user_id", "required", "a member's key names its user"));
        }
        if !is_member && self.user_id.is_some() {
            errors.push(FieldError::new("user_id", "not_allowed", "only a member's key names a user"));
        }
        if self.name.chars().count() > NAME_CHARS_MAX || self.name.chars().any(char::is_control) {
            let detail = "is at most 128 characters without control characters";
            errors.push(FieldError::new("name", "too_long", detail));
        }
    }
}

impl NewKey {
    fn check_accounts(&self, errors: &mut Vec<FieldError>) {
        let everywhere = self.accounts == [ALL_ACCOUNTS];
        let mut refuse = |code: &str, detail: &str| errors.push(FieldError::new("accounts", code, detail));
        if self.role.is_everywhere() {
            if !everywhere && !self.accounts.is_empty() {
                refuse("not_allowed", "a key of this role holds in every account");
            }
            return;
        }
        if self.accounts.is_empty() {
            refuse("required", "a key of this role names its accounts, or [\"*\"]");
        }
        if self.role == Role::Member && (self.accounts.len() > 1 || everywhere) {
            refuse("too_many", "a member's key names one account");
        }
        if self.accounts.len() > ACCOUNTS_MAX {
            refuse("too_many", "at most 1000 accounts");
        }
        if !everywhere && self.accounts.iter().any(|account| AccountId::new(account).is_err()) {
            refuse("bad_id", "each is an account id; [\"*\"] alone stands for all");
        }
    }

    /// 422 if the key would already be expired; separate from [`request::Body::check`] because it needs the time.
    pub fn check_expiry(&self, now: Time) -> Result<(), FieldError> {
        match self.expires_at {
            Some(expires_at) if expires_at <= now => {
                Err(FieldError::new("expires_at", "not_in_future", "must be in the future"))
            }
            _ => Ok(()),
        }
    }
}

/// The operators' view of a key: everything but the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Key {
    pub key_id: String,
    pub role: Role,
    pub accounts: Vec<String>,
    /// The member; only for member keys.
    #[schemars(with = "Option<UserId>")]
    pub user_id: Option<String>,
    pub name: String,
    pub created_at: Time,
    /// A key id, or `cli`.
    pub created_by: String,
    pub expires_at: Option<Time>,
    pub revoked_at: Option<Time>,
}

/// A new key; the only time that its secret is visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CreatedKey {
    #[serde(flatten)]
    pub key: Key,
    /// `ldg_<key id>_<secret>`: the bearer token.
    pub secret: String,
}

/// Creates a key and stores its hash, in the caller's transaction.
pub async fn create_key(
    connection: &mut PgConnection,
    new: &NewKey,
    created_by: &str,
    now: Time,
) -> Result<CreatedKey, sqlx::Error> {
    let (key_id, secret) = draw()?;
    sqlx::query!(
        "insert into control.api_key (key_id, hash, role, accounts, user_id, name, created_at, created_by, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        key_id,
        &hash_of(&secret)[..],
        new.role.name(),
        &new.accounts,
        new.user_id.as_ref().map(UserId::as_str),
        new.name,
        pg::timestamp(now),
        created_by,
        new.expires_at.map(pg::timestamp),
    )
    .execute(connection)
    .await?;
    let key = Key {
        key_id,
        role: new.role,
        accounts: new.accounts.clone(),
        user_id: new.user_id.as_ref().map(|user| user.as_str().to_owned()),
        name: new.name.clone(),
        created_at: now,
        created_by: created_by.to_owned(),
        expires_at: new.expires_at,
        revoked_at: None,
    };
    Ok(CreatedKey { key, secret })
}

/// Generates a key id and the whole key from the system's randomness.
fn draw() -> Result<(String, String), sqlx::Error> {
    let mut bytes = [0; KEY_ID_BYTES + SECRET_BYTES];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| sqlx::Error::Io(std::io::Error::other(error)))?;
    let key_id = hex::encode(&bytes[..KEY_ID_BYTES]);
    let secret = URL_SAFE_NO_PAD.encode(&bytes[KEY_ID_BYTES..]);
    let key = format!("ldg_{key_id}_{secret}");
    Ok((key_id, key))
}

/// Generates a secret that signs an account's webhooks: `whsec_` and 32 bytes in base64, as in Standard Webhooks.
pub fn new_webhook_secret() -> Result<String, sqlx::Error> {
    let mut bytes = [0; SECRET_BYTES];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| sqlx::Error::Io(std::io::Error::other(error)))?;
    Ok(format!("whsec_{}", STANDARD.encode(bytes)))
}

/// A row of `control.api_key` without its hash.
struct KeyRow {
    key_id: String,
    role: String,
    accounts: Vec<String>,
    user_id: Option<String>,
    name: String,
    created_at: DateTime<Utc>,
    created_by: String,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl TryFrom<KeyRow> for Key {
    type Error = sqlx::Error;

    fn try_from(row: KeyRow) -> Result<Key, sqlx::Error> {
        Ok(Key {
            key_id: row.key_id,
            role: role_of(&row.role)?,
            accounts: row.accounts,
            user_id: row.user_id,
            name: row.name,
            created_at: pg::time_of(row.created_at),
            created_by: row.created_by,
            expires_at: row.expires_at.map(pg::time_of),
            revoked_at: row.revoked_at.map(pg::time_of),
        })
    }
}

/// A statement that returns [`KeyRow`]s, whose columns go between its two parts.
macro_rules! query_keys {
    ($before:literal, $after:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            KeyRow,
            $before
                + " key_id, role, accounts, user_id, name, created_at, created_by, expires_at, revoked_at "
                + $after,
            $($argument),+
        )
    };
}

/// Returns at most `limit` keys in id order, after `after`.
pub async fn list_keys(
    executor: impl PgExecutor<'_>,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Key>, sqlx::Error> {
    let query = query_keys!(
        "select",
        "from control.api_key where key_id > $1 order by key_id limit $2",
        after.unwrap_or_default(),
        limit
    );
    query.fetch_all(executor).await?.into_iter().map(Key::try_from).collect()
}

pub async fn load_key(executor: impl PgExecutor<'_>, key_id: &str) -> Result<Option<Key>, sqlx::Error> {
    let query = query_keys!("select", "from control.api_key where key_id = $1", key_id);
    query.fetch_optional(executor).await?.map(Key::try_from).transpose()
}

/// Revokes a key, effective everywhere within a second; idempotent. `None`: no such key.
pub async fn revoke_key(
    connection: &mut PgConnection,
    key_id: &str,
    now: Time,
) -> Result<Option<Key>, sqlx::Error> {
    let query = query_keys!(
        "update control.api_key set revoked_at = coalesce(revoked_at, $2) where key_id = $1 returning",
        "",
        key_id,
        pg::timestamp(now)
    );
    query.fetch_optional(connection).await?.map(Key::try_from).transpose()
}

fn role_of(name: &str) -> Result<Role, sqlx::Error> {
    Role::by_name(name).ok_or_else(|| sqlx::Error::Decode(format!("no role {name}").into()))
}

/// The stored data that authentication needs.
pub(super) struct StoredKey {
    hash: Vec<u8>,
    principal: Principal,
    expires_at: Option<Time>,
}

impl StoredKey {
    /// Returns the caller if the secret is right and the key is valid.
    pub(super) fn admit(&self, hash: &Hash, now: Time) -> Option<Principal> {
        let right = bool::from(self.hash.ct_eq(&hash[..]));
        (right && self.is_alive(now)).then(|| self.principal.clone())
    }

    /// Returns the key as the signer of member tokens, if it is valid.
    pub(super) fn issuer(&self, now: Time) -> Option<Issuer> {
        let (principal, secret) = (self.principal.clone(), self.hash.clone());
        self.is_alive(now).then_some(Issuer { principal, secret })
    }

    fn is_alive(&self, now: Time) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

/// Reads the keys that exist and are not revoked, by their ids.
pub(super) async fn load_stored(
    executor: impl PgExecutor<'_>,
    key_ids: &[&str],
) -> Result<HashMap<String, StoredKey>, sqlx::Error> {
    let rows = sqlx::query!(
        "select key_id, hash, role, accounts, user_id, expires_at
         from control.api_key
         where key_id = any($1) and revoked_at is null",
        key_ids as &[&str]
    );
    let mut keys = HashMap::new();
    for row in rows.fetch_all(executor).await? {
        let role = role_of(&row.role)?;
        let principal = Principal {
            key_id: row.key_id.as_str().into(),
            role,
            accounts: accounts_of(role, row.accounts),
            user_id: row.user_id.map(Arc::from),
        };
        let expires_at = row.expires_at.map(pg::time_of);
        keys.insert(row.key_id, StoredKey { hash: row.hash, principal, expires_at });
    }
    Ok(keys)
}

fn accounts_of(role: Role, named: Vec<String>) -> Accounts {
    if role.is_everywhere() || named == [ALL_ACCOUNTS] {
        Accounts::All
    } else {
        Accounts::Named(named.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: serde_json::Value, expected: &[(&str, &str)]) {
        let errors = request::read::<NewKey>(body.clone()).map(|_| ()).err().unwrap_or_default();
        let found: Vec<_> = errors.iter().map(|error| (error.field.as_str(), error.code.as_str())).collect();
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn a_key_names_the_accounts_that_its_role_needs() {
        check(
            json!({"role": "producer", "accounts": ["acme"], "user_id": null, "expires_at": null, "name": "chat"}),
            &[],
        );
        check(json!({"role": "admin", "accounts": ["*"]}), &[]);
        check(json!({"role": "auditor"}), &[]);
        check(json!({"role": "member", "accounts": ["acme"], "user_id": "ana"}), &[]);
        check(json!({"role": "producer"}), &[("accounts", "required")]);
        check(json!({"role": "auditor", "accounts": ["acme"]}), &[("accounts", "not_allowed")]);
        check(json!({"role": "admin", "accounts": ["acme", "*"]}), &[("accounts", "bad_id")]);
        check(json!({"role": "member", "accounts": ["*"], "user_id": "ana"}), &[("accounts", "too_many")]);
        check(json!({"role": "member", "accounts": ["acme"]}), &[("user_id", "required")]);
        check(
            json!({"role": "admin", "accounts": ["acme"], "user_id": "ana"}),
            &[("user_id", "not_allowed")],
        );
        check(json!({"role": "root"}), &[("role", "not_one_of")]);
        check(json!({"role": "auditor", "colour": "red"}), &[("colour", "unknown_field")]);
    }

    #[test]
    fn a_drawn_key_names_itself_and_no_two_are_alike() {
        let (key_id, key) = draw().expect("randomness");
        assert_eq!(key_id_in(&key), Some(key_id.as_str()));
        assert_ne!(draw().expect("randomness").1, key);
    }

    #[test]
    fn other_text_is_no_key() {
        let long = format!("ldg_0123456789abcdef_{}", "a".repeat(44));
        for text in ["", "ldg_", "ldg_0123456789abcdef_", "ldg_xyz_aaa", &long] {
            assert_eq!(key_id_in(text), None, "{text}");
        }
    }

    #[test]
    fn a_key_is_admitted_by_its_secret_until_it_expires() {
        let expires_at: Time = "2026-02-03T10:00:00Z".parse().expect("a time");
        let stored = StoredKey {
            hash: hash_of("right").to_vec(),
            principal: Principal::operator("k"),
            expires_at: Some(expires_at),
        };
        let before = expires_at.plus_micros(-1);
        assert!(stored.admit(&hash_of("right"), before).is_some());
        assert!(stored.admit(&hash_of("wrong"), before).is_none());
        assert!(stored.admit(&hash_of("right"), expires_at).is_none());
    }
}
