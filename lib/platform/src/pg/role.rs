//! The logins of the services: one role a service, none of them an owner or a superuser.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tracing::info;

use super::error::Error;
use super::transaction::maintain;

/// A service's login, with the rights that the service needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    CommandApi,
    Projector,
    AlertWorker,
    QueryApi,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::CommandApi, Role::Projector, Role::AlertWorker, Role::QueryApi];

    /// Returns the role's name in Postgres.
    pub const fn name(self) -> &'static str {
        match self {
            Role::CommandApi => "ledger_command_api",
            Role::Projector => "ledger_projector",
            Role::AlertWorker => "ledger_alert_worker",
            Role::QueryApi => "ledger_query_api",
        }
    }

    /// Returns the service that logs in by it.
    pub const fn service(self) -> &'static str {
        match self {
            Role::CommandApi => "command-api",
            Role::Projector => "projector",
            Role::AlertWorker => "alert-worker",
            Role::QueryApi => "query-api",
        }
    }

    pub fn by_name(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Its rights in the schemas that are no generation.
    pub(super) const fn rights(self) -> &'static str {
        match self {
            Role::CommandApi => include_str!("rights/command_api.sql"),
            Role::Projector => include_str!("rights/projector.sql"),
            Role::AlertWorker => include_str!("rights/alert_worker.sql"),
            Role::QueryApi => include_str!("rights/query_api.sql"),
        }
    }
}

/// Least characters of a login's password.
pub const PASSWORD_CHARS_MIN: usize = 16;

/// A login's password: printable ASCII, so that no client and no server has to normalise it.
#[derive(Clone)]
pub struct Password(String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

impl Password {
    /// Errors: a sentence that says what a password must be.
    pub fn new(text: &str) -> Result<Password, String> {
        if text.len() < PASSWORD_CHARS_MIN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("must be {PASSWORD_CHARS_MIN} or more printable ASCII characters"));
        }
        Ok(Password(text.to_owned()))
    }

    /// Returns what Postgres stores of it, so that the password itself is in no statement and in no log of the server.
    fn verifier(&self, salt: &[u8]) -> String {
        let salted = salted(self.0.as_bytes(), salt);
        let stored_key = Sha256::digest(mac(&salted, &[b"Client Key"]));
        let server_key = mac(&salted, &[b"Server Key"]);
        let [salt, stored_key, server_key] =
            [salt, stored_key.as_slice(), server_key.as_slice()].map(|bytes| STANDARD.encode(bytes));
        format!("SCRAM-SHA-256${SCRAM_ROUNDS}:{salt}${stored_key}:{server_key}")
    }
}

/// As many as Postgres itself takes by default.
const SCRAM_ROUNDS: u32 = 4_096;

/// PBKDF2 with HMAC-SHA-256 of one block.
fn salted(password: &[u8], salt: &[u8]) -> [u8; 32] {
    let mut last = mac(password, &[salt, &1_u32.to_be_bytes()]);
    let mut all = last;
    for _ in 1..SCRAM_ROUNDS {
        last = mac(password, &[&last]);
        all.iter_mut().zip(last).for_each(|(all, byte)| *all ^= byte);
    }
    all
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Creates a service's login, or sets its password; refuses a role that could do more than it should.
pub async fn make_login(pool: &PgPool, role: Role, password: &Password) -> Result<(), Error> {
    let verifier = password.verifier(&uuid::Uuid::new_v4().into_bytes());
    maintain(pool, move |connection| Box::pin(make_with(connection, role, verifier))).await
}

async fn make_with(connection: &mut PgConnection, role: Role, verifier: String) -> Result<(), Error> {
    let name = role.name();
    let exists: bool = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)")
        .bind(name)
        .fetch_one(&mut *connection)
        .await?;
    let verb = if exists { "alter role" } else { "create role" };
    // A verifier is Base64, digits and four signs, none of them a quote.
    let make = format!("{verb} {name} login password '{verifier}'");
    sqlx::query(AssertSqlSafe(make)).execute(&mut *connection).await?;
    let mighty: bool = sqlx::query_scalar(
        "select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls
           from pg_roles
          where rolname = $1",
    )
    .bind(name)
    .fetch_one(connection)
    .await?;
    if mighty {
        return Err(Error::RoleTooMighty(name));
    }
    info!(role = name, created = !exists, "login made");
    Ok(())
}

/// Returns the logins that this server has.
pub async fn existing_roles(pool: &PgPool) -> Result<Vec<Role>, sqlx::Error> {
    existing(&mut *pool.acquire().await?).await
}

pub(super) async fn existing(connection: &mut PgConnection) -> Result<Vec<Role>, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar("select rolname::text from pg_roles where rolname = any($1)")
        .bind(Role::ALL.map(|role| role.name().to_owned()).to_vec())
        .fetch_all(connection)
        .await?;
    Ok(Role::ALL.into_iter().filter(|role| names.iter().any(|name| name == role.name())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_what_postgres_makes_of_the_password() {
        // The password and the salt of RFC 7677, section 3.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("Base64");
        let verifier = Password("pencil".to_owned()).verifier(&salt);
        assert_eq!(
            verifier,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn a_password_that_can_be_guessed_or_read_two_ways_is_refused() {
        for text in ["", "short", "fifteen-letters", "passwörter sind lang genug", "with a space in it"] {
            assert!(Password::new(text).is_err(), "{text}");
        }
        assert!(Password::new("0123456789abcdef").is_ok());
    }
}
