//! Erasures: removes what is stored of one person besides the journal, which has only pseudonyms.

use axum::Json;
use axum::extract::State;
use ledger_core::event::field_error::FieldError;
use ledger_core::request::Body;
use ledger_core::value::id::{AccountId, UserId};
use platform::pg::PgConnection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{Route, Sent, post};

use crate::app::App;
use crate::promotions::bonus::lock_account;
use crate::request_context::RequestContext;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "PersonToErase")]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Of an admin or a user, or the address of somebody invited.
    id: UserId,
}

impl Body for Person {
    const GOOD: &'static str = r#"{"id":"someone"}"#;

    fn check(&self, _: &mut Vec<FieldError>) {}
}

/// How much was erased.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ErasedPerson")]
pub struct Erased {
    id: UserId,
    contacts: u64,
    invitations: u64,
    notifications: u64,
}

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/erase-person", erase)
            .named(
                "erasePerson",
                "Erases a person's addresses, names, invitations and notification texts for good.",
            )
            .says("By admins. Ids in the journal are pseudonyms and stay. A repeat finds nothing more."),
    ]
}

/// `POST /v1/accounts/{account}/erase-person`
///
/// A repeat finds nothing more.
async fn erase(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<Person>,
) -> Result<Json<Erased>, Problem> {
    context.require(Action::Settings, &account)?;
    let Person { id } = sent.read().await?;
    app.account(&account, None, context.deadline).await?;
    let lock = account.to_string();
    let erased = app.write(&lock, move |connection| {
        Box::pin(async move {
            lock_account(connection, &account).await?;
            erase_in(connection, &account, id).await
        })
    });
    erased.await.map(Json).map_err(|error: sqlx::Error| error.into())
}

async fn erase_in(
    connection: &mut PgConnection,
    account: &AccountId,
    id: UserId,
) -> Result<Erased, sqlx::Error> {
    let addresses = addresses_of(connection, account, &id).await?;
    let contacts = sqlx::query!(
        "update control.contacts
         set admins = (select coalesce(json_agg(person), '[]')
                       from json_array_elements(admins) as person where person ->> 'id' <> $2),
             users  = (select coalesce(json_agg(person), '[]')
                       from json_array_elements(users) as person where person ->> 'id' <> $2),
             updated_at = clock_timestamp()
         where account_id = $1
           and exists (select from json_array_elements(admins) as person where person ->> 'id' = $2
                       union all
                       select from json_array_elements(users) as person where person ->> 'id' = $2)",
        account.as_str(),
        id.as_str()
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    let invitations = sqlx::query!(
        "delete from control.invitation where account_id = $1 and lower(email) = any($2)",
        account.as_str(),
        &addresses
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    // The rows stay, without the person: they prove that a firing was told, and so is not told again.
    let notifications = sqlx::query!(
        "update delivery.notification
         set address    = null,
             subject    = '',
             text       = '',
             html       = null,
             status     = case when status = 'pending' then 'parked' else status end,
             last_error = 'the person was erased'
         where account_id = $1 and (recipient = $2 or lower(address) = any($3))",
        account.as_str(),
        id.as_str(),
        &addresses
    )
    .execute(connection)
    .await?
    .rows_affected();
    Ok(Erased { id, contacts, invitations, notifications })
}

/// Returns the person's addresses in lower case; the id counts as one, as somebody invited has no other.
async fn addresses_of(
    connection: &mut PgConnection,
    account: &AccountId,
    id: &UserId,
) -> Result<Vec<String>, sqlx::Error> {
    let mut addresses = sqlx::query_scalar!(
        r#"select lower(person ->> 'email') as "email!"
           from control.contacts
           cross join lateral (select * from json_array_elements(admins)
                               union all
                               select * from json_array_elements(users)) as people (person)
           where account_id = $1 and person ->> 'id' = $2 and person ->> 'email' is not null"#,
        account.as_str(),
        id.as_str()
    )
    .fetch_all(connection)
    .await?;
    addresses.push(id.as_str().to_lowercase());
    Ok(addresses)
}
