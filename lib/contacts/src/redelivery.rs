//! Redelivery: sends parked notifications again, with the same id, to the current address in the contacts.
//!
//! An invited person is not a contact: an invitation keeps its original address.

use std::collections::HashMap;

use ledger_core::event::Channel;
use ledger_core::value::id::AccountId;
use platform::pg::{self, PgConnection, PgPool};

use crate::people::{self, Contacts};

/// The kind that `command-api` gives an invitation; its recipient is the code.
const INVITATION: &str = "referral_invitation";
const ROWS_MAX: i64 = 500;

/// What to redeliver; if both fields are set, both must match.
#[derive(Debug, Clone, Default)]
pub struct Which {
    /// Parked notifications of this account; without it, of all accounts.
    pub account_id: Option<AccountId>,
    /// Only this one, even if it was delivered or waits for its next attempt.
    pub notification_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redelivery {
    pub account_id: String,
    /// Unchanged by the redelivery.
    pub notification_id: String,
    pub channel: String,
    pub recipient: String,
    /// Why it can't be redelivered, if so.
    pub refused: Option<String>,
}

/// Why one notification is not sent again.
#[derive(Debug, thiserror::Error)]
pub enum ResendError {
    #[error("account {0} has no notification {1}")]
    Unknown(AccountId, String),
    #[error("notification {0} is not parked: it was sent, or is on its way")]
    NotParked(String),
    #[error("it can't be sent: {0}")]
    NoWay(String),
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
}

/// A notification that may be redelivered.
#[derive(Debug)]
struct Redeliverable {
    account_id: String,
    notification_id: String,
    kind: String,
    channel: String,
    recipient: String,
    address: Option<String>,
    is_parked: bool,
    is_leased: bool,
}

/// Makes the notifications due again, and reports each.
pub async fn redeliver(
    pool: &PgPool,
    which: &Which,
    mut report: impl FnMut(&Redelivery) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut after = String::new();
    loop {
        let (which, from) = (which.clone(), after.clone());
        let page = pg::write(pool, move |connection| {
            Box::pin(async move { redeliver_page(connection, &which, &from).await })
        })
        .await?;
        for redelivery in &page {
            report(redelivery)?;
        }
        match page.last() {
            Some(last) if i64::try_from(page.len()) == Ok(ROWS_MAX) => after = last.notification_id.clone(),
            _ => return Ok(()),
        }
    }
}

/// Makes one parked notification of an account due again. Of two at once, one finds it parked no more.
pub async fn resend(
    connection: &mut PgConnection,
    account: &AccountId,
    notification_id: &str,
) -> Result<Redelivery, ResendError> {
    let which =
        Which { account_id: Some(account.clone()), notification_id: Some(notification_id.to_owned()) };
    let row = lock(connection, &which, "").await?.pop();
    let row = row.ok_or_else(|| ResendError::Unknown(account.clone(), notification_id.to_owned()))?;
    if !row.is_parked {
        return Err(ResendError::NotParked(row.notification_id));
    }
    let contacts = people::of_accounts(connection, &[account.as_str()]).await?;
    let redelivery = make_due(connection, row, &contacts).await?;
    match redelivery.refused {
        Some(reason) => Err(ResendError::NoWay(reason)),
        None => Ok(redelivery),
    }
}

async fn redeliver_page(
    connection: &mut PgConnection,
    which: &Which,
    after: &str,
) -> Result<Vec<Redelivery>, sqlx::Error> {
    let found = lock(connection, which, after).await?;
    let accounts: Vec<&str> = found.iter().map(|row| row.account_id.as_str()).collect();
    let contacts = people::of_accounts(connection, &accounts).await?;
    let mut page = Vec::with_capacity(found.len());
    for row in found {
        page.push(make_due(connection, row, &contacts).await?);
    }
    Ok(page)
}

/// Locks a page of what may be redelivered, after the notification `after`.
async fn lock(
    connection: &mut PgConnection,
    which: &Which,
    after: &str,
) -> Result<Vec<Redeliverable>, sqlx::Error> {
    sqlx::query_file_as!(
        Redeliverable,
        "src/sql/lock_for_redelivery.sql",
        which.account_id.as_ref().map(AccountId::as_str),
        which.notification_id.as_deref(),
        after,
        ROWS_MAX,
    )
    .fetch_all(connection)
    .await
}

/// Makes the notification due again at its address of now, with its attempts reset, unless it has no way.
async fn make_due(
    connection: &mut PgConnection,
    row: Redeliverable,
    contacts: &HashMap<String, Contacts>,
) -> Result<Redelivery, sqlx::Error> {
    let way = way(&row, contacts);
    if let Ok(address) = &way {
        sqlx::query!(
            "update delivery.notification
             set status          = 'pending',
                 attempts        = 0,
                 next_attempt_at = clock_timestamp(),
                 address         = $2,
                 sent_at         = null,
                 lease           = null,
                 leased_until    = null
             where notification_id = $1",
            row.notification_id,
            address.as_deref(),
        )
        .execute(connection)
        .await?;
    }
    let Redeliverable { account_id, notification_id, channel, recipient, .. } = row;
    Ok(Redelivery { account_id, notification_id, channel, recipient, refused: way.err() })
}

/// Returns the address, if the channel has one, or why the notification can't be redelivered.
fn way(row: &Redeliverable, contacts: &HashMap<String, Contacts>) -> Result<Option<String>, String> {
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
