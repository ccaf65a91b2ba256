//! Redelivery: sends parked notifications again, with the same id, to the current address in the contacts.
//!
//! An invited person is not a contact: an invitation keeps its original address.

use std::collections::HashMap;

use ledger_core::event::Channel;
use ledger_core::value::id::AccountId;
use platform::pg::{self, PgPool};

use super::contacts::{self, Contacts};
use super::notification::{self, Redeliverable};

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

/// Makes the notifications due again, and reports each.
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
            Some(last) if i64::try_from(page.len()) == Ok(ROWS_MAX) => after = last.notification_id.clone(),
            _ => return Ok(()),
        }
    }
}

async fn redeliver_page(pool: &PgPool, which: Which, after: String) -> Result<Vec<Redelivery>, sqlx::Error> {
    pg::write(pool, move |connection| {
        Box::pin(async move {
            let (account, one) = (which.account_id.as_ref(), which.notification_id.as_deref());
            let found = notification::lock_for_redelivery(connection, account, one, &after, ROWS_MAX).await?;
            let accounts: Vec<&str> = found.iter().map(|row| row.account_id.as_str()).collect();
            let contacts = contacts::of_accounts(connection, &accounts).await?;
            let mut page = Vec::with_capacity(found.len());
            for row in found {
                let way = way(&row, &contacts);
                if let Ok(address) = &way {
                    notification::redeliver(connection, &row.notification_id, address.as_deref()).await?;
                }
                let Redeliverable { account_id, notification_id, channel, recipient, .. } = row;
                page.push(Redelivery { account_id, notification_id, channel, recipient, refused: way.err() });
            }
            Ok(page)
        })
    })
    .await
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
