//! Refunds: merges what webhooks report about the refunds of one payment with what the journal has of them.
//!
//! A refund counts once, whether a webhook names it or only tells the total of all. What the journal has received for a
//! total has a name of ours, and a refund that is named later is taken to be in it.

use std::collections::BTreeMap;

use ledger_core::value::credits::Credits;
use ledger_core::value::id::RefundId;
use serde::{Deserialize, Serialize};

use super::event::ReportedRefund;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refunds {
    /// What webhooks have reported, by the provider's id.
    #[serde(default, rename = "told")]
    reported: BTreeMap<RefundId, ReportedMoney>,
    /// What the journal has received, by the name under which it did.
    #[serde(default)]
    recorded: BTreeMap<String, Recorded>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ReportedMoney {
    money: i64,
    failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Recorded {
    #[serde(flatten)]
    part: Part,
    undone: bool,
}

/// A part of a payment, in the provider's smallest unit and in the account's unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) money: i64,
    pub(super) credits: Credits,
}

impl Refunds {
    /// Merges a refund as a webhook reports it. One that has failed stays so.
    pub(super) fn merge(&mut self, refund: &ReportedRefund) {
        let known = self.reported.entry(refund.refund_id.clone()).or_default();
        known.money = refund.amount;
        known.failed |= refund.failed;
    }

    /// Returns whether a webhook has named a refund.
    pub(super) fn any_reported(&self) -> bool {
        !self.reported.is_empty()
    }

    /// Returns whether the journal has received any, also one that was undone.
    pub(super) fn is_recorded(&self) -> bool {
        !self.recorded.is_empty()
    }

    /// Returns the money that refunds give back, of all those reported by name or in this total.
    pub(super) fn standing(&self, total: i64) -> i64 {
        let named: i64 = self.reported.values().map(|refund| refund.money).sum();
        let failed: i64 =
            self.reported.values().filter(|refund| refund.failed).map(|refund| refund.money).sum();
        named.max(total) - failed
    }

    /// Lists what the journal has received and not undone.
    pub(super) fn live(&self) -> impl Iterator<Item = &Part> {
        self.recorded.values().filter(|recorded| !recorded.undone).map(|recorded| &recorded.part)
    }

    /// Returns the money of all that the journal has ever received: it only grows.
    pub(super) fn money_ever(&self) -> i64 {
        self.recorded.values().map(|recorded| recorded.part.money).sum()
    }

    /// Returns a refund that stands and that the journal has not received by name.
    pub(super) fn next_named(&self) -> Option<(String, i64)> {
        let mut standing = self.reported.iter().filter(|(_, refund)| !refund.failed);
        let next = standing.find(|(id, _)| !self.recorded.contains_key(id.as_str()));
        next.map(|(id, refund)| (id.to_string(), refund.money))
    }

    pub(super) fn record(&mut self, name: String, part: Part) {
        self.recorded.insert(name, Recorded { part, undone: false });
    }

    /// Undoes what the journal has of a refund that failed. With `excess`, money that the journal has above what stands,
    /// that may be what it received for a total. Returns its name and credits.
    pub(super) fn undo(&mut self, excess: i64) -> Option<(String, Credits)> {
        let reported =
            |name: &str| self.reported.iter().find(|(id, _)| id.as_str() == name).map(|(_, refund)| refund);
        let live = || self.recorded.iter().filter(|(_, recorded)| !recorded.undone);
        let of_totals = || live().filter(|(name, _)| excess > 0 && reported(name).is_none());
        let found = live()
            .find(|(name, _)| reported(name).is_some_and(|refund| refund.failed))
            .or_else(|| of_totals().find(|(_, recorded)| recorded.part.money == excess))
            .or_else(|| of_totals().next_back());
        let name = found?.0.clone();
        let recorded = self.recorded.get_mut(&name)?;
        recorded.undone = true;
        Some((name, recorded.part.credits))
    }

    /// Notes that a refund failed which the journal received before refunds had names. Returns its name.
    pub(super) fn undo_nameless(&mut self, part: Part) -> Option<String> {
        let failed = self.reported.iter().filter(|(_, refund)| refund.failed);
        let mut unknown = failed.filter(|(id, _)| !self.recorded.contains_key(id.as_str()));
        let name = unknown.next()?.0.to_string();
        self.recorded.insert(name.clone(), Recorded { part, undone: true });
        Some(name)
    }
}
