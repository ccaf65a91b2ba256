//! Expansion: turns a firing into one notification per recipient and channel.

use std::collections::BTreeSet;

use contacts::people::{self, Contacts};
use ledger_core::event::{Channel, Recipients, derive};
use ledger_core::value::id::UserId;
use payments::ProviderName;
use platform::pg::{self, PgPool};
use tracing::info;
use uuid::Uuid;

use super::error::Error;
use super::notice;
use super::notification::{self, Notification};
use super::outbox::{self, OutboxRow, is_about_a_user};
use super::publish::event_of;

/// Firings read by one transaction.
const ROWS_MAX: i64 = 200;
/// Notifications after which a transaction expands no further firing; one with 5,000 admins alone makes 10,000.
const NOTIFICATIONS_MAX: usize = 2_000;
/// The recipient of an account's webhook.
const WEBHOOK: &str = "webhook";

#[derive(Debug, Clone, PartialEq, Eq)]
struct Addressee {
    channel: Channel,
    recipient: String,
    way: Way,
}

/// How a recipient receives the notification.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// In the product, by the row itself.
    Here,
    /// By a call of the account's webhook.
    Hook,
    /// By mail to this address.
    To(String),
    /// Not at all, for this reason.
    Nowhere(String),
}

/// Decides the recipients and their channels, by the current contacts.
///
/// An account without contacts has no addresses: then only the recipients named in the rule see it, in the product.
fn addressees(row: &OutboxRow, contacts: Option<&Contacts>) -> Vec<Addressee> {
    let channels: BTreeSet<&str> =
        row.firing.audience.channels.iter().map(|channel| channel.as_str()).collect();
    let has = |channel: Channel| channels.contains(channel.as_str());
    let mut addressees = Vec::new();
    for recipient in recipients(row, contacts) {
        if has(Channel::InApp) {
            addressees.push(Addressee {
                channel: Channel::InApp,
                recipient: recipient.to_string(),
                way: Way::Here,
            });
        }
        if let Some(contacts) = contacts.filter(|_| has(Channel::Email)) {
            let way = mail_of(contacts, &recipient);
            addressees.push(Addressee { channel: Channel::Email, recipient: recipient.to_string(), way });
        }
    }
    if has(Channel::Webhook) && contacts.is_some_and(|contacts| contacts.has_webhook) {
        addressees.push(Addressee {
            channel: Channel::Webhook,
            recipient: WEBHOOK.to_owned(),
            way: Way::Hook,
        });
    }
    addressees
}

/// Returns all recipients, each once, in the order of the rule.
fn recipients(row: &OutboxRow, contacts: Option<&Contacts>) -> Vec<UserId> {
    let mut recipients = match &row.firing.audience.recipients {
        Recipients::AllAdmins => {
            contacts.iter().flat_map(|contacts| &contacts.admins).map(|admin| admin.id.clone()).collect()
        }
        Recipients::These(ids) => ids.clone(),
    };
    if row.firing.audience.notify_user && is_about_a_user(row.firing.kind) {
        recipients.push(row.firing.subject.as_user());
    }
    let mut seen = BTreeSet::new();
    recipients.retain(|id| seen.insert(id.clone()));
    recipients
}

fn mail_of(contacts: &Contacts, recipient: &UserId) -> Way {
    match contacts.address_of(recipient.as_str()) {
        Ok(address) => Way::To(address.to_owned()),
        Err(reason) => Way::Nowhere(reason),
    }
}

fn notification_of(
    row: &OutboxRow,
    addressee: Addressee,
    payer: ProviderName,
) -> Result<Notification, Error> {
    let Addressee { channel, recipient, way } = addressee;
    let firing_id = row.firing.firing_id;
    let parts = [&firing_id.to_string(), channel.as_str(), recipient.as_str()];
    let notification_id = derive::derived("notification", &parts).to_string();
    let notice = match channel {
        Channel::Email => notice::mail(row, &recipient, payer, &notification_id)?,
        Channel::InApp => notice::in_app(row, &recipient, payer)?,
        // The body is for programs; the subject appears in the list of notifications and addresses no one in
        // particular.
        Channel::Webhook => notice::Notice { text: event_of(row)?, ..notice::in_app(row, "", payer)? },
    };
    let (status, address, last_error) = match way {
        Way::Hook if row.is_from_before => ("parked", None, Some(notification::FROM_BEFORE.to_owned())),
        Way::To(address) if row.is_from_before => {
            ("parked", Some(address), Some(notification::FROM_BEFORE.to_owned()))
        }
        Way::Here => ("delivered", None, None),
        Way::Hook => ("pending", None, None),
        Way::To(address) => ("pending", Some(address), None),
        Way::Nowhere(reason) => ("parked", None, Some(reason)),
    };
    Ok(Notification {
        account_id: row.account_id.to_string(),
        notification_id,
        firing_id,
        kind: row.firing.kind.as_str(),
        channel: channel.as_str(),
        recipient,
        address,
        subject: notice.subject,
        text: notice.text,
        html: notice.html,
        status,
        last_error,
    })
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Expanded {
    pub notifications: usize,
    /// More firings may be waiting.
    pub is_more: bool,
}

/// Expands waiting firings; `payer` is the provider that moves the money.
pub(super) async fn round(pool: &PgPool, payer: ProviderName) -> Result<Expanded, Error> {
    pg::write(pool, move |connection| {
        Box::pin(async move {
            let rows = outbox::lock_unexpanded(connection, ROWS_MAX).await?;
            if rows.is_empty() {
                return Ok(Expanded::default());
            }
            let accounts: Vec<&str> = rows.iter().map(|row| row.account_id.as_str()).collect();
            let contacts = people::of_accounts(connection, &accounts).await?;
            let (mut notifications, mut expanded) = (Vec::new(), 0);
            for row in &rows {
                if notifications.len() >= NOTIFICATIONS_MAX {
                    break;
                }
                for addressee in addressees(row, contacts.get(row.account_id.as_str())) {
                    notifications.push(notification_of(row, addressee, payer)?);
                }
                expanded += 1;
            }
            notification::insert(connection, &notifications).await?;
            let firings: Vec<Uuid> = rows[..expanded].iter().map(|row| row.firing.firing_id).collect();
            outbox::mark_expanded(connection, &firings).await?;
            info!(firings = expanded, notifications = notifications.len(), "firings expanded");
            let is_more = expanded < rows.len() || i64::try_from(rows.len()) == Ok(ROWS_MAX);
            Ok(Expanded { notifications: notifications.len(), is_more })
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use contacts::people::Person;
    use ledger_core::policy::alert::Kind;

    use super::*;
    use crate::delivery::samples::{self, id};

    fn person(name: &str, email: &str) -> Person {
        Person { id: id(name), email: (!email.is_empty()).then(|| email.to_owned()) }
    }

    fn contacts() -> Contacts {
        Contacts {
            admins: vec![person("carl", "carl@example.test"), person("dora", "")],
            users: vec![person("ana", "ana@example.test"), person("carl", "other@example.test")],
            has_webhook: true,
        }
    }

    /// Compares the recipients, written as `channel recipient way`.
    fn check(row: &OutboxRow, contacts: Option<&Contacts>, expected: &[&str]) {
        let found: Vec<String> = addressees(row, contacts)
            .into_iter()
            .map(|addressee| {
                let way = match addressee.way {
                    Way::Here => "here".to_owned(),
                    Way::Hook => "hook".to_owned(),
                    Way::To(address) => address,
                    Way::Nowhere(reason) => format!("- {reason}"),
                };
                format!("{} {} {way}", addressee.channel.as_str(), addressee.recipient)
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn all_admins_are_notified_on_every_channel_that_exists() {
        let row = samples::row("acme", 1);
        check(
            &row,
            Some(&contacts()),
            &[
                "in_app carl here",
                "email carl carl@example.test",
                "in_app dora here",
                "email dora - dora has no e-mail address in the contacts of the account",
                "webhook webhook hook",
            ],
        );
    }

    #[test]
    fn only_the_channels_of_the_rule_are_used() {
        let mut row = samples::row("acme", 1);
        row.firing.audience.recipients = Recipients::These(vec![id("carl")]);
        let mut check_channels = |channels: &[Channel], expected: &[&str]| {
            row.firing.audience.channels = channels.to_vec();
            check(&row, Some(&contacts()), expected);
        };
        check_channels(&[Channel::Email], &["email carl carl@example.test"]);
        check_channels(&[Channel::InApp], &["in_app carl here"]);
        check_channels(&[Channel::Webhook], &["webhook webhook hook"]);
        check_channels(&[], &[]);
        let without = Contacts { has_webhook: false, ..contacts() };
        row.firing.audience.channels = vec![Channel::Webhook];
        check(&row, Some(&without), &[]);
    }

    #[test]
    fn a_named_recipient_whom_nobody_knows_is_parked_and_not_passed_over() {
        let mut row = samples::row("acme", 1);
        row.firing.audience.recipients = Recipients::These(vec![id("zoe")]);
        row.firing.audience.channels = vec![Channel::Email];
        check(&row, Some(&contacts()), &["email zoe - zoe is not among the contacts of the account"]);
    }

    #[test]
    fn the_user_is_notified_where_the_rule_says_so_and_nobody_twice() {
        let mut row = samples::of_kind(Kind::UserAlert, "ana", "520", "500");
        row.firing.audience.channels = vec![Channel::Email];
        row.firing.audience.recipients = Recipients::These(vec![id("carl"), id("carl")]);
        check(&row, Some(&contacts()), &["email carl carl@example.test"]);
        row.firing.audience.notify_user = true;
        check(&row, Some(&contacts()), &["email carl carl@example.test", "email ana ana@example.test"]);
        row.firing.subject = id("carl");
        check(&row, Some(&contacts()), &["email carl carl@example.test"]);
        // Only the user.
        row.firing.subject = id("ana");
        row.firing.audience.recipients = Recipients::These(Vec::new());
        check(&row, Some(&contacts()), &["email ana ana@example.test"]);
    }

    #[test]
    fn without_contacts_only_those_who_are_named_find_it_in_the_product() {
        let mut row = samples::row("acme", 1);
        check(&row, None, &[]);
        row.firing.audience.recipients = Recipients::These(vec![id("carl")]);
        check(&row, None, &["in_app carl here"]);
        let nobody = Contacts::default();
        row.firing.audience.recipients = Recipients::AllAdmins;
        check(&row, Some(&nobody), &[]);
    }

    #[test]
    fn a_notification_has_the_same_id_whenever_it_is_made() {
        let row = samples::row("acme", 1);
        let addressee =
            |recipient: &str, channel| Addressee { channel, recipient: recipient.to_owned(), way: Way::Here };
        let made = |recipient: &str, channel| {
            notification_of(&row, addressee(recipient, channel), ProviderName::Sandbox)
                .expect("rendered")
                .notification_id
        };
        assert_eq!(made("carl", Channel::Email), made("carl", Channel::Email));
        let ids = [
            made("carl", Channel::Email),
            made("dora", Channel::Email),
            made("carl", Channel::InApp),
            made("webhook", Channel::Webhook),
        ];
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    }

    #[test]
    fn what_may_have_been_sent_before_a_restore_waits_for_a_person_and_stands_in_the_product() {
        let mut row = samples::row("acme", 1);
        row.is_from_before = true;
        let made: Vec<_> = addressees(&row, Some(&contacts()))
            .into_iter()
            .map(|to| notification_of(&row, to, ProviderName::Sandbox).expect("rendered"))
            .filter(|made| made.recipient != "dora")
            .map(|made| (made.channel, made.status))
            .collect();
        assert_eq!(made, [("in_app", "delivered"), ("email", "parked"), ("webhook", "parked")]);
    }

    #[test]
    fn a_webhook_carries_the_event_and_the_list_shows_words() {
        let row = samples::row("acme", 1);
        let hook = Addressee { channel: Channel::Webhook, recipient: WEBHOOK.to_owned(), way: Way::Hook };
        let made = notification_of(&row, hook, ProviderName::Sandbox).expect("rendered");
        assert_eq!(made.subject, "Acme has used 75.2% of its credits");
        assert_eq!(made.text, event_of(&row).expect("JSON"));
        assert_eq!((made.status, made.html), ("pending", None));
    }
}
