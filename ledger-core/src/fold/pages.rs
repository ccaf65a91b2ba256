//! The state that the fold needs of an account beyond its core, loaded for one batch.
//!
//! `needs` lists the pages that an event certainly reads, so a batch loads them in bulk; `fold::apply` reports what is
//! missing. A page that the batch has changed is newer than the table and is never replaced.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::{SmallVec, smallvec};

use crate::account::lot::Lot;
use crate::account::overdraft::Stretch;
use crate::account::withdrawal::{Repayment, Seen};
use crate::event::key::DedupeKey;
use crate::event::{Data, Dispute, Event, FailRefund, derive};
use crate::fold::Applied;
use crate::value::credits::Credits;
use crate::value::id::{AccountId, CallId, EventId, GrantId, PaymentId, Source};

/// A page that has to be loaded before an event can be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The event of this source and id, and its withdrawal if it is usage.
    Event(Source, EventId),
    /// A lot that may be empty.
    Lot(GrantId),
    Payment(PaymentId),
    /// The applied usage of this call.
    Call(CallId),
    /// The lots that repaid this stretch of the overdraft line.
    Repayments(Stretch),
}

/// Pages that one event needs; most need one or two.
pub type MissingPages = SmallVec<[Missing; 2]>;

/// Loaded pages of one account, and the batch's changes to them.
#[derive(Debug, Default)]
pub struct Pages {
    /// Events by id; `None` means certainly unknown.
    pub seen: FxHashMap<DedupeKey, Option<Seen>>,
    /// Empty or closed lots; `None` means that no such lot exists. Lots in the core are newer.
    pub lots: FxHashMap<GrantId, Option<Lot>>,
    /// Lot of each payment; `None` means that no such payment exists.
    pub payments: FxHashMap<PaymentId, Option<GrantId>>,
    /// The applied usage of each call; `None` means that none has applied.
    pub calls: FxHashMap<CallId, Option<(Source, EventId)>>,
    /// Repayments by the start of their stretch.
    pub repayments: BTreeMap<Credits, Repayment>,
    /// Stretches whose repayments have been loaded.
    pub covered: Vec<Stretch>,
    /// Lots created or changed, to be stored from the core or from here.
    pub touched: FxHashSet<GrantId>,
    /// Repayments created, to be stored.
    pub new_repayments: Vec<Repayment>,
    /// Effects of crossings for an event that then missed a page.
    pub(crate) unfinished: Option<Box<Applied>>,
}

impl Pages {
    /// Returns a loaded lot, `None` if it certainly does not exist, or the missing page.
    pub(crate) fn lot(&self, grant_id: &GrantId) -> Result<Option<&Lot>, Missing> {
        let page = self.lots.get(grant_id).ok_or_else(|| Missing::Lot(grant_id.clone()))?;
        Ok(page.as_ref())
    }

    /// Lists who repaid how much of a stretch whose repayments are loaded.
    pub(crate) fn repaid(&self, line: &Stretch) -> impl Iterator<Item = (GrantId, Credits)> {
        // Repaid stretches are disjoint, so at most one that begins before the line reaches into it.
        let before = self.repayments.range(..line.start).next_back();
        let within = self.repayments.range(line.start..line.end);
        before.into_iter().chain(within).filter_map(|(_, repayment)| {
            let both = repayment.stretch.overlap(line)?;
            Some((repayment.grant_id.clone(), both.length()))
        })
    }

    /// Stores a lot that has left the core.
    pub(crate) fn put(&mut self, lot: Lot) {
        self.lots.insert(lot.grant_id.clone(), Some(lot));
    }
}

/// Returns source and id of the event that opened a dispute.
pub fn opening_of(account: &AccountId, dispute: &Dispute) -> (Source, EventId) {
    let source = Source::new(derive::DISPUTES).expect("a well-formed source");
    (source, derive::dispute_opened_id(account, &dispute.dispute_id))
}

/// Returns source and id of the event that recorded a refund of the provider.
pub fn refunding_of(account: &AccountId, failure: &FailRefund) -> (Source, EventId) {
    let source = Source::new(derive::API).expect("a well-formed source");
    (source, derive::refunded_id(account, &failure.refund_id))
}

/// Adds the lot and the payment that may have a new lot's id.
fn needs_new(missing: &mut MissingPages, id: &GrantId) {
    missing.push(Missing::Lot(id.clone()));
    missing.push(Missing::Payment(id.as_payment()));
}

/// Lists the pages that an event certainly reads.
pub fn needs(event: &Event) -> MissingPages {
    let mut missing = smallvec![Missing::Event(event.source.clone(), event.id.clone())];
    match &event.data {
        Data::UsageRecorded(usage) => missing.extend(usage.call_id.clone().map(Missing::Call)),
        Data::UsageReversed(reversal) => {
            missing.push(Missing::Event(reversal.source.clone(), reversal.event_id.clone()));
        }
        Data::CreditsGranted(grant) => needs_new(&mut missing, &grant.grant_id),
        Data::CreditsAdjusted(_) => {
            if let Ok(id) = GrantId::new(event.id.as_str()) {
                needs_new(&mut missing, &id);
            }
        }
        Data::GrantVoided(void) => missing.push(Missing::Lot(void.grant_id.clone())),
        Data::CreditsPurchased(purchase) => {
            needs_new(&mut missing, &purchase.payment_id.as_grant());
        }
        Data::CreditsToppedUp(top_up) => {
            needs_new(&mut missing, &top_up.payment_id.as_grant());
            needs_new(&mut missing, &top_up.attempt_id.as_grant());
        }
        Data::CreditsRefunded(refund) => missing.push(Missing::Payment(refund.payment_id.clone())),
        Data::DisputeOpened(dispute) => missing.push(Missing::Payment(dispute.payment_id.clone())),
        Data::DisputeWon(dispute) => {
            let (source, opened) = opening_of(&event.account, dispute);
            missing.push(Missing::Event(source, opened));
            missing.push(Missing::Payment(dispute.payment_id.clone()));
        }
        Data::RefundFailed(failure) => {
            let (source, refunded) = refunding_of(&event.account, failure);
            missing.push(Missing::Event(source, refunded));
            missing.push(Missing::Payment(failure.payment_id.clone()));
        }
        Data::AccountOpened(_)
        | Data::AccountChanged(_)
        | Data::AccountClosed(_)
        | Data::PlanChanged(_)
        | Data::ClockAdvanced(_)
        | Data::PeriodReset(_)
        | Data::LimitsSet(_)
        | Data::UserLimitSet(_)
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
