//! Fold: decoded usage in memory on one core; the events' hashes are computed beforehand.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use ledger_core::event::key::DedupeKey;
use ledger_core::event::{Data, Event, Usage, wire};
use ledger_core::fold::memory::Memory;
use ledger_core::fold::pages::Pages;
use ledger_core::fold::{self, Fact};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, EventId, Label, Source, UserId};
use ledger_core::value::time::Time;
use rustc_hash::FxHashMap;

use crate::measured::Measured;

/// Accounts that the events are spread over.
const ACCOUNTS: usize = 1_000;
/// Events of one batch, as a projector has them.
pub(crate) const BATCH_EVENTS: usize = 10_000;
/// Batches measured, each on fresh pages.
const BATCHES: usize = 100;

/// Measures the fold against the least that any exact ledger does: remember the id, lower a balance. Both alternate.
pub fn run() -> Measured {
    let facts = usage();
    let (mut ours, mut least) = (0.0, 0.0);
    let mut cores = open_accounts();
    let mut balances: FxHashMap<AccountId, i128> =
        cores.keys().map(|id| (id.clone(), i128::MAX / 2)).collect();
    for batch in facts.chunks(BATCH_EVENTS) {
        ours += fold_batch(&mut cores, batch);
        least += least_batch(&mut balances, batch);
    }
    let events = facts.len() as f64;
    Measured {
        more: serde_json::json!({"events": facts.len(), "accounts": ACCOUNTS}),
        ..Measured::new(
            "fold",
            "events/s",
            events / ours,
            ("a hash set of ids and one subtraction per event", events / least),
            "2,000,000 events/s on one core",
        )
    }
}

pub(crate) fn fold_batch(
    cores: &mut FxHashMap<AccountId, Option<ledger_core::account::Core>>,
    batch: &[Fact],
) -> f64 {
    let mut pages: FxHashMap<AccountId, Pages> = FxHashMap::default();
    for fact in batch {
        pages.entry(fact.event.account.clone()).or_default().seen.insert(fact.key, None);
    }
    let start = Instant::now();
    for fact in batch {
        let account = &fact.event.account;
        let (Some(core), Some(pages)) = (cores.get_mut(account), pages.get_mut(account)) else { continue };
        let applied = fold::apply(core, pages, fact);
        black_box(applied.is_ok());
    }
    start.elapsed().as_secs_f64()
}

fn least_batch(balances: &mut FxHashMap<AccountId, i128>, batch: &[Fact]) -> f64 {
    let mut seen = rustc_hash::FxHashSet::default();
    let start = Instant::now();
    for fact in batch {
        let Some(balance) = balances.get_mut(&fact.event.account) else { continue };
        if let Data::UsageRecorded(usage) = &fact.event.data
            && seen.insert(fact.key)
        {
            *balance -= usage.credits.unwrap_or_default().units();
        }
    }
    black_box(&balances);
    start.elapsed().as_secs_f64()
}

fn account(number: usize) -> AccountId {
    AccountId::new(&format!("account-{number}")).expect("a well-formed id")
}

pub(crate) fn open_accounts() -> FxHashMap<AccountId, Option<ledger_core::account::Core>> {
    let mut memory = Memory::default();
    for number in 0..ACCOUNTS {
        let opening = br#"{"clock":"test","plan":{"cycle":"monthly","allowance":"1000000000"}}"#;
        let opening = std::str::from_utf8(opening).expect("UTF-8");
        let data =
            wire::data("ledger.account.opened.v1", opening).expect("a known type").expect("a good body");
        memory.fold(&[Fact::new(event(account(number), "open", data), start(), 1)]);
    }
    memory.accounts.into_iter().map(|(id, account)| (id, account.core)).collect()
}

pub(crate) fn usage() -> Vec<Fact> {
    (0..BATCHES * BATCH_EVENTS)
        .map(|number| {
            let usage = Usage {
                user_id: Some(UserId::new(&format!("user-{}", number % 97)).expect("a well-formed id")),
                credits: Some(Credits::from_units(380_000_000)),
                ..Usage::default()
            };
            let event = event(account(number % ACCOUNTS), "u", Data::UsageRecorded(usage));
            // The benchmark supplies the hashes: any distinct key will do.
            let mut key = [0; 16];
            key[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            let content = ledger_core::event::key::ContentHash([0; 32]);
            let offset = i64::try_from(number).unwrap_or(i64::MAX);
            Fact { event: Arc::new(event), key: DedupeKey(key), content, appended_at: start(), offset }
        })
        .collect()
}

pub(crate) fn start() -> Time {
    Time::from_micros(1_767_225_600_000_000)
}

pub(crate) fn event(account: AccountId, id: &str, data: Data) -> Event {
    Event {
        id: EventId::new(id).expect("a well-formed id"),
        source: Source::new("/bench").expect("a well-formed source"),
        account,
        occurred_at: start(),
        recorded_at: start(),
        actor: Label::new("bench").expect("a well-formed label"),
        data,
    }
}
