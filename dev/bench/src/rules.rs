//! Rules: what evaluating alerts adds to folding an event, on accounts with no, ten and a hundred alerts.

use std::hint::black_box;
use std::time::Instant;

use ledger_core::account::Core;
use ledger_core::event::{Basis, Data, SetLimits, SetOrgAlert, SetUserAlert};
use ledger_core::fold::pages::Pages;
use ledger_core::fold::{self, Fact};
use ledger_core::policy::alert::{Users, Watch, Watcher};
use ledger_core::value::id::{AccountId, AlertId};
use rustc_hash::FxHashMap;
use serde_json::json;

use crate::fold::{BATCH_EVENTS, event, fold_batch, open_accounts, start, usage};
use crate::measured::Measured;

/// Org alerts of each account; accounts with any also have a user alert and limits.
const RULES: [usize; 3] = [0, 10, 100];

/// An account with its fold and its alerts.
#[derive(Default)]
struct Watched {
    core: Option<Core>,
    watch: Watch,
}

/// Measures each number of rules against the bare fold, alternating.
pub fn run() -> Vec<Measured> {
    let facts = usage();
    RULES.into_iter().map(|rules| measure(rules, &facts)).collect()
}

fn measure(rules: usize, facts: &[Fact]) -> Measured {
    let mut bare_cores = open_accounts();
    let mut accounts: FxHashMap<AccountId, Watched> = open_accounts()
        .into_iter()
        .map(|(id, core)| (id, with_rules(Watched { core, watch: Watch::default() }, rules)))
        .collect();
    let (mut watched, mut bare) = (0.0, 0.0);
    for batch in facts.chunks(BATCH_EVENTS) {
        watched += watch_batch(&mut accounts, batch);
        bare += fold_batch(&mut bare_cores, batch);
    }
    let nanoseconds = 1e9 / facts.len() as f64;
    Measured {
        more: json!({"events": facts.len(), "org_alerts": rules, "events_per_second": (facts.len() as f64 / watched).round()}),
        ..Measured::new(
            "rules",
            "ns per event to evaluate",
            (watched - bare) * nanoseconds,
            ("ns per event to fold", bare * nanoseconds),
            "as little as the fold itself, with 10 rules",
        )
    }
}

/// Sets rules that no usage of this run reaches; every event still evaluates them.
fn with_rules(mut account: Watched, rules: usize) -> Watched {
    let unreached = |n: usize| {
        ledger_core::value::credits::Credits::whole(i64::try_from(900_000_000 + n).unwrap_or(i64::MAX))
    };
    let bases = [Basis::PercentUsed, Basis::AbsoluteUsed];
    let mut settings: Vec<Data> = (0..rules)
        .map(|n| {
            let basis = bases[n % bases.len()];
            let threshold = match basis {
                Basis::PercentUsed => ledger_core::value::credits::Credits::whole(90),
                Basis::AbsoluteUsed | Basis::PercentRemaining | Basis::AbsoluteRemaining => unreached(n),
            };
            let alert_id = AlertId::new(&format!("alert-{n}")).expect("a well-formed id");
            Data::OrgAlertSet(SetOrgAlert { alert_id, basis, threshold, recipients: None, channels: None })
        })
        .collect();
    if rules > 0 {
        settings.push(Data::UserAlertSet(SetUserAlert {
            threshold: Some(unreached(0)),
            ..SetUserAlert::default()
        }));
        settings
            .push(Data::LimitsSet(SetLimits { default_limit: Some(unreached(0)), ..SetLimits::default() }));
    }
    for (n, data) in settings.into_iter().enumerate() {
        let id = account.core.as_ref().map(|core| core.account.clone()).expect("an open account");
        let fact = Fact::new(event(id, &format!("rule-{n}"), data), start(), 2);
        let mut pages = Pages::default();
        pages.seen.insert(fact.key, None);
        let mut firings = Vec::new();
        let mut watcher = Watcher { watch: &mut account.watch, firings: &mut firings };
        let applied = fold::apply_watched(&mut account.core, &mut pages, &fact, &mut watcher);
        let applied = applied.expect("no page is missing");
        let core = account.core.as_ref().expect("an open account");
        let mut users = Users::of(Some(core));
        loop {
            match account.watch.users(core, &mut users, &fact, &applied, &mut firings) {
                Ok(()) => break,
                // Nobody has used anything yet.
                Err(_) => users.load_next(Vec::new(), true),
            }
        }
    }
    account
}

fn watch_batch(accounts: &mut FxHashMap<AccountId, Watched>, batch: &[Fact]) -> f64 {
    let mut pages: FxHashMap<AccountId, (Pages, Users)> = FxHashMap::default();
    for fact in batch {
        let core = accounts.get(&fact.event.account).and_then(|account| account.core.as_ref());
        let (pages, users) =
            pages.entry(fact.event.account.clone()).or_insert_with(|| (Pages::default(), Users::of(core)));
        pages.seen.insert(fact.key, None);
        if let Data::UsageRecorded(usage) = &fact.event.data
            && let Some(user) = &usage.user_id
        {
            users.load(user.clone(), None);
        }
    }
    let mut firings = Vec::new();
    let started = Instant::now();
    for fact in batch {
        let id = &fact.event.account;
        let (Some(account), Some((pages, users))) = (accounts.get_mut(id), pages.get_mut(id)) else {
            continue;
        };
        let mut watcher = Watcher { watch: &mut account.watch, firings: &mut firings };
        let Ok(applied) = fold::apply_watched(&mut account.core, pages, fact, &mut watcher) else { continue };
        let Some(core) = &account.core else { continue };
        let evaluated = account.watch.users(core, users, fact, &applied, &mut firings);
        black_box(evaluated.is_ok());
    }
    black_box(&firings);
    started.elapsed().as_secs_f64()
}
