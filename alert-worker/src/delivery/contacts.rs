//! `control.contacts`, as far as delivery reads it: the people of an account and its webhook.

use std::collections::HashMap;

use ledger_core::value::id::UserId;
use platform::pg::{self, PgConnection, PgPool};
use serde::Deserialize;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contacts {
    /// The people who configure the account and receive notifications, in order.
    pub admins: Vec<Person>,
    /// The people who use the account.
    pub users: Vec<Person>,
    pub has_webhook: bool,
}

/// An admin or user who can be notified.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Person {
    /// The id that the account uses for them.
    pub id: UserId,
    pub email: Option<String>,
}

impl Contacts {
    /// Returns the mail address of this id, an admin's before a user's, or why there is none.
    pub fn address_of(&self, id: &str) -> Result<&str, String> {
        let person = self.admins.iter().chain(&self.users).find(|person| person.id.as_str() == id);
        let person = person.ok_or_else(|| format!("{id} is not among the contacts of the account"))?;
        let address = person.email.as_deref().map(str::trim).filter(|email| !email.is_empty());
        address.ok_or_else(|| format!("{id} has no e-mail address in the contacts of the account"))
    }
}

/// Reads the contacts of these accounts; an account without contacts is missing.
pub(super) async fn of_accounts(
    connection: &mut PgConnection,
    accounts: &[&str],
) -> Result<HashMap<String, Contacts>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select account_id, admins::text as "admins!", users::text as "users!",
                  webhook_url is not null as "has_webhook!"
           from control.contacts
           where account_id = any($1)"#,
        accounts as &[&str],
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let (admins, users) = (people(&row.admins)?, people(&row.users)?);
            Ok((row.account_id, Contacts { admins, users, has_webhook: row.has_webhook }))
        })
        .collect()
}

fn people(json: &str) -> Result<Vec<Person>, sqlx::Error> {
    serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// The URL of an account's webhook, and the secrets that sign its calls.
#[derive(Clone, PartialEq, Eq)]
pub struct Hook {
    pub url: String,
    /// The current secret, and during a rotation also the previous one.
    pub secrets: Vec<String>,
}

/// Reads the current webhook of an account.
pub(super) async fn hook_of(pool: &PgPool, account: &str) -> Result<Option<Hook>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select webhook_url as "url!", webhook_secret as "secret!",
                  case when webhook_secret_old_until > clock_timestamp() then webhook_secret_old end as old_secret
           from control.contacts
           where account_id = $1 and webhook_url is not null"#,
        account,
    )
    .fetch_optional(pg::bounded(pool))
    .await?;
    Ok(row.map(|row| Hook {
        url: row.url,
        secrets: std::iter::once(row.secret).chain(row.old_secret).collect(),
    }))
}
