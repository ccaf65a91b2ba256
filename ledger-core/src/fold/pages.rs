//! What the fold needs of an account beyond its core, loaded for one batch.
//!
//! `needs` names what an event will surely read, so a batch loads it in bulk; `fold::apply` names whatever else is
//! missing, one page at a time. A page that the batch has changed is newer than the table and is never replaced.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::{SmallVec, smallvec};

use crate::account::lot::Lot;
use crate::account::overdraft::Stretch;
use crate::account::withdrawal::{Repayment, Seen};
use crate::event::key::DedupeKey;
use crate::event::{Data, Dispute, Event, derive};
use crate::fold::Applied;
use crate::value::credits::Credits;
use crate::value::id::{AccountId, EventId, GrantId, PaymentId, Source};

/// Something that has to be loaded into the pages before an event can be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// Whether an event of this source and id is known, and if it is usage, what it took.
    Event(Source, EventId),
    /// A lot that may have nothing left.
    Lot(GrantId),
    /// The lot of a payment.
    Payment(PaymentId),
    /// Which lots repaid this stretch of the overdraft line.
    Repayments(Stretch),
}

/// Loaded pages of one account, and what a batch changed in them.
#[derive(Debug, Default)]
pub struct Pages {
    /// Events by id; `None` = surely unknown.
    pub seen: FxHashMap<DedupeKey, Option<Seen>>,
    /// Lots that have nothing left or are closed; `None` = surely none. What the core has is newer.
    pub lots: FxHashMap<GrantId, Option<Lot>>,
    /// Lot of each payment; `None` = surely none.
    pub payments: FxHashMap<PaymentId, Option<GrantId>>,
    /// Repayments by where they start.
    pub repayments: BTreeMap<Credits, Repayment>,
    /// Stretches whose repayments have been loaded.
    pub covered: Vec<Stretch>,
    /// Lots that were made or changed, to be stored from the core or from here.
    pub touched: FxHashSet<GrantId>,
    /// Repayments made, to be stored.
    pub new_repayments: Vec<Repayment>,
    /// What crossings did for an event that then missed a page.
    pub(crate) unfinished: Option<Box<Applied>>,
}

impl Pages {
    /// Returns a loaded lot; its absence if that is sure, else what is missing.
    pub(crate) fn lot(&self, grant_id: &GrantId) -> Result<Option<&Lot>, Missing> {
        let page = self.lots.get(grant_id).ok_or_else(|| Missing::Lot(grant_id.clone()))?;
        Ok(page.as_ref())
    }

    /// Keeps a lot that has left the core.
    pub(crate) fn put(&mut self, lot: Lot) {
        self.lots.insert(lot.grant_id.clone(), Some(lot));
    }
}

/// Returns source and id of the event that opened a dispute.
pub fn opening_of(account: &AccountId, dispute: &Dispute) -> (Source, EventId) {
    let source = Source::new(derive::DISPUTES).expect("a well-formed source");
    (source, derive::dispute_opened_id(account, &dispute.dispute_id))
}

/// Names what an event will surely read.
pub fn needs(event: &Event) -> SmallVec<[Missing; 2]> {
    let mut missing = smallvec![Missing::Event(event.source.clone(), event.id.clone())];
    match &event.data {
        Data::UsageReversed(reversal) => {
            missing.push(Missing::Event(reversal.source.clone(), reversal.event_id.clone()));
        }
        Data::CreditsGranted(grant) => missing.push(Missing::Lot(grant.grant_id.clone())),
        Data::GrantVoided(void) => missing.push(Missing::Lot(void.grant_id.clone())),
        Data::CreditsPurchased(purchase) => {
            missing.push(Missing::Payment(purchase.payment_id.clone()));
            missing.push(Missing::Lot(purchase.payment_id.as_grant()));
        }
        Data::CreditsToppedUp(top_up) => {
            missing.push(Missing::Payment(top_up.payment_id.clone()));
            missing.push(Missing::Lot(top_up.attempt_id.as_grant()));
        }
        Data::CreditsRefunded(refund) => missing.push(Missing::Payment(refund.payment_id.clone())),
        Data::DisputeOpened(dispute) => missing.push(Missing::Payment(dispute.payment_id.clone())),
        Data::DisputeWon(dispute) => {
            let (source, opened) = opening_of(&event.account, dispute);
            missing.push(Missing::Event(source, opened));
            missing.push(Missing::Payment(dispute.payment_id.clone()));
        }
        Data::AccountOpened(_)
        | Data::AccountChanged(_)
        | Data::PlanChanged(_)
        | Data::ClockAdvanced(_)
        | Data::UsageRecorded(_)
        | Data::CreditsAdjusted(_)
        | Data::PeriodReset(_)
        | Data::LimitsSet(_)
        | Data::OrgAlertSet(_)
        | Data::OrgAlertRemoved(_)
        | Data::UserAlertSet(_)
        | Data::AutoTopUpSet(_)
        | Data::TopUpStarted(_)
        | Data::TopUpFailed(_)
        | Data::TopUpRefused(_) => {}
    }
    missing
}
