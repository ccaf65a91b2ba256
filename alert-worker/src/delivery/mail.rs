//! Mail: sends notifications as e-mails, in HTML and plain text, by SMTP.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use ledger_core::value::time::Time;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::time::timeout;

use super::attempt::Failure;
use super::notification::Due;

/// Default sender, for trials on one machine.
pub(super) const FROM: &str = "Credit ledger <ledger@localhost>";
/// Timeout of one mail, from connecting to the server's final reply.
const MAIL_TIME_MAX: Duration = Duration::from_secs(30);
/// Timeout of connecting.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Refusals of our access to the server, not of the mail: an operator can fix the access, so these are retried
/// (authentication required, too weak, failed, encryption required).
const ABOUT_OUR_ACCESS: [u16; 4] = [530, 534, 535, 538];

/// Sends mails from one address through one server.
///
/// A connection carries one mail: after a timeout a reused connection may be in an unknown state.
#[derive(Clone)]
pub(super) struct Mailer {
    server: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Mailer {
    /// Parses the server as `smtp://user:password@host:port?tls=required`, or `smtps://…`; an empty sender is invalid.
    pub fn new(url: &str, from: &str) -> anyhow::Result<Mailer> {
        let server = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            .context("LEDGER_SMTP_URL is no address of a mail server, such as smtp://user:password@host:587?tls=required")?
            .timeout(Some(CONNECT_TIME_MAX))
            .build();
        let from = if from.is_empty() { FROM } else { from };
        let from =
            from.parse().context("LEDGER_MAIL_FROM is no sender, such as Ledger <ledger@example.com>")?;
        Ok(Mailer { server, from })
    }

    /// Sends a notification once; after an error the server may still have accepted it.
    pub async fn send(&self, due: &Due, now: Time) -> Result<(), Failure> {
        let message = self.message(due, now)?;
        match timeout(MAIL_TIME_MAX, self.server.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failure(&error)),
            Err(_) => Err(Failure::retry("the mail server did not answer in time")),
        }
    }

    fn message(&self, due: &Due, now: Time) -> Result<Message, Failure> {
        let address = due.address.as_deref().unwrap_or_default();
        let to: Address = address
            .parse()
            .map_err(|error| Failure::park(format!("{address} is no e-mail address: {error}")))?;
        let id = format!("<{}@{}>", due.notification_id, self.from.email.domain());
        let builder = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(due.subject.as_str())
            .message_id(Some(id))
            .date(UNIX_EPOCH + Duration::from_micros(u64::try_from(now.micros()).unwrap_or_default()))
            // Stops automatic replies (RFC 3834).
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ));
        let message = match &due.html {
            Some(html) => {
                builder.multipart(MultiPart::alternative_plain_html(due.text.clone(), html.clone()))
            }
            None => builder.body(due.text.clone()),
        };
        message.map_err(Failure::park)
    }
}

fn failure(error: &smtp::Error) -> Failure {
    let code = error.status().map(u16::from);
    let about_access = code.is_some_and(|code| ABOUT_OUR_ACCESS.contains(&code));
    let reason = format!("the mail server: {error}");
    if error.is_permanent() && !about_access { Failure::park(reason) } else { Failure::retry(reason) }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn due(address: &str) -> Due {
        Due {
            account_id: "acme".to_owned(),
            notification_id: "n-1".to_owned(),
            address: Some(address.to_owned()),
            subject: "Acmé has used 75.2% of its credits".to_owned(),
            text: "plain words\n".to_owned(),
            html: Some("<p>words</p>".to_owned()),
            attempts: 1,
            lease: Uuid::nil(),
        }
    }

    fn mailer() -> Mailer {
        Mailer::new("smtp://127.0.0.1:2525", "Ledger <ledger@example.test>").expect("an address")
    }

    #[tokio::test]
    async fn a_mail_is_known_by_its_notification_on_every_attempt() {
        let now = "2026-02-03T10:00:00Z".parse().expect("a time");
        let message = mailer().message(&due("carl@example.test"), now).expect("a mail").formatted();
        let message = String::from_utf8(message).expect("a mail is ASCII");
        for line in [
            "From: Ledger <ledger@example.test>",
            "To: carl@example.test",
            "Message-ID: <n-1@example.test>",
            "Date: Tue, 03 Feb 2026 10:00:00 +0000",
            "Auto-Submitted: auto-generated",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Type: text/html; charset=utf-8",
            "plain words",
            "<p>words</p>",
        ] {
            assert!(message.lines().any(|found| found == line), "{line} is not in\n{message}");
        }
        assert!(
            message.contains("multipart/alternative") && message.contains("Subject: =?utf-8?"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn what_is_no_address_is_parked() {
        let now = "2026-02-03T10:00:00Z".parse().expect("a time");
        for address in ["", "carl", "carl@", "carl@example.test\r\nBcc: all@example.test"] {
            let refused = mailer().message(&due(address), now);
            assert!(matches!(refused, Err(Failure::Park { .. })), "{address:?}");
        }
    }

    #[tokio::test]
    async fn settings_that_can_not_work_are_refused_at_the_start() {
        let refused = |url: &str, from: &str| Mailer::new(url, from).err().map(|error| error.to_string());
        assert!(
            refused("mail.example.test", "ledger@example.test")
                .is_some_and(|why| why.contains("LEDGER_SMTP_URL"))
        );
        assert!(
            refused("smtp://mail.example.test", "nobody").is_some_and(|why| why.contains("LEDGER_MAIL_FROM"))
        );
        assert_eq!(
            refused("smtp://mail.example.test", ""),
            None,
            "unset, as compose files and shells say it"
        );
        for url in
            ["smtp://h", "smtps://user:p%40ss@h", "smtp://h:587?tls=required", "smtp://h?tls=opportunistic"]
        {
            assert_eq!(refused(url, "ledger@example.test"), None, "{url}");
        }
    }
}
