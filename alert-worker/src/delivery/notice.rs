//! Notices: the text of a firing for one recipient, with one template per kind.
//!
//! A template of a kind is written like a mail: its first line is the subject, followed by the paragraphs. `notice.txt`
//! and `notice.html` lay them out, with the facts below them.

use askama::Template;
use ledger_core::event::Basis;
use ledger_core::policy::alert::Kind;
use ledger_core::policy::wording;
use ledger_core::value::credits::Credits;
use payments::ProviderName;

use super::outbox::{About, OutboxRow, is_about_a_user};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// One line.
    pub subject: String,
    pub text: String,
    /// The same text as HTML; only for mails.
    pub html: Option<String>,
}

/// The values that the templates may use.
struct Words<'a> {
    account: &'a str,
    alert: &'a str,
    user: &'a str,
    to_the_user: bool,
    figure: String,
    threshold: String,
    is_used: bool,
    is_percent: bool,
    period_ends_at: String,
    /// Whether the sandbox made the payment.
    is_sandbox: bool,
}

macro_rules! templates {
    ($($kind:ident = $path:literal),* $(,)?) => {
        $(
            #[derive(Template)]
            #[template(path = $path)]
            struct $kind<'a>(&'a Words<'a>);

            impl<'a> std::ops::Deref for $kind<'a> {
                type Target = Words<'a>;
                fn deref(&self) -> &Words<'a> {
                    self.0
                }
            }
        )*

        fn render(kind: Kind, words: &Words<'_>) -> Result<String, askama::Error> {
            match kind {
                $(Kind::$kind => $kind(words).render()),*
            }
        }
    };
}

templates! {
    OrgAlert = "org_alert.txt",
    UserAlert = "user_alert.txt",
    UserLimitReached = "user_limit_reached.txt",
    CreditBalanceLow = "credit_balance_low.txt",
    CreditBalanceDepleted = "credit_balance_depleted.txt",
    CreditsAvailableAgain = "credits_available_again.txt",
    CreditAutoRechargeTriggered = "credit_auto_recharge_triggered.txt",
    CreditPurchaseFailed = "credit_purchase_failed.txt",
}

/// A line of the table below the text.
struct Fact {
    name: &'static str,
    value: String,
}

struct Footer {
    why: String,
    which: String,
}

#[derive(Template)]
#[template(path = "notice.txt")]
struct PlainText<'a> {
    paragraphs: &'a [&'a str],
    facts: &'a [Fact],
    footer: Option<&'a Footer>,
}

#[derive(Template)]
#[template(path = "notice.html")]
struct Html<'a> {
    subject: &'a str,
    paragraphs: &'a [&'a str],
    facts: &'a [Fact],
    footer: &'a Footer,
}

/// Returns the text shown in the product.
pub fn in_app(row: &OutboxRow, recipient: &str, payer: ProviderName) -> Result<Notice, askama::Error> {
    notice(row, recipient, payer, None)
}

/// Returns the mail to a recipient, in plain text and in HTML.
pub fn mail(
    row: &OutboxRow,
    recipient: &str,
    payer: ProviderName,
    notification_id: &str,
) -> Result<Notice, askama::Error> {
    let footer = Footer {
        why: format!("You get this because you are among the contacts of {}.", account_name(row)),
        which: format!("Notification {notification_id}"),
    };
    notice(row, recipient, payer, Some(&footer))
}

fn notice(
    row: &OutboxRow,
    recipient: &str,
    payer: ProviderName,
    footer: Option<&Footer>,
) -> Result<Notice, askama::Error> {
    let rendered = render(row.firing.kind, &words(row, recipient, payer))?;
    let mut paragraphs = rendered.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
    let subject = paragraphs.next().unwrap_or_default();
    let paragraphs: Vec<&str> = paragraphs.collect();
    let facts = facts(row);
    let text = PlainText { paragraphs: &paragraphs, facts: &facts, footer }.render()?;
    let html = |footer| Html { subject, paragraphs: &paragraphs, facts: &facts, footer }.render();
    Ok(Notice {
        subject: subject.to_owned(),
        text: text.trim_end().to_owned() + "\n",
        html: footer.map(html).transpose()?,
    })
}

fn words<'a>(row: &'a OutboxRow, recipient: &str, payer: ProviderName) -> Words<'a> {
    let OutboxRow { firing, about, .. } = row;
    let basis = about.basis.unwrap_or(Basis::AbsoluteUsed);
    Words {
        account: account_name(row),
        alert: firing.alert_id.as_ref().map_or("", |id| id.as_str()),
        user: firing.subject.as_str(),
        to_the_user: is_about_a_user(firing.kind) && firing.subject.as_str() == recipient,
        figure: figure(firing.figure, about),
        threshold: figure(firing.threshold, about),
        is_used: matches!(basis, Basis::PercentUsed | Basis::AbsoluteUsed),
        is_percent: is_percent(basis),
        period_ends_at: wording::time(about.period_ends_at, about.timezone),
        is_sandbox: payer == ProviderName::Sandbox,
    }
}

/// Returns the account's name, or its id if it has none.
fn account_name(row: &OutboxRow) -> &str {
    let name = row.about.name.as_ref().map(|name| name.as_str().trim()).filter(|name| !name.is_empty());
    name.unwrap_or(row.account_id.as_str())
}

fn is_percent(basis: Basis) -> bool {
    matches!(basis, Basis::PercentUsed | Basis::PercentRemaining)
}

fn figure(figure: Credits, about: &About) -> String {
    if about.basis.is_some_and(is_percent) {
        wording::percent(figure)
    } else {
        wording::amount(figure, about.unit)
    }
}

/// Returns the label of the figure, and that of the line it is compared with, if there is one.
const fn labels(kind: Kind, basis: Option<Basis>) -> (&'static str, Option<&'static str>) {
    match kind {
        Kind::OrgAlert => match basis {
            Some(Basis::PercentRemaining | Basis::AbsoluteRemaining) => ("Left", Some("Alert at")),
            Some(Basis::PercentUsed | Basis::AbsoluteUsed) | None => ("Used", Some("Alert at")),
        },
        Kind::UserAlert => ("Used", Some("Alert at")),
        Kind::UserLimitReached => ("Used", Some("Limit")),
        Kind::CreditBalanceLow => ("Left of what was bought", Some("Notice at")),
        Kind::CreditBalanceDepleted | Kind::CreditsAvailableAgain => ("Balance", None),
        Kind::CreditAutoRechargeTriggered => ("Bought", Some("Top-up at")),
        Kind::CreditPurchaseFailed => ("Not bought", Some("Top-up at")),
    }
}

fn facts(row: &OutboxRow) -> Vec<Fact> {
    let OutboxRow { account_id, firing, about, .. } = row;
    let at = |time| wording::time(time, about.timezone);
    let (figure_is, threshold_is) = labels(firing.kind, about.basis);
    let mut facts = vec![Fact { name: "Account", value: named(account_name(row), account_id.as_str()) }];
    if let Some(alert) = &firing.alert_id {
        facts.push(Fact { name: "Alert", value: alert.to_string() });
    }
    if is_about_a_user(firing.kind) {
        facts.push(Fact { name: "User", value: firing.subject.to_string() });
    }
    facts.push(Fact { name: figure_is, value: figure(firing.figure, about) });
    if let Some(name) = threshold_is {
        facts.push(Fact { name, value: figure(firing.threshold, about) });
    }
    facts.push(Fact { name: "When", value: at(firing.fired_at) });
    facts.push(Fact {
        name: "Billing period",
        value: wording::span(about.period_starts_at, about.period_ends_at, about.timezone),
    });
    facts
}

fn named(name: &str, id: &str) -> String {
    if name == id { id.to_owned() } else { format!("{name} ({id})") }
}

#[cfg(test)]
mod tests {
    use ledger_core::event::Unit;
    use ledger_core::value::id::Text;

    use super::*;
    use crate::delivery::samples;

    const STRIPE: ProviderName = ProviderName::Stripe;

    /// Compares with a file of `tests/golden`, which `UPDATE_GOLDEN=1` rewrites.
    fn check_golden(name: &str, found: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, found).expect("written");
        }
        assert_eq!(found, std::fs::read_to_string(&path).expect("readable"), "{name}");
    }

    fn check(row: &OutboxRow, recipient: &str, subject: &str, parts: &[&str]) {
        let mail = mail(row, recipient, STRIPE, "n-1").expect("rendered");
        assert_eq!(mail.subject, subject);
        let html = mail.html.expect("a mail has HTML");
        for part in parts {
            assert!(mail.text.contains(part), "{part} is not in\n{}", mail.text);
            assert!(html.contains(part), "{part} is not in\n{html}");
        }
        assert!(
            mail.text.contains("What to do next: ") && html.contains("What to do next: "),
            "{}",
            mail.text
        );
    }

    #[test]
    fn an_alert_mail_says_what_happened_at_which_figure_and_what_to_do() {
        let mail = mail(&samples::row("acme", 1), "carl", STRIPE, "n-1").expect("rendered");
        assert_eq!(mail.subject, "Acme has used 75.2% of its credits");
        check_golden("org_alert.txt", &mail.text);
        check_golden("org_alert.html", &mail.html.expect("a mail has HTML"));
    }

    #[test]
    fn an_org_alert_is_worded_by_its_basis() {
        let mut row = samples::row("acme", 1);
        let mut check_words = |basis, figure: &str, threshold: &str, subject: &str, parts: &[&str]| {
            row.about.basis = Some(basis);
            row.firing.figure = figure.parse().expect("an amount");
            row.firing.threshold = threshold.parse().expect("an amount");
            check(&row, "carl", subject, parts);
        };
        let used = [
            "used 7,520 credits",
            "at 7,500 credits used",
            "begins on Sun 1 Mar 2026, 00:00 (Europe/Berlin)",
        ];
        check_words(Basis::AbsoluteUsed, "7520", "7500", "Acme has used 7,520 credits", &used);
        check_words(
            Basis::PercentRemaining,
            "9.5",
            "10",
            "Acme has 9.5% of its credits left",
            &["has 9.5% of its credits left", "at 10% left"],
        );
        check_words(
            Basis::AbsoluteRemaining,
            "12.5",
            "20",
            "Acme has 12.5 credits left",
            &["at 20 credits left"],
        );
    }

    #[test]
    fn a_user_is_addressed_and_an_admin_reads_of_them() {
        let row = samples::of_kind(Kind::UserAlert, "ana", "520", "500");
        check(
            &row,
            "ana",
            "You have used 520 credits",
            &["you have used 520 credits of Acme", "at 500 credits"],
        );
        check(&row, "carl", "ana has used 520 credits", &["the user ana has used 520 credits of Acme"]);
        let row = samples::of_kind(Kind::UserLimitReached, "ana", "500.5", "500");
        check(
            &row,
            "ana",
            "You have reached the limit of 500 credits",
            &["ask an admin of Acme", "500.5 credits"],
        );
        check(
            &row,
            "carl",
            "ana has reached the limit of 500 credits",
            &["raise the limit", "500.5 credits"],
        );
        // An account may have the same name as an admin.
        let row = samples::of_kind(Kind::CreditBalanceLow, "acme", "1", "2");
        check(&row, "acme", "Acme is down to 1 credit of what it bought", &["told at 2 credits"]);
    }

    #[test]
    fn notices_are_worded_in_the_unit_of_the_account() {
        let check_words = |kind, figure, threshold, subject: &str, parts: &[&str]| {
            let mut row = samples::of_kind(kind, "acme", figure, threshold);
            row.about.unit = Unit::Usd;
            check(&row, "carl", subject, parts);
        };
        let low = Kind::CreditBalanceLow;
        check_words(
            low,
            "12.5",
            "20",
            "Acme is down to $12.50 of what it bought",
            &["$12.50 is left", "told at $20.00"],
        );
        check_words(
            Kind::CreditBalanceDepleted,
            "-0.25",
            "0",
            "Acme has no credit left",
            &["is -$0.25", "new work is refused"],
        );
        check_words(
            Kind::CreditsAvailableAgain,
            "50",
            "0",
            "Acme has credit again",
            &["is $50.00", "can go on"],
        );
        let topped_up = Kind::CreditAutoRechargeTriggered;
        check_words(
            topped_up,
            "50",
            "10",
            "Acme was topped up by $50.00",
            &["came to $10.00 or less", "$50.00 was bought"],
        );
        let failed = Kind::CreditPurchaseFailed;
        check_words(
            failed,
            "50",
            "10",
            "A top-up of Acme by $50.00 failed",
            &["the payment failed", "check the payment method"],
        );
    }

    #[test]
    fn a_sandbox_payment_is_said_to_be_one_and_a_real_one_is_not() {
        let check = |kind, says_so: bool| {
            let row = samples::of_kind(kind, "acme", "50", "10");
            for (payer, expected) in [(ProviderName::Sandbox, says_so), (STRIPE, false)] {
                let mail = mail(&row, "carl", payer, "n-1").expect("rendered");
                let in_app = in_app(&row, "carl", payer).expect("rendered");
                for text in [mail.text, mail.html.expect("a mail has HTML"), in_app.text] {
                    let found = text.contains("no money moved") && text.contains("sandbox payment");
                    assert_eq!(found, expected, "{payer:?}: {text}");
                }
            }
        };
        check(Kind::CreditAutoRechargeTriggered, true);
        check(Kind::CreditPurchaseFailed, true);
        check(Kind::CreditBalanceLow, false);
    }

    #[test]
    fn a_name_can_not_smuggle_markup_into_a_mail() {
        let mut row = samples::row("acme", 1);
        row.about.name = Some(Text::new("<b>Acme</b> & \"Sons\"").expect("a text"));
        let mail = mail(&row, "carl", STRIPE, "n-1").expect("rendered");
        assert_eq!(mail.subject, "<b>Acme</b> & \"Sons\" has used 75.2% of its credits");
        assert!(mail.text.contains("<b>Acme</b> & \"Sons\""), "plain text needs no escapes");
        let html = mail.html.expect("a mail has HTML");
        assert!(!html.contains("<b>") && html.contains("&#60;b&#62;Acme"), "{html}");
    }

    #[test]
    fn an_account_without_a_name_is_called_by_its_id() {
        let mut row = samples::row("acme", 1);
        for name in [None, Some(Text::new(" ").expect("a text"))] {
            row.about.name = name;
            check(&row, "carl", "acme has used 75.2% of its credits", &["acme"]);
        }
    }

    #[test]
    fn what_is_read_in_the_product_says_the_same_without_a_mail_s_footer() {
        let row = samples::row("acme", 1);
        let (mail, in_app) = (
            mail(&row, "carl", STRIPE, "n-1").expect("rendered"),
            in_app(&row, "carl", STRIPE).expect("rendered"),
        );
        assert_eq!((in_app.subject.as_str(), in_app.html), (mail.subject.as_str(), None));
        assert!(mail.text.starts_with(in_app.text.trim_end()), "{}\n{}", mail.text, in_app.text);
        assert!(mail.text.ends_with("\nNotification n-1\n") && !in_app.text.contains("Notification"));
    }
}
