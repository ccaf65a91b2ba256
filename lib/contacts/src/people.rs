//! The people of an account, as `control.contacts` has them.

use std::collections::HashMap;

use ledger_core::value::id::UserId;
use platform::pg::PgConnection;
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
pub async fn of_accounts(
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
