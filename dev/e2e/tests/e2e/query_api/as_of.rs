//! As of: the balance at any instant equals that of a fold in memory, stopped there.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use ledger_core::account::Core;
use ledger_core::event::{Clock, Data, wire};
use ledger_core::fold::memory::Memory;
use ledger_core::fold::{self, Fact};
use ledger_core::policy::balance::Balance;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::AccountId;
use ledger_core::value::time::Time;
use platform::kafka::{self, Journal, Record};
use platform::pg::{self, Model, Schema};
use serde_json::Value;

use crate::history;
use e2e::{Caller, Whole};

/// Reads in flight at a time.
const READS_MAX: usize = 8;
/// How long the scheduler may take for months of daily boundaries.
const REST_MAX: Duration = Duration::from_secs(120);

/// An account's states in the order of their ledger times, one after each record.
struct Past {
    account: AccountId,
    states: Vec<Core>,
}

impl Past {
    /// Returns what the balance was at an instant; later than the last record it is the present.
    fn balance_at(&self, instant: Time) -> Option<Value> {
        let after = self.states.partition_point(|core| core.ledger_time <= instant);
        let mut core = self.states[..after].last()?.clone();
        if after < self.states.len() {
            fold::roll_to(&mut core, instant);
        }
        serde_json::to_value(Balance::of(&core, Credits::ZERO)).ok()
    }

    /// Returns the instants of all events, those around them, and some between.
    fn instants(&self) -> Vec<Time> {
        let mut instants = Vec::new();
        for core in &self.states {
            let happened = [core.ledger_time, core.period.starts_at, core.period.ends_at];
            let between = core.ledger_time.plus_seconds(3_333);
            instants.extend(happened.iter().flat_map(|at| [at.plus_micros(-1), *at, at.plus_micros(1)]));
            instants.push(between);
        }
        instants.sort_unstable();
        instants.dedup();
        instants.retain(|instant| *instant >= self.states[0].opened_at);
        instants
    }
}

/// Returns every record of the journal, as stored, without the genesis.
pub(crate) async fn records(whole: &Whole) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for end in whole.ends().await? {
        let stream = kafka::read_partition(&whole.kafka, end.partition, 1, end.offset);
        records.extend(stream.try_collect::<Vec<_>>().await?);
    }
    Ok(records)
}

/// Writes a random history directly into the journal, without the API.
pub(crate) async fn write_history(whole: &Whole, seed: u64, accounts: usize, events: usize) -> Result<()> {
    let journal = Journal::new(&whole.kafka, kafka::existing(&whole.kafka).await?)?;
    let written = history::history(seed, accounts, events);
    let bytes: Vec<(AccountId, Vec<u8>)> =
        written.iter().map(|(account, event)| (account.clone(), wire::encode(event))).collect();
    for stored in journal.append_all(&bytes).await {
        stored?;
    }
    Ok(())
}

/// Writes such a history of accounts on test clocks: no scheduler moves them.
pub(crate) async fn write_test_history(
    whole: &Whole,
    seed: u64,
    accounts: usize,
    events: usize,
) -> Result<()> {
    let journal = Journal::new(&whole.kafka, kafka::existing(&whole.kafka).await?)?;
    for stored in journal.append_all(&test_history(seed, accounts, events)).await {
        stored?;
    }
    Ok(())
}

fn test_history(seed: u64, accounts: usize, events: usize) -> Vec<(AccountId, Vec<u8>)> {
    let written = history::history(seed, accounts, events).into_iter().map(|(account, mut event)| {
        if let Data::AccountOpened(opening) = &mut event.data {
            opening.clock = Some(Clock::Test);
        }
        (account, wire::encode(&event))
    });
    written.collect()
}

/// Waits until the scheduler has brought every live account to the present, and all of that is projected.
pub(crate) async fn at_rest(whole: &Whole) -> Result<()> {
    let live = Schema { model: Model::ReadModel, generation: 1 };
    let overdue = "select exists (select from account where clock = 'live' and next_due_at <= now())";
    let waiting = async {
        loop {
            whole.all_projected().await?;
            let mut tx = pg::begin_read(&whole.pool, live).await?;
            if !sqlx::query_scalar::<_, bool>(overdue).fetch_one(&mut *tx).await? {
                return anyhow::Ok(());
            }
            drop(tx);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(REST_MAX, waiting).await.context("the scheduler does not catch up")?
}

/// Folds the journal in memory and keeps each state.
async fn pasts(whole: &Whole) -> Result<Vec<Past>> {
    let mut memory = Memory::default();
    let mut pasts: Vec<Past> = Vec::new();
    for record in records(whole).await? {
        let event = wire::decode(record.value_bytes()).map_err(anyhow::Error::from)?;
        let account = event.account.clone();
        memory.fold(&[Fact::new(event, record.appended_at, record.position.offset)]);
        let Some(core) = memory.accounts.get(&account).and_then(|it| it.core.clone()) else { continue };
        match pasts.iter_mut().find(|past| past.account == account) {
            Some(past) => past.states.push(core),
            None => pasts.push(Past { account, states: vec![core] }),
        }
    }
    Ok(pasts)
}

async fn ensure_past(whole: &Whole, past: &Past) -> Result<()> {
    let operator = whole.operator();
    let checks = past.instants().into_iter().map(|instant| {
        let operator = operator.clone();
        async move {
            let path = format!("/v1/accounts/{}/balance?as_of={instant}", past.account);
            let answer = operator.get(&path).await?;
            answer.expect(200)?;
            let expected = past.balance_at(instant).context("a balance")?;
            for (name, figure) in expected.as_object().context("figures")? {
                ensure!(answer.body[name] == *figure, "{path}: {name} is not {figure}: {}", answer.text);
            }
            anyhow::Ok(())
        }
    });
    stream::iter(checks).buffer_unordered(READS_MAX).try_collect::<Vec<()>>().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_balance_at_any_instant_is_what_a_fold_stopped_there_says() -> Result<()> {
    let whole = Whole::start().await?;
    write_history(&whole, 11, 4, 110).await?;
    at_rest(&whole).await?;
    let pasts = pasts(&whole).await?;
    ensure!(pasts.len() == 4, "every account was opened");
    for past in &pasts {
        ensure_past(&whole, past).await?;
        let opened = past.states[0].opened_at;
        let path = format!("/v1/accounts/{}/balance?as_of={}", past.account, opened.plus_micros(-1));
        whole.operator().get(&path).await?.expect_problem(404, "account_not_found")?;
    }
    whole.replay_and_stop().await
}

/// Reads that take `as_of`.
const READS: [&str; 11] = [
    "/balance?",
    "/usage?",
    "/usage?period=all&group_by=user,category&",
    "/usage?group_by=model,tier,org&limit=2&",
    "/usage?period=all&group_by=day,feature&sort=-credits&",
    "/usage?from=2026-02-02&to=2026-02-20&user=ana&quantities=false&",
    "/users?limit=2&",
    "/users?sort=-used&over_budget=true&",
    "/grants?limit=20&",
    "/limits?",
    "/limits/users?",
];

/// What a read answered, and at which of the account's states.
struct Answered {
    account: AccountId,
    read: &'static str,
    recorded_at: Time,
    offset: i64,
    body: Value,
}

impl Answered {
    async fn ask(
        caller: &Caller,
        account: &AccountId,
        read: &'static str,
        more: &str,
    ) -> Result<Option<Self>> {
        let answer = caller.get(&format!("/v1/accounts/{account}{read}{more}")).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let mut body = answer.expect(200)?.body.clone();
        let fields = body.as_object_mut().context("an object")?;
        let recorded_at = fields.remove("recorded_at").context("a time")?;
        let offset = fields.remove("position").context("a position")?["offset"].as_i64();
        Ok(Some(Self {
            account: account.clone(),
            read,
            recorded_at: recorded_at.as_str().context("a time")?.parse()?,
            offset: offset.context("an offset")?,
            body,
        }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_answers_as_of_an_instant_what_it_answered_then() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    let journal = Journal::new(&whole.kafka, kafka::existing(&whole.kafka).await?)?;
    let mut recorded: Vec<Answered> = Vec::new();
    for written in test_history(37, 2, 45) {
        let account = written.0.clone();
        let stored = journal.append_all(&[written]).await.remove(0)?;
        let more = format!("at_least={stored}");
        let asked = READS.map(|read| Answered::ask(&operator, &account, read, &more));
        let answers = futures::future::try_join_all(asked).await?;
        recorded.extend(answers.into_iter().flatten());
    }
    whole.all_projected().await?;
    // Of several records at one instant, the last one says how it was then.
    let mut moments: BTreeMap<AccountId, BTreeMap<Time, i64>> = BTreeMap::new();
    let mut memory = Memory::default();
    for record in records(&whole).await? {
        let event = wire::decode(record.value_bytes()).map_err(anyhow::Error::from)?;
        let account = event.account.clone();
        let fact = Fact::new(event, record.appended_at, record.position.offset);
        if let Some(at) = memory.fold(&[fact]).remove(0).ledger_time {
            moments.entry(account).or_default().insert(at, record.position.offset);
        }
    }
    recorded.retain(|answered| {
        let last = moments.get(&answered.account).and_then(|of| of.get(&answered.recorded_at));
        last.is_some_and(|last| *last <= answered.offset)
    });
    ensure!(recorded.len() > 30 * READS.len(), "only {} answers are of whole instants", recorded.len());
    let checks = recorded.iter().map(|answered| {
        let operator = operator.clone();
        async move {
            let Answered { account, read, recorded_at, body, .. } = answered;
            let again = Answered::ask(&operator, account, read, &format!("as_of={recorded_at}")).await?;
            let again = again.context("an account")?.body;
            ensure!(again == *body, "{account}{read} as of {recorded_at}: {again}, then {body}");
            anyhow::Ok(())
        }
    });
    stream::iter(checks).buffer_unordered(READS_MAX).try_collect::<Vec<()>>().await?;
    let account = &recorded[0].account;
    for read in READS {
        let early = format!("/v1/accounts/{account}{read}as_of=2020-01-01T00:00:00Z");
        operator.get(&early).await?.expect_problem(404, "account_not_found")?;
        let late = Answered::ask(&operator, account, read, "as_of=2096-01-01T00:00:00Z").await?;
        let now = Answered::ask(&operator, account, read, "at_least=0:0").await?.context("an account")?;
        let late = late.context("an account")?;
        ensure!(late.body == now.body, "{read}");
    }
    whole.replay_and_stop().await
}
