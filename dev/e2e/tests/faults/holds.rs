//! Holds: many clients, several processes, real kills; every grant is covered, no covered request is refused, and every
//! usage is charged once.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use ledger_core::fold;
use nix::sys::signal::Signal;
use platform::http_client;
use platform::kafka::Position;
use platform::pg;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::fleet::{Fleet, OPERATOR_KEY, PARTITIONS};
use crate::history::{self, Attempt, Milli};

const DOORS: [&str; 3] = ["command-api", "command-api.2", "command-api.3"];
const OTHERS: [&str; 2] = ["projector", "alert-worker"];
/// A service aborts as soon as the load passes its failpoint.
const ABORT_MAX: Duration = Duration::from_secs(120);
/// Longest outage in these tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// Attempts of the race.
const ATTEMPTS: usize = 100_000;
const CLIENTS: usize = 96;

/// An account of the race.
struct Prize {
    balance: Milli,
    limit: Option<Milli>,
    users: usize,
    /// Amounts of one credit and no release: then exactly the balance must be granted.
    exact: bool,
}

const PRIZES: [Prize; 4] = [
    Prize { balance: 5_000_000, limit: None, users: 1, exact: true },
    Prize { balance: 900_000_000, limit: Some(200_000), users: 20, exact: true },
    Prize { balance: 3_000_000, limit: None, users: 5, exact: false },
    Prize { balance: 9_000_000, limit: Some(600_000), users: 10, exact: false },
];

fn credits(milli: Milli) -> String {
    let text = format!("{}.{:03}", milli / 1_000, milli % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn milli(amount: &Value) -> Option<Milli> {
    let (whole, places) = amount.as_str()?.split_once('.').unwrap_or((amount.as_str()?, ""));
    let sign = if whole.starts_with('-') { -1 } else { 1 };
    let places: Milli = format!("{places:0<3}").parse().ok()?;
    Some(whole.parse::<Milli>().ok()? * 1_000 + sign * places)
}

/// A client of several API processes.
#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    urls: Arc<Vec<String>>,
}

impl Client {
    fn of(fleet: &Fleet, doors: &[&str]) -> Result<Client> {
        let urls = doors.iter().map(|door| fleet.url(door)).collect::<Result<Vec<_>>>()?;
        let http = http_client::builder().timeout(Duration::from_secs(25)).build()?;
        Ok(Client { http, urls: Arc::new(urls) })
    }

    /// Sends once; `None` where no answer comes.
    async fn send(
        &self,
        door: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<(u16, Value)> {
        let url = format!("{}/v1/accounts/{path}", self.urls[door % self.urls.len()]);
        let mut request = self.http.request(method, url).bearer_auth(OPERATOR_KEY);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.ok()?))
    }

    /// Sends to changing processes until the answer is another than 503.
    async fn insist(
        &self,
        door: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value)> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = None;
        for door in door.. {
            if Instant::now() > deadline {
                break;
            }
            said = self.send(door, method.clone(), path, body).await;
            match &said {
                Some((503, _)) | None => sleep(Duration::from_millis(20)).await,
                Some(answer) => return Ok(answer.clone()),
            }
        }
        anyhow::bail!("{path} was not answered in {PATIENCE:?}: {said:?}")
    }

    async fn open(&self, account: &str, prize: &Prize) -> Result<()> {
        let plan = json!({"cycle": "yearly", "allowance": credits(prize.balance)});
        let url = format!("{}/v1/accounts", self.urls[0]);
        let body = json!({"account_id": account, "plan": plan});
        let opened = self.http.post(url).bearer_auth(OPERATOR_KEY).json(&body).send().await?;
        ensure!(opened.status().is_success(), "{}", opened.text().await?);
        if let Some(limit) = prize.limit {
            let limits = json!({"default_limit": credits(limit)});
            let (status, said) =
                self.insist(0, Method::PUT, &format!("{account}/limits"), Some(&limits)).await?;
            ensure!(status == 200, "{said}");
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_attempts_get_exactly_what_there_is() -> Result<()> {
    let fleet = Fleet::start_alone(&[&DOORS[..], &OTHERS[..]].concat()).await?;
    let client = Client::of(&fleet, &DOORS)?;
    for (number, prize) in PRIZES.iter().enumerate() {
        client.open(&format!("prize-{number}"), prize).await?;
    }
    let (next, clock) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let flipped = Arc::new(AtomicBool::new(false));
    let mut racers = JoinSet::new();
    for _ in 0..CLIENTS {
        racers.spawn(race(client.clone(), Arc::clone(&next), Arc::clone(&flipped), clock));
    }
    // The read model is replaced during the race, and the race goes on until it is.
    while next.load(Ordering::Relaxed) < ATTEMPTS / 3 {
        sleep(Duration::from_millis(50)).await;
    }
    let rebuilt = rebuild(&fleet).await;
    flipped.store(true, Ordering::Relaxed);
    let rebuilt = rebuilt?;
    ensure!(rebuilt["flipped"] == true, "{rebuilt}");
    let mut attempts: Vec<Vec<Attempt>> = PRIZES.iter().map(|_| Vec::new()).collect();
    while let Some(of_one) = racers.join_next().await {
        of_one??.into_iter().for_each(|attempt| attempts[attempt.account].push(attempt));
    }
    for (prize, attempts) in PRIZES.iter().zip(&attempts) {
        history::check(attempts, prize.balance, prize.limit)?;
        let refused = attempts.iter().filter(|attempt| !attempt.granted).count();
        ensure!(refused > 100, "hardly anybody was refused");
        if prize.exact {
            let granted: Milli = attempts.iter().filter(|one| one.granted).map(|one| one.amount).sum();
            let all = prize
                .limit
                .map_or(prize.balance, |limit| limit * Milli::try_from(prize.users).expect("few users"));
            ensure!(granted == all, "{granted} of {all} were granted");
        }
    }
    sums_are_right(&fleet).await?;
    let refused = attempts.iter().flatten().filter(|attempt| !attempt.granted).count();
    decisions_are_kept(&fleet, refused).await?;
    fleet.replays_equal().await
}

const DECISIONS: &str = r#"
    select account_id, decided_at, settled::text, "partition", "offset"
    from (select *, row_number() over (partition by account_id order by md5(reservation_id)) as nth
          from control.decision) as kept
    where nth <= 3"#;

/// Fails unless each refusal was kept once, and a sample of them agrees with the journal at their position.
async fn decisions_are_kept(fleet: &Fleet, refused: usize) -> Result<()> {
    let kept: i64 = sqlx::query_scalar(
        "select count(distinct (account_id, reservation_id, kind)) from control.decision
          where code is not null and kind <> 'check'",
    )
    .fetch_one(&fleet.pool)
    .await?;
    ensure!(usize::try_from(kept) == Ok(refused), "{kept} refusals were kept of {refused}");
    type Row = (String, DateTime<Utc>, String, i32, i64);
    let rows: Vec<Row> = sqlx::query_as(DECISIONS).fetch_all(&fleet.pool).await?;
    ensure!(rows.len() >= PRIZES.len(), "few decisions were kept");
    for (account, decided_at, settled, partition, offset) in rows {
        let folded = fleet.folded_to(&account, Position { partition, offset }).await?;
        let mut core = folded.context("the account is open")?;
        fold::roll_to(&mut core, pg::time_of(decided_at));
        let settled = pg::credits_of(&settled)?;
        ensure!(
            core.settled() == settled,
            "{account}: {settled} was kept, the journal says {}",
            core.settled()
        );
    }
    Ok(())
}

/// Takes attempts until none is left and the read model has been replaced.
async fn race(
    client: Client,
    next: Arc<AtomicUsize>,
    flipped: Arc<AtomicBool>,
    clock: Instant,
) -> Result<Vec<Attempt>> {
    let mut attempts = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= ATTEMPTS && flipped.load(Ordering::Relaxed) {
            return Ok(attempts);
        }
        attempts.extend(attempt(&client, number, clock).await?);
    }
}

/// Makes one attempt and, where it calls for further ones, those too.
async fn attempt(client: &Client, number: usize, clock: Instant) -> Result<Vec<Attempt>> {
    let mut random = StdRng::seed_from_u64(number as u64);
    let account = number % PRIZES.len();
    let prize = &PRIZES[account];
    let user = random.random_range(0..prize.users);
    let amount = if prize.exact { 1_000 } else { random.random_range(1..5_000) };
    let (holds, id) = (format!("prize-{account}/reservations"), format!("r{number}"));
    let now = || u64::try_from(clock.elapsed().as_nanos()).expect("centuries fit");
    let body = json!({"reservation_id": id, "user_id": format!("user-{user}"), "amount": credits(amount)});
    let called = now();
    let (status, said) = client.insist(number, Method::POST, &holds, Some(&body)).await?;
    let seen = Seen { account, user, amount, called, answered: now() };
    let mut attempts = vec![seen.attempt(status, &said)?];
    if prize.exact || !attempts[0].granted {
        return Ok(attempts);
    }
    let of_hold = format!("{holds}/{id}");
    let more = random.random_range(1..1_000);
    if random.random_bool(0.3) {
        let body = json!({"amount": credits(amount + more)});
        let called = now();
        let (status, said) = client.insist(number + 1, Method::PATCH, &of_hold, Some(&body)).await?;
        let seen = Seen { account, user, amount: more, called, answered: now() };
        attempts.push(seen.attempt(if status == 200 { 201 } else { status }, &said)?);
    }
    let called = now();
    if random.random_bool(0.6) {
        let (status, said) =
            client.insist(number + 2, Method::POST, &format!("{of_hold}/release"), None).await?;
        ensure!(status == 200 && said["state"] == "released", "{said}");
        let released = Some((called, now()));
        attempts.iter_mut().filter(|attempt| attempt.granted).for_each(|attempt| attempt.released = released);
    } else {
        let held: Milli =
            attempts.iter().filter(|attempt| attempt.granted).map(|attempt| attempt.amount).sum();
        let usage = json!({"id": format!("u{number}"), "occurred_at": platform::clock::now().to_string(),
                           "user_id": format!("user-{user}"), "credits": credits(held)});
        let path = format!("{of_hold}/settle?wait=false");
        let (status, said) = client.insist(number + 2, Method::POST, &path, Some(&usage)).await?;
        ensure!(status == 202 && said["over_hold"] == "0", "{status} {said}");
    }
    Ok(attempts)
}

struct Seen {
    account: usize,
    user: usize,
    amount: Milli,
    called: u64,
    answered: u64,
}

impl Seen {
    fn attempt(self, status: u16, said: &Value) -> Result<Attempt> {
        let Seen { account, user, amount, called, answered } = self;
        let granted = status == 201;
        let by_limit = status == 402 && said["code"] == "user_limit_reached";
        ensure!(
            granted || by_limit || (status == 402 && said["code"] == "credits_exhausted"),
            "{status} {said}"
        );
        let taken =
            by_limit.then(|| milli(&said["used"]).zip(milli(&said["held"])).map(|(used, held)| used + held));
        let available = if by_limit { None } else { Some(milli(&said["available"]).context("available")?) };
        let (taken, released) = (taken.flatten(), None);
        Ok(Attempt { account, user, amount, called, answered, granted, available, taken, released })
    }
}

/// Rebuilds the read model by the program itself, and flips to it.
async fn rebuild(fleet: &Fleet) -> Result<Value> {
    let child = Command::new(e2e::program())
        .args(["rebuild", "--json"])
        .env("DATABASE_URL", &fleet.database_url)
        .env("KAFKA_BROKERS", &fleet.kafka.brokers)
        .env("LEDGER_TOPIC_PREFIX", &fleet.kafka.topic_prefix)
        .env("LEDGER_PARTITIONS", PARTITIONS.to_string())
        .env("RUST_LOG", "error")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    ensure!(output.status.success(), "the rebuild ended with {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

const SUMS: &str = "
    with open as (
        select account_id, user_id, coalesce(feature, '') as feature, counts
        from control.hold
        where state in ('held', 'settling')
    )
    select (select count(*) from control.gate
            where held <> coalesce((select sum(counts) from open where open.account_id = gate.account_id), 0)),
           (select count(*) from control.user_hold
            where held <> coalesce((select sum(counts) from open
                                    where open.account_id = user_hold.account_id
                                      and open.user_id    = user_hold.user_id
                                      and open.feature    = user_hold.feature), 0)),
           (select count(*) from control.hold where state = 'settling'),
           (select count(*) from control.outbox)";

/// Fails unless the sums at the gates equal those of the open holds, once every settling hold has settled.
async fn sums_are_right(fleet: &Fleet) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (gates, users, settling, outbox): (i64, i64, i64, i64) =
            sqlx::query_as(SUMS).fetch_one(&fleet.pool).await?;
        ensure!(gates == 0 && users == 0, "{gates} gates and {users} users have other sums than their holds");
        if settling == 0 && outbox == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{settling} holds still settle, {outbox} records wait");
        sleep(Duration::from_millis(200)).await;
    }
}

/// Workers that hold, settle or release until they are stopped, each repeating an id until it is answered.
struct Work {
    stop: Arc<AtomicBool>,
    workers: JoinSet<Result<Done>>,
}

#[derive(Debug, Default)]
struct Done {
    settled: usize,
    charged: Milli,
}

const WORKERS: usize = 8;
const WORK_ACCOUNTS: usize = 3;

impl Work {
    fn start(client: &Client) -> Work {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            workers.spawn(work(client.clone(), worker, Arc::clone(&stop)));
        }
        Work { stop, workers }
    }

    async fn finish(mut self) -> Result<Done> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Done::default();
        while let Some(done) = self.workers.join_next().await {
            let done = done??;
            all.settled += done.settled;
            all.charged += done.charged;
        }
        Ok(all)
    }
}

async fn work(client: Client, worker: usize, stop: Arc<AtomicBool>) -> Result<Done> {
    let mut done = Done::default();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let holds = format!("work-{}/reservations", number % WORK_ACCOUNTS);
        let id = format!("w{worker}-{number}");
        let body = json!({"reservation_id": id, "user_id": format!("user-{worker}"), "amount": "2"});
        let (status, said) = client.insist(worker, Method::POST, &holds, Some(&body)).await?;
        ensure!(status == 201, "{said}");
        let of_hold = format!("{holds}/{id}");
        if number % 4 == 3 {
            let (status, said) =
                client.insist(worker, Method::POST, &format!("{of_hold}/release"), None).await?;
            ensure!(status == 200, "{said}");
            continue;
        }
        let charged = [1_500, 2_000, 2_500][number % 3];
        let usage = json!({"id": format!("{id}-u"), "occurred_at": platform::clock::now().to_string(),
                           "user_id": format!("user-{worker}"), "credits": credits(charged)});
        let path = format!("{of_hold}/settle?wait=false");
        let (status, said) = client.insist(worker, Method::POST, &path, Some(&usage)).await?;
        ensure!(status == 202 || status == 200, "{status} {said}");
        done.settled += 1;
        done.charged += charged;
    }
    Ok(done)
}

async fn open_for_work(client: &Client) -> Result<()> {
    for number in 0..WORK_ACCOUNTS {
        let prize = Prize { balance: 900_000_000, limit: None, users: WORKERS, exact: false };
        client.open(&format!("work-{number}"), &prize).await?;
    }
    Ok(())
}

/// Fails unless every settled hold was charged once, and no hold is left.
async fn charged_once(fleet: &Fleet, done: &Done) -> Result<()> {
    sums_are_right(fleet).await?;
    let schema = fleet.live().await?;
    let used = format!(
        "select coalesce(sum(events), 0)::bigint, coalesce(sum(used), 0)::text from {schema}.user_usage"
    );
    let (events, used): (i64, String) =
        sqlx::query_as(sqlx::AssertSqlSafe(used)).fetch_one(&fleet.pool).await?;
    let used = milli(&json!(used.trim_end_matches('0').trim_end_matches('.'))).context("an amount")?;
    ensure!(
        usize::try_from(events) == Ok(done.settled),
        "{events} usages count, {} were settled",
        done.settled
    );
    ensure!(used == done.charged, "{used} were charged, {} were settled", done.charged);
    let held: String =
        sqlx::query_scalar("select sum(held)::text from control.gate").fetch_one(&fleet.pool).await?;
    ensure!(held.parse::<f64>()? == 0.0, "{held} are still held");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_of_a_hold_charges_once_and_frees_nothing_by_guess() -> Result<()> {
    let mut fleet = Fleet::start(&[&DOORS[..2], &OTHERS[..]].concat()).await?;
    let client = Client::of(&fleet, &DOORS[..2])?;
    open_for_work(&client).await?;
    let work = Work::start(&client);
    for (service, failpoint) in [
        ("command-api", "holds.before_commit:9"),
        ("command-api.2", "holds.after_commit:9"),
        // The settlement is committed, but the record is not appended, or not known to be.
        ("command-api", "api.before_append:9"),
        ("command-api.2", "api.after_append:9"),
        ("projector", "projector.before_commit:5"),
        ("projector", "projector.after_commit:5"),
    ] {
        fleet.kill(service)?;
        fleet.launch(service, Some(failpoint))?;
        fleet.aborted(service, ABORT_MAX).await?;
        fleet.launch(service, None)?;
        fleet.ready(service).await?;
    }
    // A process that is frozen while it holds gates delays the others for seconds, not forever.
    fleet.signal("command-api", Signal::SIGSTOP)?;
    sleep(Duration::from_secs(7)).await;
    fleet.signal("command-api", Signal::SIGCONT)?;
    let done = work.finish().await?;
    ensure!(done.settled > 100, "{done:?}");
    charged_once(&fleet, &done).await?;
    fleet.replays_equal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_that_nobody_repeats_is_relayed_by_another_process() -> Result<()> {
    let mut fleet = Fleet::start(&[&DOORS[..1], &OTHERS[..]].concat()).await?;
    open_for_work(&Client::of(&fleet, &DOORS[..1])?).await?;
    fleet.kill("command-api")?;
    fleet.launch("command-api", Some("api.before_append:1"))?;
    fleet.ready("command-api").await?;
    let client = Client::of(&fleet, &DOORS[..1])?;
    let hold = json!({"reservation_id": "r1", "user_id": "ana", "amount": "5"});
    let (status, said) = client.insist(0, Method::POST, "work-0/reservations", Some(&hold)).await?;
    ensure!(status == 201, "{said}");
    let usage = json!({"id": "u1", "occurred_at": platform::clock::now().to_string(), "user_id": "ana", "credits": "7"});
    let settle = client.send(0, Method::POST, "work-0/reservations/r1/settle", Some(&usage)).await;
    ensure!(settle.is_none(), "the service was to abort: {settle:?}");
    fleet.aborted("command-api", ABORT_MAX).await?;
    let (state, held): (String, String) = sqlx::query_as(
        "select state, counts::text from control.hold where account_id = 'work-0' and reservation_id = 'r1'",
    )
    .fetch_one(&fleet.pool)
    .await?;
    ensure!(state == "settling" && held == "7.000000000", "{state} {held}");
    fleet.launch("command-api.2", None)?;
    fleet.ready("command-api.2").await?;
    charged_once(&fleet, &Done { settled: 1, charged: 7_000 }).await?;
    fleet.replays_equal().await
}

/// Holds of the duel: for each, three requests at the same time.
const DUELS: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn settling_against_release_extension_and_expiry_has_one_winner_and_the_right_money() -> Result<()> {
    let fleet = Fleet::start(&[&DOORS[..2], &OTHERS[..]].concat()).await?;
    let client = Client::of(&fleet, &DOORS[..2])?;
    open_for_work(&client).await?;
    let mut duels = JoinSet::new();
    for number in 0..DUELS {
        duels.spawn(duel(client.clone(), number));
    }
    let mut winners = [0, 0];
    while let Some(released) = duels.join_next().await {
        winners[usize::from(released??)] += 1;
    }
    // Either request may win often, but not always.
    ensure!(winners.iter().all(|count| *count > 0), "{winners:?}");
    charged_once(&fleet, &Done { settled: DUELS, charged: 3_000 * Milli::try_from(DUELS)? }).await?;
    fleet.replays_equal().await
}

/// Returns whether the release came before the usage.
async fn duel(client: Client, number: usize) -> Result<bool> {
    let (holds, id) = ("work-0/reservations", format!("d{number}"));
    let body = json!({"reservation_id": id, "user_id": "ana", "amount": "2", "ttl_seconds": 1});
    let (status, said) = client.insist(number, Method::POST, holds, Some(&body)).await?;
    ensure!(status == 201, "{said}");
    if number.is_multiple_of(3) {
        // These holds reach their expiry.
        sleep(Duration::from_millis(990)).await;
    }
    let of_hold = format!("{holds}/{id}");
    let usage = json!({"id": format!("{id}-u"), "occurred_at": platform::clock::now().to_string(),
                       "user_id": "ana", "credits": "3"});
    let (settle, release) = (format!("{of_hold}/settle?wait=false"), format!("{of_hold}/release"));
    let more = json!({"amount": "4"});
    let (settled, released, extended) = tokio::join!(
        client.insist(number, Method::POST, &settle, Some(&usage)),
        client.insist(number + 1, Method::POST, &release, None),
        client.insist(number, Method::PATCH, &of_hold, Some(&more)),
    );
    let ((status, settled), (release, released), (extend, extended)) = (settled?, released?, extended?);
    ensure!(status == 202, "usage is charged whatever else happened: {settled}");
    let held = milli(&settled["held"]).context("held")?;
    let grew = if extend == 200 { 4_000 } else { 2_000 };
    ensure!(held == grew, "held {held}, but the extension answered {extend} {extended}");
    ensure!(extend == 200 || extended["code"] == "hold_ended", "{extended}");
    match release {
        200 => {
            let state = &released["state"];
            ensure!(state == "released" || state == "expired", "{released}");
            Ok(true)
        }
        409 => {
            ensure!(released["code"] == "hold_ended", "{released}");
            Ok(false)
        }
        _ => anyhow::bail!("{release} {released}"),
    }
}
