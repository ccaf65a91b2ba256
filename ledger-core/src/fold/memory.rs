//! The ledger of many accounts in memory.
//!
//! It loads and stores pages batch by batch, as the read model does; for tests, verification and benchmarks.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::account::Core;
use crate::account::limit::OwnLimit;
use crate::account::lot::Lot;
use crate::account::withdrawal::{Repayment, Seen};
use crate::event::key::{DedupeKey, dedupe_key};
use crate::fold::pages::{Missing, Pages};
use crate::fold::{self, Applied, Error, Fact, Observer, Outcome};
use crate::value::credits::Credits;
use crate::value::id::{AccountId, CallId, EventId, GrantId, PaymentId, Source, UserId};

#[derive(Debug, Default)]
pub struct Memory {
    /// Every account with at least one event.
    pub accounts: FxHashMap<AccountId, Account>,
}

/// One account with all its pages.
#[derive(Debug, Default)]
pub struct Account {
    /// `None` before its opening.
    pub core: Option<Core>,
    /// Every lot ever created, as last stored.
    pub lots: BTreeMap<GrantId, Lot>,
    /// Users' own limits, those of earlier series among them.
    pub own_limits: BTreeMap<UserId, OwnLimit>,
    seen: FxHashMap<DedupeKey, Seen>,
    payments: FxHashMap<PaymentId, GrantId>,
    calls: FxHashMap<CallId, (Source, EventId)>,
    repayments: Vec<Repayment>,
}

impl Memory {
    /// Folds a batch. Pages live as long as the batch, so the result must not depend on how the log is cut.
    ///
    /// Panics if credits are not conserved.
    pub fn fold(&mut self, batch: &[Fact]) -> Vec<Applied> {
        let mut pages: FxHashMap<AccountId, Pages> = FxHashMap::default();
        let mut results = Vec::with_capacity(batch.len());
        for fact in batch {
            let account = self.accounts.entry(fact.event.account.clone()).or_default();
            let pages = pages.entry(fact.event.account.clone()).or_default();
            results.push(account.apply(pages, fact, &mut ()));
        }
        for (id, pages) in pages {
            if let Some(account) = self.accounts.get_mut(&id) {
                account.store(pages);
            }
        }
        results
    }

    /// Folds one event, as a batch of its own, with an observer.
    pub fn fold_watched(&mut self, fact: &Fact, observer: &mut impl Observer) -> Applied {
        let account = self.accounts.entry(fact.event.account.clone()).or_default();
        let mut pages = Pages::default();
        let applied = account.apply(&mut pages, fact, observer);
        account.store(pages);
        applied
    }
}

impl Account {
    fn apply(&mut self, pages: &mut Pages, fact: &Fact, observer: &mut impl Observer) -> Applied {
        loop {
            match fold::apply_watched(&mut self.core, pages, fact, observer) {
                Ok(applied) => {
                    self.set_own_limits(fact, &applied);
                    return applied;
                }
                Err(Error::Missing(missing)) => {
                    missing.into_iter().for_each(|missing| self.load(pages, missing, &fact.event.account));
                }
                Err(error @ Error::NotConserved { .. }) => panic!("{error}"),
            }
        }
    }

    fn set_own_limits(&mut self, fact: &Fact, applied: &Applied) {
        let limits = self.core.as_ref().and_then(|core| core.limits.as_ref());
        let Some(limits) = limits.filter(|_| applied.outcome == Outcome::Applied) else { return };
        for (user, own) in limits.own_set_by(&fact.event.data) {
            match own {
                Some(own) => drop(self.own_limits.insert(user.clone(), own)),
                None => drop(self.own_limits.remove(user)),
            }
        }
    }

    fn load(&self, pages: &mut Pages, missing: Missing, account: &AccountId) {
        match missing {
            Missing::Event(source, id) => {
                let key = dedupe_key(account, &source, &id);
                pages.seen.insert(key, self.seen.get(&key).cloned());
            }
            Missing::Lot(id) => {
                let page = self.lots.get(&id).cloned();
                pages.lots.insert(id, page);
            }
            Missing::Payment(payment) => {
                let lot = self.payments.get(&payment).cloned();
                if let Some(lot) = &lot {
                    let page = self.lots.get(lot).cloned();
                    pages.lots.entry(lot.clone()).or_insert(page);
                }
                pages.payments.insert(payment, lot);
            }
            Missing::Call(call) => {
                let first = self.calls.get(&call).cloned();
                pages.calls.insert(call, first);
            }
            Missing::Repayments(line) => {
                for repayment in self.repayments.iter().filter(|r| r.stretch.overlap(&line).is_some()) {
                    pages.repayments.insert(repayment.stretch.start, repayment.clone());
                }
                pages.covered.push(line);
            }
        }
    }

    fn store(&mut self, pages: Pages) {
        let Some(core) = &self.core else { return };
        for id in &pages.touched {
            let lot = core.lots.get(id).or_else(|| pages.lots.get(id)?.as_ref());
            if let Some(lot) = lot {
                if let Some(payment) = &lot.payment_id {
                    self.payments.insert(payment.clone(), id.clone());
                }
                self.lots.insert(id.clone(), lot.clone());
            }
        }
        for (key, seen) in pages.seen {
            if let Some(seen) = seen {
                self.seen.insert(key, seen);
            }
        }
        self.calls.extend(pages.calls.into_iter().filter_map(|(call, first)| Some((call, first?))));
        self.repayments.extend(pages.new_repayments);
    }

    /// Returns the settled balance; 0 before the opening.
    pub fn settled(&self) -> Credits {
        self.core.as_ref().map_or(Credits::ZERO, Core::settled)
    }
}
