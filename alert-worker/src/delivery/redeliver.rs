//! Redelivery: sends parked notifications again, with the same id, to the address that the contacts have now.
//!
//! An invited person is no contact: an invitation goes to the address that it was made for.

use std::collections::HashMap;

use ledger_core::event::Channel;
use ledger_core::value::id::Id;
use platform::pg::{self, PgConnection, PgPool};

use super::contacts::{self, Contacts};

/// What `command-api` calls an invitation; its recipient is its code.
const INVITATION: &str = "referral_invitation";
/// Notifications that one transaction sends back.
const ROWS_MAX: i64 = 500;

/// What is to go out again; both, where both are named.
#[derive(Debug, Clone, Default)]
pub struct Which {
    /// What is parked for this account; all accounts without it.
    pub account_id: Option<Id>,
    /// This one alone, also where it was delivered or waits for its next attempt.
    pub notification_id: Option<String>,
}

/// What became of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redelivery {
    pub account_id: String,
    /// The same as before.
    pub notification_id: String,
    pub channel: String,
    pub recipient: String,
    /// Why it does not go out, where it does not.
    pub refused: Option<String>,
}

struct Found {
    account_id: String,
    notification_id: String,
    kind: String,
    channel: String,
    recipient: String,
    address: Option<String>,
    is_leased: bool,
}

/// The same as it is selected.
type FoundColumns = (String, String, String, String, String, Option<String>, bool);

/// Lets them go out again; `report` hears of each.
pub async fn redeliver(
    pool: &PgPool,
    which: &Which,
    mut report: impl FnMut(&Redelivery) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut after = String::new();
    loop {
        let page = redeliver_page(pool, which.clone(), after).await?;
        for redelivery in &page {
            report(redelivery)?;
        }
        match page.last() {
            Some(last) if page.len() as i64 == ROWS_MAX => after = last.notification_id.clone(),
            _ => return Ok(()),
        }
    }
}

async fn redeliver_page(pool: &PgPool, which: Which, after: String) -> Result<Vec<Redelivery>, sqlx::Error> {
    pg::write(pool, move |connection| {
        Box::pin(async move {
            let found = find(connection, &which, &after).await?;
            let accounts: Vec<&str> = found.iter().map(|row| row.account_id.as_str()).collect();
            let contacts = contacts::of_accounts(connection, &accounts).await?;
            let mut page = Vec::with_capacity(found.len());
            for row in found {
                let way = way(&row, &contacts);
                if let Ok(address) = &way {
                    send_back(connection, &row.notification_id, address.as_deref()).await?;
                }
                let Found { account_id, notification_id, channel, recipient, .. } = row;
                page.push(Redelivery { account_id, notification_id, channel, recipient, refused: way.err() });
            }
            Ok(page)
        })
    })
    .await
}

async fn find(connection: &mut PgConnection, which: &Which, after: &str) -> Result<Vec<Found>, sqlx::Error> {
    let rows: Vec<FoundColumns> = sqlx::query_as(
        "select account_id, notification_id, kind, channel, recipient, address,
                coalesce(leased_until > clock_timestamp(), false)
         from delivery.notification
         where (status = 'parked' or notification_id = $2)
           and ($1::text is null or account_id = $1)
           and ($2::text is null or notification_id = $2)
           and notification_id > $3
         order by notification_id
         limit $4
         for update",
    )
    .bind(which.account_id.as_ref().map(|id| id.as_str()))
    .bind(which.notification_id.as_deref())
    .bind(after)
    .bind(ROWS_MAX)
    .fetch_all(connection)
    .await?;
    let found = rows.into_iter().map(|row| {
        let (account_id, notification_id, kind, channel, recipient, address, is_leased) = row;
        Found { account_id, notification_id, kind, channel, recipient, address, is_leased }
    });
    Ok(found.collect())
}

/// Returns the address it goes to, where the channel has one, or why it does not go out.
fn way(row: &Found, contacts: &HashMap<String, Contacts>) -> Result<Option<String>, String> {
    if row.is_leased {
        return Err("it is being sent at this moment".to_owned());
    }
    if row.channel == Channel::InApp.as_str() {
        return Err("it stands in the product already".to_owned());
    }
    if row.channel == Channel::Webhook.as_str() {
        return Ok(None);
    }
    if row.kind == INVITATION {
        return row.address.clone().map(Some).ok_or_else(|| "the invitation has no address".to_owned());
    }
    let contacts = contacts.get(&row.account_id).ok_or("the account has no contacts")?;
    contacts.address_of(&row.recipient).map(|address| Some(address.to_owned()))
}

async fn send_back(
    connection: &mut PgConnection,
    notification_id: &str,
    address: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update delivery.notification
         set status          = 'pending',
             attempts        = 0,
             next_attempt_at = clock_timestamp(),
             address         = $2,
             sent_at         = null,
             lease           = null,
             leased_until    = null
         where notification_id = $1",
    )
    .bind(notification_id)
    .bind(address)
    .execute(connection)
    .await
    .map(drop)
}
