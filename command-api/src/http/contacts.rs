//! Contacts: the mail addresses of an account's people, and its webhook; they never enter the journal.
//!
//! Only the answer that creates a signing secret shows it.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use ledger_core::event::field_error::FieldError;
use ledger_core::event::shape::{object_or_null, objects_or_null};
use ledger_core::request::{self, Body};
use ledger_core::value::id::{AccountId, Text, UserId};
use platform::pg::{self, PgConnection};
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;
use sqlx::types::Json as JsonColumn;
use url::Url;
use web::auth::{self, Action};
use web::http::{ETag, Path, Problem, read_json};
use web::openapi::{self, Route, Sent, Tagged, post};

use crate::app::App;
use crate::email::{NOT_AN_EMAIL, is_email};
use crate::promotions::bonus::lock_account;
use crate::request_context::{RequestContext, Waits, conditional};
use crate::write;

pub const CONTACTS_BYTES_MAX: usize = 1024 * 1024;
/// Most admins, and most users, of one account.
const PEOPLE_MAX: usize = 5_000;
/// Longest URL of a webhook.
const URL_CHARS_MAX: usize = 2_048;
/// Hours that the previous secret still signs after a rotation.
const OLD_SECRET_HOURS: i32 = 24;

/// Body of `PUT …/contacts`, which replaces all contacts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NewContacts")]
#[serde(deny_unknown_fields)]
pub struct Contacts {
    /// The people who configure the account and receive notifications.
    #[serde(default, deserialize_with = "objects_or_null")]
    pub admins: Option<Vec<Person>>,
    /// The people who use the account.
    #[serde(default, deserialize_with = "objects_or_null")]
    pub users: Option<Vec<Person>>,
    #[serde(default, deserialize_with = "object_or_null")]
    pub webhook: Option<Webhook>,
}

/// An admin or user of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The id that the account uses for them.
    pub id: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// A receiver of an account's firings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NewWebhook")]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub url: String,
}

impl Body for Contacts {
    const GOOD: &'static str =
        r#"{"admins":[{"id":"someone"}],"users":[{"id":"someone"}],"webhook":{"url":"https://example.com"}}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        check_people(errors, "admins", self.admins.as_deref().unwrap_or_default());
        check_people(errors, "users", self.users.as_deref().unwrap_or_default());
        if let Some(refusal) = self.webhook.as_ref().and_then(|webhook| refusal_of(&webhook.url)) {
            errors.push(FieldError::new("webhook.url", "not_a_url", refusal));
        }
    }
}

fn check_people(errors: &mut Vec<FieldError>, list: &str, people: &[Person]) {
    if people.len() > PEOPLE_MAX {
        errors.push(FieldError::new(list, "too_many", "has at most 5000 people"));
    }
    let mut ids = BTreeSet::new();
    for (at, person) in people.iter().enumerate() {
        if !ids.insert(&person.id) {
            errors.push(FieldError::new(format!("{list}.{at}.id"), "duplicate", "stands in the list twice"));
        }
        if person.email.as_deref().is_some_and(|email| !is_email(email)) {
            errors.push(FieldError::new(format!("{list}.{at}.email"), "not_an_email", NOT_AN_EMAIL));
        }
    }
}

fn refusal_of(url: &str) -> Option<&'static str> {
    if url.chars().count() > URL_CHARS_MAX {
        return Some("is at most 2048 characters");
    }
    // A URL parser silently drops spaces and line breaks, but the text is stored as sent.
    let has_blanks = url.chars().any(|c| c.is_whitespace() || c.is_control());
    let Some(url) = Url::parse(url).ok().filter(|_| !has_blanks) else { return Some("is no URL") };
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
        return Some("begins with https:// or http://");
    }
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (!bare).then_some("has no user, password or fragment: calls are signed")
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Contacts")]
pub struct StoredContacts {
    account_id: AccountId,
    admins: Vec<Person>,
    users: Vec<Person>,
    webhook: Option<StoredWebhook>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Webhook")]
struct StoredWebhook {
    url: String,
    /// Present only in the answer that creates it.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

struct ContactsRow {
    admins: JsonColumn<Vec<Person>>,
    users: JsonColumn<Vec<Person>>,
    webhook_url: Option<String>,
    webhook_secret: Option<String>,
}

/// A statement that returns [`ContactsRow`]s; their columns go between its two parts.
macro_rules! query_contacts {
    ($before:literal, $after:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            ContactsRow,
            $before + r#" admins as "admins: _", users as "users: _", webhook_url, webhook_secret "# + $after,
            $($argument),+
        )
    };
}

pub fn routes() -> Vec<Route<App>> {
    vec![
        openapi::put("/v1/accounts/{account}/contacts", put)
            .named("setContacts", "Replaces the people of an account and its webhook.")
            .says(
                "By admins. A person who is left out is removed. The answer that makes a webhook shows the secret that signs \
                 its calls, once.",
            )
            .refuses(&["changed_meanwhile"])
            .with(conditional),
        openapi::get("/v1/accounts/{account}/contacts", get)
            .named("getContacts", "Returns the people of an account and its webhook, without its secret.")
            .says("By admins."),
        post("/v1/accounts/{account}/contacts/webhook-secret", rotate_secret)
            .named("rotateWebhookSecret", "Makes another secret for the webhook.")
            .says("By admins. Calls are signed with both for 24 hours. The answer shows the new one, once.")
            .refuses(&["webhook_unknown"]),
    ]
}

/// `PUT /v1/accounts/{account}/contacts`
async fn put(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<Contacts>,
) -> Result<Tagged<Json<StoredContacts>>, Problem> {
    context.require(Action::Settings, &account)?;
    let value = read_json(sent.into_request(), CONTACTS_BYTES_MAX).await?;
    let contacts: Contacts = request::read(value).map_err(Problem::invalid)?;
    write::admit(&app, &context, &account).await?;
    let made_up = auth::new_webhook_secret()?;
    let lock = account.to_string();
    let stored = app.write(&lock, move |connection| {
        Box::pin(async move {
            lock_account(connection, &account).await?;
            if let Some(if_match) = &context.if_match {
                let current = load(&mut *connection, &account).await?.etag()?;
                // The same again is no change.
                if current != contacts.etag()? {
                    if_match.require(&current)?;
                }
            }
            write(connection, account, contacts, made_up).await
        })
    });
    stored.await?.answer()
}

impl Contacts {
    /// Makes the tag that these have once they are stored.
    fn etag(&self) -> Result<ETag, Problem> {
        let people = |people: &Option<Vec<Person>>| people.clone().unwrap_or_default();
        let url = self.webhook.as_ref().map(|webhook| &webhook.url);
        ETag::of(&(people(&self.admins), people(&self.users), url))
    }
}

impl StoredContacts {
    /// Makes the tag of what a `PUT` replaces.
    fn etag(&self) -> Result<ETag, Problem> {
        let url = self.webhook.as_ref().map(|webhook| &webhook.url);
        ETag::of(&(&self.admins, &self.users, url))
    }

    fn answer(self) -> Result<Tagged<Json<StoredContacts>>, Problem> {
        let etag = self.etag()?;
        Ok(Tagged(Json(self), Some(etag)))
    }
}

/// Returns an account's contacts, without the webhook's secret.
async fn load(executor: impl PgExecutor<'_>, account: &AccountId) -> Result<StoredContacts, sqlx::Error> {
    let row = query_contacts!("select", "from control.contacts where account_id = $1", account.as_str());
    let row = row.fetch_optional(executor).await?;
    let nobody = || StoredContacts {
        account_id: account.clone(),
        admins: Vec::new(),
        users: Vec::new(),
        webhook: None,
    };
    Ok(row.map_or_else(nobody, |row| stored_contacts(account.clone(), row, false)))
}

async fn write(
    connection: &mut PgConnection,
    account: AccountId,
    contacts: Contacts,
    made_up: String,
) -> Result<StoredContacts, Problem> {
    let url = contacts.webhook.map(|webhook| webhook.url);
    let secret = url.is_some().then(|| made_up.clone());
    // A webhook keeps its secret when its URL changes; a removed and re-created one gets a new secret.
    let row = query_contacts!(
        "insert into control.contacts as old (account_id, admins, users, webhook_url, webhook_secret, updated_at)
         values ($1, $2::text::json, $3::text::json, $4, $5, clock_timestamp())
         on conflict (account_id) do update
         set admins                   = excluded.admins,
             users                    = excluded.users,
             webhook_url              = excluded.webhook_url,
             webhook_secret           = case when excluded.webhook_url is not null
                                             then coalesce(old.webhook_secret, excluded.webhook_secret) end,
             webhook_secret_old       = case when excluded.webhook_url is not null then old.webhook_secret_old end,
             webhook_secret_old_until = case when excluded.webhook_url is not null then old.webhook_secret_old_until end,
             updated_at               = excluded.updated_at
         returning",
        "",
        account.as_str(),
        people_json(contacts.admins)?,
        people_json(contacts.users)?,
        url,
        secret
    )
    .fetch_one(connection)
    .await?;
    let is_new = row.webhook_secret.as_deref() == Some(made_up.as_str());
    Ok(stored_contacts(account, row, is_new))
}

fn people_json(people: Option<Vec<Person>>) -> Result<String, Problem> {
    serde_json::to_string(&people.unwrap_or_default()).map_err(Problem::internal)
}

fn stored_contacts(account_id: AccountId, row: ContactsRow, show_secret: bool) -> StoredContacts {
    let ContactsRow { admins: JsonColumn(admins), users: JsonColumn(users), webhook_url, webhook_secret } =
        row;
    let secret = webhook_secret.filter(|_| show_secret);
    let webhook = webhook_url.map(|url| StoredWebhook { url, secret });
    StoredContacts { account_id, admins, users, webhook }
}

/// `GET /v1/accounts/{account}/contacts`
async fn get(
    State(app): State<App>,
    context: RequestContext<ContactsQuery>,
    Path(account): Path<AccountId>,
) -> Result<Tagged<Json<StoredContacts>>, Problem> {
    context.require(Action::Settings, &account)?;
    app.account(&account, None, context.deadline).await?;
    load(pg::bounded(&app.pool), &account).await?.answer()
}

/// Contacts are not projected, so a position that they should reflect is taken and needs no wait.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContactsQuery {
    /// Accepted as with every read, and ignored: contacts are not projected.
    #[serde(rename = "at_least")]
    _at_least: Option<AtLeast>,
}

impl Waits for ContactsQuery {
    fn wait(&self) -> Option<bool> {
        None
    }
}

/// Makes the current secret the old one; a second rotation within [`OLD_SECRET_HOURS`] ends the oldest at once.
async fn rotate(
    connection: &mut PgConnection,
    account: &AccountId,
    secret: &str,
) -> Result<Option<ContactsRow>, sqlx::Error> {
    query_contacts!(
        "update control.contacts
         set webhook_secret           = $2,
             webhook_secret_old       = webhook_secret,
             webhook_secret_old_until = clock_timestamp() + make_interval(hours => $3),
             updated_at               = clock_timestamp()
         where account_id = $1 and webhook_url is not null
         returning",
        "",
        account.as_str(),
        secret,
        OLD_SECRET_HOURS
    )
    .fetch_optional(connection)
    .await
}

/// `POST /v1/accounts/{account}/contacts/webhook-secret`
async fn rotate_secret(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
) -> Result<Json<StoredContacts>, Problem> {
    context.require(Action::Settings, &account)?;
    app.account(&account, None, context.deadline).await?;
    let secret = auth::new_webhook_secret()?;
    let name = account.clone();
    let rotated = app.write(account.as_str(), move |connection| {
        Box::pin(async move { rotate(connection, &name, &secret).await })
    });
    let rotated = rotated.await.map_err(Problem::from)?;
    let missing = || Problem::not_found("webhook_unknown", format!("account {account} has no webhook"));
    rotated.map(|row| Json(stored_contacts(account.clone(), row, true))).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &str) {
        let read = request::read::<Contacts>(serde_json::from_str(body).expect("JSON"));
        let found = match read {
            Ok(_) => "fine".to_owned(),
            Err(errors) => {
                let mut all: Vec<_> = errors.iter().map(|e| format!("{} {}", e.field, e.code)).collect();
                all.sort();
                all.join(", ")
            }
        };
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn contacts_name_every_bad_field() {
        check("{}", "fine");
        check(r#"{"admins":null,"users":[],"webhook":null}"#, "fine");
        check(
            r#"{"admins":[{"id":"carl","name":"Carl","email":"carl@example.test"}],"users":[{"id":"ana"}],
                "webhook":{"url":"https://hooks.example.test/ledger"}}"#,
            "fine",
        );
        check(
            r#"{"admins":[{"id":"carl","email":"carl"},{"id":"carl"}],"users":[{"id":" no id"}],"team":[]}"#,
            "admins.0.email not_an_email, admins.1.id duplicate, team unknown_field, users.0.id bad_id",
        );
        check(
            r#"{"admins":[["carl"]],"webhook":["https://example.test"]}"#,
            "admins.0 wrong_type, webhook wrong_type",
        );
        check(
            r#"{"users":[{"id":" a"},{"id":"b "},{"email":null}],"webhook":{}}"#,
            "users.0.id bad_id, users.1.id bad_id, users.2.id required, webhook.url required",
        );
    }

    #[test]
    fn an_address_is_one_plain_address() {
        for good in ["a@b", "ana+alerts@example.test"] {
            assert!(is_email(good), "{good}");
        }
        for bad in ["", "@", "a@", "@b", "a b@c", "a@b@c", "a@b\r\nBcc: c@d", "Ana <a@b>", "a@b,c@d"] {
            assert!(!is_email(bad), "{bad}");
        }
    }

    #[test]
    fn a_webhook_is_a_plain_url() {
        for good in ["https://example.test", "http://127.0.0.1:8080/hook?x=1"] {
            assert_eq!(refusal_of(good), None, "{good}");
        }
        for bad in [
            "",
            "example.test",
            "ftp://example.test",
            "https://",
            "https://u:p@example.test",
            "https://example.test/#top",
            "mailto:a@b",
            "https://example.test/\0",
            " https://example.test",
            "https://example\n.test",
        ] {
            assert!(refusal_of(bad).is_some(), "{bad}");
        }
    }
}
