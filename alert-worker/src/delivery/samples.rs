//! Samples: firings for the tests of this folder.

use std::str::FromStr;

use ledger_core::event::{Basis, Channel, Recipients, Unit};
use ledger_core::policy::alert::{Audience, Firing, Kind};
use ledger_core::value::id::{EventId, NameError, Text};

use uuid::Uuid;

use super::outbox::{About, OutboxRow};

pub fn id<T: FromStr<Err = NameError>>(text: &str) -> T {
    text.parse().expect("an id")
}

/// An org alert of an account at 75 percent used, notifying all admins on every channel.
pub fn row(account: &str, firing: u128) -> OutboxRow {
    OutboxRow {
        account_id: id(account),
        firing: Firing {
            firing_id: Uuid::from_u128(firing),
            kind: Kind::OrgAlert,
            alert_id: Some(id("a75")),
            subject: id(account),
            threshold: "75".parse().expect("an amount"),
            threshold_version: 1,
            period_index: 0,
            figure: "75.2".parse().expect("an amount"),
            fired_at: "2026-02-03T10:00:00Z".parse().expect("a time"),
            event_id: EventId::new("msg-1:1").expect("an id"),
            audience: Audience {
                recipients: Recipients::AllAdmins,
                channels: Channel::ALL.to_vec(),
                notify_user: false,
            },
        },
        about: About {
            name: Some(Text::new("Acme").expect("a text")),
            unit: Unit::Credits,
            timezone: "Europe/Berlin".parse().expect("a zone"),
            period_starts_at: "2026-01-31T23:00:00Z".parse().expect("a time"),
            period_ends_at: "2026-02-28T23:00:00Z".parse().expect("a time"),
            basis: Some(Basis::PercentUsed),
        },
        is_from_before: false,
    }
}

/// A firing of any kind.
pub fn of_kind(kind: Kind, subject: &str, figure: &str, threshold: &str) -> OutboxRow {
    let mut row = row("acme", 1);
    row.firing.kind = kind;
    row.firing.alert_id = None;
    row.firing.subject = id(subject);
    row.firing.figure = figure.parse().expect("an amount");
    row.firing.threshold = threshold.parse().expect("an amount");
    row.about.basis = None;
    row
}
