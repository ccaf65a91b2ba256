//! An account with its alerts: folds in batches, and stores as JSON what is kept between them.

use std::collections::BTreeMap;

use ledger_core::account::Core;
use ledger_core::fold::memory::Memory;
use ledger_core::fold::{Applied, Fact};
use ledger_core::policy::alert::{
    Firing, Kind, LimitPage, MissingUsers, Past, UserPage, Users, Watch, Watcher,
};
use ledger_core::value::id::{AccountId, UserId};

use crate::story::{ACCOUNT, story};

/// The model of an alert worker with one account.
#[derive(Default)]
pub struct Watched {
    pub memory: Memory,
    pub watch: Watch,
    pub firings: Vec<Firing>,
    /// Pages of the period, as stored.
    pub pages: BTreeMap<UserId, String>,
    /// Pages of limits, as stored.
    pub limits: BTreeMap<UserId, String>,
    period_index: Option<i64>,
    /// Parts in which edits of rules were applied to the users.
    pub parts: usize,
}

/// Users that one part of a rule's edit covers.
pub const PART_USERS_MAX: usize = 2;

impl Watched {
    pub fn core(&self) -> Option<&Core> {
        self.memory.accounts.get(&AccountId::new(ACCOUNT).expect("an id"))?.core.as_ref()
    }

    pub fn batch(&mut self, facts: &[Fact]) {
        let stored = serde_json::to_string(&self.watch).expect("JSON");
        self.watch = serde_json::from_str(&stored).expect("a watch");
        let mut users = Users::of(self.core());
        for fact in facts {
            let mut watcher = Watcher { watch: &mut self.watch, firings: &mut self.firings };
            let applied = self.memory.fold_watched(fact, &mut watcher);
            self.users(&mut users, fact, &applied);
        }
        if users.period_index() != self.period_index {
            self.pages.clear();
            self.period_index = users.period_index();
        }
        for (user, page) in users.touched() {
            self.pages.insert(user.clone(), serde_json::to_string(page).expect("JSON"));
        }
        for (user, page) in users.touched_limits() {
            match page {
                Some(page) => {
                    drop(self.limits.insert(user.clone(), serde_json::to_string(page).expect("JSON")))
                }
                None => drop(self.limits.remove(user)),
            }
        }
        assert!(self.limits.is_empty() || self.watch.has_own_limits());
    }

    fn limit(&self, user: &UserId) -> Option<LimitPage> {
        self.limits.get(user).map(|json| serde_json::from_str(json).expect("a page of a limit"))
    }

    fn is_past(&self, user: &UserId, page: &UserPage, past: Past) -> bool {
        let is_own = |series: u64| match self.limit(user) {
            Some(LimitPage::Own { series: of, limit, .. }) if of == series => {
                limit.amount().is_some_and(|limit| page.used >= limit)
            }
            _ => false,
        };
        past.usage.is_some_and(|usage| page.used >= usage) || past.own_limits.is_some_and(is_own)
    }

    fn users(&mut self, users: &mut Users, fact: &Fact, applied: &Applied) {
        let account = self.memory.accounts.get(&AccountId::new(ACCOUNT).expect("an id"));
        let Some(core) = account.and_then(|account| account.core.as_ref()) else { return };
        loop {
            let fired_before = self.firings.len();
            let missing = self.watch.users(core, users, fact, applied, &mut self.firings).err();
            for (user, page) in users.pass() {
                self.pages.insert(user, serde_json::to_string(&page).expect("JSON"));
            }
            match missing {
                None => return,
                Some(MissingUsers::These(ids)) => {
                    assert_eq!(self.firings.len(), fired_before, "something fired before a page was missed");
                    for id in ids {
                        let page = self.pages.get(&id).map(|json| page(json));
                        users.load_limit(id.clone(), self.limit(&id));
                        users.load(id, page);
                    }
                }
                Some(MissingUsers::Next { past, after }) => {
                    let behind = |id: &UserId| after.as_ref().is_none_or(|after| id > after);
                    let pages = self.pages.iter().map(|(id, json)| (id.clone(), page(json)));
                    let pages = pages.filter(|(id, page)| behind(id) && self.is_past(id, page, past));
                    let pages = pages.map(|(id, page)| (id.clone(), page, self.limit(&id)));
                    let some: Vec<_> = pages.take(PART_USERS_MAX).collect();
                    let are_last = some.len() < PART_USERS_MAX;
                    users.load_next(some, are_last);
                    self.parts += 1;
                }
            }
        }
    }
}

fn page(json: &str) -> UserPage {
    serde_json::from_str(json).expect("a page")
}

/// Folds a story one event a batch.
pub fn watched(script: &str) -> Watched {
    let mut watched = Watched::default();
    for fact in &story(script).facts {
        watched.batch(std::slice::from_ref(fact));
    }
    watched
}

/// Shows firings: `org_alert a75 v1 75; user_alert ana v1 7; credit_balance_low 3`.
pub fn shown(firings: &[Firing]) -> String {
    let one = |firing: &Firing| {
        let (kind, figure) = (firing.kind.as_str(), firing.figure);
        match firing.kind {
            Kind::OrgAlert => {
                let alert = firing.alert_id.as_ref().expect("an alert");
                format!("{kind} {alert} v{} {figure}", firing.threshold_version)
            }
            Kind::UserAlert | Kind::UserLimitReached => {
                format!("{kind} {} v{} {figure}", firing.subject, firing.threshold_version)
            }
            Kind::CreditBalanceLow
            | Kind::CreditBalanceDepleted
            | Kind::CreditsAvailableAgain
            | Kind::CreditAutoRechargeTriggered
            | Kind::CreditPurchaseFailed => format!("{kind} {figure}"),
        }
    };
    firings.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Plays one story and compares all firings.
pub fn check(script: &str, expected: &str) {
    assert_eq!(shown(&watched(script).firings), expected, "{script}");
}
