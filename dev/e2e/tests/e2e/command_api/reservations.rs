//! Reservations: holds granted exactly up to the limit, extended, released, expired, and settled by their usage.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::{OPENED, expect_balance, open, open_live};
use e2e::{Answer, Caller, Whole};

fn path(account: &str, rest: &str) -> String {
    format!("/v1/accounts/{account}/reservations{rest}")
}

async fn reserve(caller: &Caller, account: &str, body: Value) -> Result<Answer> {
    caller.post(&path(account, ""), body).await
}

fn hold(id: &str, amount: &str) -> Value {
    json!({"reservation_id": id, "user_id": "ana", "feature": "chat", "amount": amount})
}

fn usage(id: &str, credits: &str) -> Value {
    json!({"id": id, "occurred_at": OPENED, "user_id": "ana", "feature": "chat", "credits": credits})
}

/// Fails unless the answer is a hold of this state, amount and what is then available.
fn expect_hold(answer: &Answer, status: u16, state: &str, amount: &str, available: &str) -> Result<()> {
    answer.expect(status)?;
    let said = ["state", "amount", "available"].map(|field| answer.body[field].as_str().unwrap_or_default());
    ensure!(said == [state, amount, available], "{}", answer.text);
    answer.position().map(drop)
}

async fn release(caller: &Caller, account: &str, id: &str) -> Result<Answer> {
    caller.post_nothing(&path(account, &format!("/{id}/release"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_are_granted_up_to_the_balance_and_extended_and_given_back() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    let producer = whole.keyed("producer", &["acme"], None).await?;

    expect_hold(&reserve(&producer, "acme", hold("r1", "6")).await?, 201, "held", "6", "4")?;
    // A repeat gets the hold in its current state; another request under its id is refused.
    expect_hold(&reserve(&producer, "acme", hold("r1", "6")).await?, 201, "held", "6", "4")?;
    reserve(&producer, "acme", hold("r1", "5")).await?.expect_problem(409, "conflict")?;

    let refused = reserve(&producer, "acme", hold("r2", "4.000000001")).await?;
    refused.expect_problem(402, "credits_exhausted")?;
    let figures = ["requested", "available", "resets_at"].map(|field| refused.body[field].clone());
    ensure!(figures == [json!("4.000000001"), json!("4"), json!("2026-03-01T00:00:00Z")], "{}", refused.text);
    ensure!(refused.body["detail"] == "Your team has 4 credits left, which is not enough for this.");
    expect_hold(&reserve(&producer, "acme", hold("r2", "4")).await?, 201, "held", "4", "0")?;
    let none_left = reserve(&producer, "acme", hold("r3", "0.000000001")).await?;
    none_left.expect_problem(402, "credits_exhausted")?;
    ensure!(none_left.body["detail"] == "All that your team has left is held for work in progress.");

    // A refused extension tells the caller to stop, and leaves the hold unchanged.
    let extend = |id: &str| path("acme", &format!("/{id}"));
    let stop = producer.patch(&extend("r1"), json!({"amount": "6.5"})).await?;
    stop.expect_problem(402, "credits_exhausted")?;
    ensure!(stop.body["requested"] == "0.5" && stop.body["available"] == "0", "{}", stop.text);
    expect_hold(&producer.patch(&extend("r1"), json!({"amount": "5"})).await?, 200, "held", "5", "1")?;
    expect_hold(&producer.patch(&extend("r1"), json!({"amount": "6"})).await?, 200, "held", "6", "0")?;
    let longer = producer.patch(&extend("r1"), json!({"ttl_seconds": 3600})).await?;
    expect_hold(&longer, 200, "held", "6", "0")?;
    ensure!(longer.body["expires_at"] == "2026-02-03T11:00:00Z", "{}", longer.text);

    for _ in 0..2 {
        expect_hold(&release(&producer, "acme", "r2").await?, 200, "released", "4", "4")?;
    }
    producer.patch(&extend("r2"), json!({"amount": "1"})).await?.expect_problem(409, "hold_ended")?;
    producer
        .patch(&extend("r9"), json!({"amount": "1"}))
        .await?
        .expect_problem(404, "reservation_not_found")?;
    release(&producer, "acme", "r9").await?.expect_problem(404, "reservation_not_found")?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_holds_count_toward_their_limit_unless_their_feature_is_excluded() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "100").await?;
    let limits = json!({"default_limit": "10", "excluded_features": ["workflow"]});
    operator.at(OPENED).put("/v1/accounts/acme/limits", limits).await?.expect(200)?;
    operator.at(OPENED).post("/v1/accounts/acme/usage", usage("u1", "3")).await?.expect(200)?;

    reserve(&operator, "acme", hold("r1", "5")).await?.expect(201)?;
    let excluded = json!({"reservation_id": "r2", "user_id": "ana", "feature": "workflow", "amount": "50"});
    reserve(&operator, "acme", excluded).await?.expect(201)?;
    let refused = reserve(&operator, "acme", hold("r3", "2.5")).await?;
    refused.expect_problem(402, "user_limit_reached")?;
    let figures = ["limit", "used", "held"].map(|field| refused.body[field].as_str().unwrap_or_default());
    ensure!(figures == ["10", "3", "5"], "{}", refused.text);
    let words = "You have used 3 of your 10 credits, and 5 are held for work in progress; your limit resets on 1 March.";
    ensure!(refused.body["detail"] == words, "{}", refused.text);
    // A hold for another user is not limited by this user's limit, nor is one without a user.
    reserve(&operator, "acme", json!({"reservation_id": "r4", "user_id": "bo", "amount": "10"}))
        .await?
        .expect(201)?;
    reserve(&operator, "acme", json!({"reservation_id": "r5", "amount": "20"})).await?.expect(201)?;
    let check = operator.post("/v1/accounts/acme/check", json!({"user_id": "ana", "amount": "2"})).await?;
    check.expect(200)?;
    ensure!(check.body["allowed"] == true && check.body["held"] == "5", "{}", check.text);
    ensure!(check.body["available"] == "12", "{}", check.text);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_with_its_usage_which_is_charged_in_full() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "100").await?;
    let settle = |id: &str| path("acme", &format!("/{id}/settle"));

    reserve(&operator, "acme", hold("r1", "5")).await?.expect(201)?;
    let settled = operator.at(OPENED).post(&settle("r1"), usage("u1", "7")).await?;
    settled.expect(200)?;
    let said = ["event_id", "outcome", "reservation_id", "state", "held", "over_hold"]
        .map(|field| settled.body[field].as_str().unwrap_or_default());
    ensure!(said == ["u1", "applied", "r1", "settled", "5", "2"], "{}", settled.text);
    expect_balance(&operator, "acme", "settled=93 used=7").await?;

    // A repeat gets the same answer; other usage and every other request find the hold ended.
    let again = operator.at(OPENED).post(&settle("r1"), usage("u1", "7")).await?;
    again.expect(200)?;
    ensure!(again.body == settled.body, "{} and then {}", settled.text, again.text);
    operator.at(OPENED).post(&settle("r1"), usage("u1", "8")).await?.expect_problem(409, "conflict")?;
    operator.at(OPENED).post(&settle("r1"), usage("u2", "7")).await?.expect_problem(409, "hold_ended")?;
    release(&operator, "acme", "r1").await?.expect_problem(409, "hold_ended")?;
    expect_hold(&reserve(&operator, "acme", hold("r1", "5")).await?, 201, "settled", "5", "93")?;
    operator
        .at(OPENED)
        .post(&settle("r9"), usage("u9", "1"))
        .await?
        .expect_problem(404, "reservation_not_found")?;

    // Usage that comes late, after release or expiry, is still charged.
    reserve(&operator, "acme", hold("r2", "5")).await?.expect(201)?;
    release(&operator, "acme", "r2").await?.expect(200)?;
    let late = operator.at(OPENED).post(&settle("r2"), usage("u3", "4")).await?;
    late.expect(200)?;
    ensure!(late.body["over_hold"] == "0" && late.body["outcome"] == "applied", "{}", late.text);
    let short = json!({"reservation_id": "r3", "amount": "50", "ttl_seconds": 60});
    reserve(&operator, "acme", short).await?.expect(201)?;
    operator
        .post("/v1/accounts/acme/clock", json!({"advance_to": "2026-02-03T10:01:00Z"}))
        .await?
        .expect(200)?;
    reserve(&operator, "acme", hold("r4", "89")).await?.expect(201)?;
    operator.post(&settle("r3"), usage("u4", "6")).await?.expect(200)?;
    expect_balance(&operator, "acme", "settled=83 used=17").await?;

    // Usage that names a hold settles it, through any API.
    let mut named = usage("u5", "80");
    named["reservation_id"] = json!("r4");
    let by_usage = operator.at("2026-02-03T10:01:00Z").post("/v1/accounts/acme/usage", named).await?;
    by_usage.expect(200)?;
    ensure!(
        by_usage.body["reservation_id"] == "r4" && by_usage.body["over_hold"] == "0",
        "{}",
        by_usage.text
    );
    expect_hold(&reserve(&operator, "acme", hold("r5", "3")).await?, 201, "held", "3", "0")?;
    whole.replay_and_stop().await
}

/// Seven of category c by meter.
fn metered(id: &str, meter: &str, count: u32) -> Value {
    json!({"id": id, "occurred_at": OPENED, "user_id": "ana", "feature": "chat", "category": "c",
           "quantities": {meter: count}})
}

async fn publish(operator: &Caller, credits: &str) -> Result<()> {
    let card = json!({"meters": [{"category": "c", "prices": {"x": {"credits": credits, "per": "1"}}}]});
    operator.put("/v1/rate-cards/std", card).await?.expect(200).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_answers_as_at_first_whatever_prices_and_clock_are_now() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    publish(&operator, "1").await?;
    let plan =
        json!({"cycle": "monthly", "anchor": "2026-02-01T00:00:00Z", "allowance": "100", "rate_card": "std"});
    let body = json!({"account_id": "acme", "clock": "test", "plan": plan});
    operator.at(OPENED).post("/v1/accounts", body).await?.expect(200)?;
    let settle = |id: &str| path("acme", &format!("/{id}/settle"));
    reserve(&operator, "acme", hold("r1", "5")).await?.expect(201)?;
    reserve(&operator, "acme", hold("r2", "5")).await?.expect(201)?;
    let settled = operator.post(&settle("r1"), metered("u1", "x", 7)).await?;
    ensure!(settled.expect(200)?.body["over_hold"] == "2", "{}", settled.text);

    // Usage without a price settles nothing.
    operator
        .post(&settle("r2"), metered("u2", "y", 1))
        .await?
        .expect_fields(&["quantities unpriced_usage"])?;
    expect_hold(&reserve(&operator, "acme", hold("r2", "5")).await?, 201, "held", "5", "88")?;

    publish(&operator, "2").await?;
    let again = operator.post(&settle("r1"), metered("u1", "x", 7)).await?;
    ensure!(again.expect(200)?.body == settled.body, "{} and then {}", settled.text, again.text);
    operator.patch("/v1/accounts/acme", json!({"rate_card": null})).await?;
    let advance = json!({"advance_to": "2026-04-15T00:00:00Z"});
    operator.post("/v1/accounts/acme/clock", advance).await?.expect(200)?;
    let again = operator.post(&settle("r1"), metered("u1", "x", 7)).await?;
    ensure!(again.expect(200)?.body == settled.body, "{} and then {}", settled.text, again.text);
    let too_old = operator.post(&settle("r2"), metered("u9", "x", 1)).await?;
    too_old.expect_fields(&["occurred_at too_old"])?;
    // Other content under the usage's id conflicts, however old the usage is.
    let other = operator.post(&settle("r1"), metered("u1", "x", 8)).await?;
    other.expect_problem(409, "conflict")?;
    let shown = operator.get("/v1/accounts/acme/events/u1").await?;
    ensure!(shown.expect(200)?.body["repeats"][0]["outcome"] == "conflict", "{}", shown.text);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn other_usage_under_the_id_that_settled_is_recorded_as_a_conflict() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    reserve(&operator, "acme", hold("r1", "5")).await?.expect(201)?;
    let named = |credits: &str| {
        let mut body = usage("u1", credits);
        body["reservation_id"] = json!("r1");
        body
    };
    operator.post("/v1/accounts/acme/usage?wait=true", named("5")).await?.expect(200)?;
    let other = operator.post("/v1/accounts/acme/usage?wait=true", named("6")).await?;
    other.expect_problem(409, "conflict")?;
    let position = other.position()?;
    let shown = operator.get("/v1/accounts/acme/events/u1").await?;
    let repeat = &shown.expect(200)?.body["repeats"][0];
    ensure!(repeat["outcome"] == "conflict" && repeat["position"] == json!(position), "{}", shown.text);
    expect_balance(&operator, "acme", "settled=5 used=5").await?;

    // The same holds for usage that was charged before and names a hold that other usage has ended.
    operator.post("/v1/accounts/acme/usage?wait=true", usage("u2", "0")).await?.expect(200)?;
    let mut late = usage("u2", "0");
    late["reservation_id"] = json!("r1");
    operator.post("/v1/accounts/acme/usage?wait=true", late).await?.expect_problem(409, "conflict")?;
    let shown = operator.get("/v1/accounts/acme/events/u2").await?;
    ensure!(shown.expect(200)?.body["repeats"][0]["outcome"] == "conflict", "{}", shown.text);
    let mut fresh = usage("u3", "0");
    fresh["reservation_id"] = json!("r1");
    operator.post("/v1/accounts/acme/usage?wait=true", fresh).await?.expect_problem(409, "hold_ended")?;

    // Usage without effect leaves the hold open at once, through this API too.
    reserve(&operator, "acme", hold("r2", "5")).await?.expect(201)?;
    let mut taken = usage("u1", "1");
    taken["reservation_id"] = json!("r2");
    operator.post("/v1/accounts/acme/usage?wait=true", taken).await?.expect_problem(409, "conflict")?;
    operator.patch(&path("acme", "/r2"), json!({"amount": "4"})).await?.expect(200)?;
    whole.replay_and_stop().await
}

/// Also while the batches of its account are full of others' requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_open_again_when_its_usage_is_answered_to_have_no_effect() -> Result<()> {
    const ROUNDS: usize = 10;
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "1000").await?;
    operator.post("/v1/accounts/acme/usage?wait=true", usage("u1", "0")).await?.expect(200)?;
    let others = async |caller: usize| {
        for n in 0.. {
            reserve(&operator, "acme", hold(&format!("other{caller}-{n}"), "0.001")).await?.expect(201)?;
        }
        anyhow::Ok(())
    };
    let rounds = async {
        for n in 0..ROUNDS {
            let id = format!("r{n}");
            reserve(&operator, "acme", hold(&id, "5")).await?.expect(201)?;
            let mut taken = usage("u1", "1");
            taken["reservation_id"] = json!(id);
            let answer = operator.post("/v1/accounts/acme/usage?wait=true", taken).await?;
            answer.expect_problem(409, "conflict")?;
            operator.patch(&path("acme", &format!("/{id}")), json!({"amount": "4"})).await?.expect(200)?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        done = rounds => done?,
        done = try_join_all((0..8).map(others)) => drop(done?),
    }
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_is_no_earlier_than_its_hold() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    let later = "2026-02-05T10:00:00Z";
    operator.at(later).post(&path("acme", ""), hold("r1", "5")).await?.expect(201)?;
    let work = json!({"id": "u1", "occurred_at": later, "credits": "5"});
    operator.post(&path("acme", "/r1/settle"), work).await?.expect(200)?;
    let shown = operator.get("/v1/accounts/acme/events/u1").await?;
    ensure!(shown.expect(200)?.body["recorded_at"] == later, "{}", shown.text);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_whose_usage_comes_to_nothing_is_held_again() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    operator.at(OPENED).post("/v1/accounts/acme/usage", usage("u1", "1")).await?.expect(200)?;
    reserve(&operator, "acme", hold("r1", "5")).await?.expect(201)?;
    // Other usage already has the id.
    let settle = path("acme", "/r1/settle");
    operator.at(OPENED).post(&settle, usage("u1", "8")).await?.expect_problem(409, "conflict")?;
    expect_hold(&reserve(&operator, "acme", hold("r1", "5")).await?, 201, "held", "5", "4")?;
    operator.at(OPENED).post(&settle, usage("u2", "2")).await?.expect(200)?;
    expect_balance(&operator, "acme", "settled=7 used=3").await?;
    expect_hold(&reserve(&operator, "acme", hold("r2", "7")).await?, 201, "held", "7", "0")?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_hold_expires_by_itself() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open_live(&operator, "acme", "10").await?;
    let short = json!({"reservation_id": "r1", "amount": "10", "ttl_seconds": 600});
    reserve(&operator, "acme", short.clone()).await?.expect(201)?;
    reserve(&operator, "acme", hold("r2", "1")).await?.expect_problem(402, "credits_exhausted")?;
    operator
        .at(OPENED)
        .post(&path("acme", ""), hold("r3", "1"))
        .await?
        .expect_problem(409, "clock_is_live")?;
    operator.patch(&path("acme", "/r1"), json!({"ttl_seconds": 1})).await?.expect(200)?;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    expect_hold(&reserve(&operator, "acme", hold("r2", "1")).await?, 201, "held", "1", "9")?;
    expect_hold(&reserve(&operator, "acme", short).await?, 201, "expired", "10", "9")?;
    operator.patch(&path("acme", "/r1"), json!({"amount": "1"})).await?.expect_problem(409, "hold_ended")?;
    whole.replay_and_stop().await
}

/// Accounts whose gate has another sum than their open holds.
const ASTRAY: &str = "
    select count(*)
    from (select account_id, sum(counts) as held
          from control.hold
          where state = 'held'
          group by account_id) as holds
    full join control.gate using (account_id)
    where coalesce(gate.held, 0) <> coalesce(holds.held, 0)";

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_races_the_opening_of_its_account_is_held_under_its_gate() -> Result<()> {
    const ACCOUNTS: usize = 200;
    let whole = Whole::start().await?;
    let operator = whole.operator();
    let plan = json!({"cycle": "monthly", "allowance": "10"});
    let racing = (0..ACCOUNTS).map(async |number| {
        let account = format!("acct-{number}");
        let body = json!({"account_id": account, "plan": plan});
        operator.post("/v1/accounts?wait=false", body).await?.expect(202)?;
        // Four holds of 5, for two of which there is room.
        let holds = (0..4).map(|id| {
            let hold = hold(&format!("r{id}"), "5");
            reserve(&operator, &account, hold)
        });
        let answers = try_join_all(holds).await?;
        let granted = answers.iter().filter(|answer| answer.status == 201).count();
        ensure!(granted == 2, "{account}: {granted} were granted");
        anyhow::Ok(())
    });
    futures::stream::iter(racing).buffer_unordered(16).try_collect::<Vec<()>>().await?;
    let astray: i64 = sqlx::query_scalar(ASTRAY).fetch_one(&whole.pool).await?;
    ensure!(astray == 0, "the gates of {astray} accounts do not know their holds");
    whole.replay_and_stop().await
}

/// Old holds and decisions, more than one chunk of each, with one of both that are kept.
const OLD: &str = r#"
    insert into control.hold (account_id, reservation_id, content, user_id, feature, amount, counts, state, expires_at,
                              decided_at, created_at)
    select 'old', 'r' || n, '\x00', 'u' || n % 10, null, 1, 1, case when n = 1 then 'held' else 'released' end,
           old.at, old.at, old.at
    from generate_series(1, 12000) as n
    cross join (select now() - interval '41 days' as at) as old;
    insert into control.user_hold (account_id, user_id, feature, held)
    select 'old', 'u' || n, '', case when n = 1 then 1 else 0 end
    from generate_series(0, 9) as n;
    insert into control.decision (account_id, decided_at, logged_at, kind, settled, available, used, held, period_index,
                                  resets_at, "partition", "offset", actor)
    select 'old', now(), now() - case when n = 1 then 399 else 401 end * interval '1 day', 'check', 1, 1, 1, 1, 0, now(),
           0, 1, 'k'
    from generate_series(1, 12000) as n"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_is_dropped_piece_by_piece_until_nothing_of_it_is_left() -> Result<()> {
    let whole = Whole::start().await?;
    sqlx::raw_sql(OLD).execute(&whole.pool).await?;
    let token = platform::shutdown::CancellationToken::new();
    command_api::drop_old(&whole.pool, command_api::HoldsConfig::default(), &token).await?;
    let left: (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from control.hold), (select count(*) from control.decision),
                (select count(*) from control.user_hold)",
    )
    .fetch_one(&whole.pool)
    .await?;
    ensure!(left == (1, 1, 1), "{left:?} are left");
    whole.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_takes_the_queries_of_every_write() -> Result<()> {
    let whole = Whole::start_impatient().await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    let position = operator.get("/v1/accounts/acme/balance").await?.position()?;
    let at_least = format!("at_least={}:{}", position.partition, position.offset);
    for query in ["?wait=false", "?wait=true", &format!("?wait=false&{at_least}")] {
        operator.post(&path("acme", query), hold("r1", "5")).await?.expect(201)?;
        operator.patch(&path("acme", &format!("/r1{query}")), json!({"amount": "5"})).await?.expect(200)?;
        let work = json!({"user_id": "ana", "amount": "5"});
        let checked = operator.post(&format!("/v1/accounts/acme/check{query}"), work).await?;
        ensure!(checked.expect(200)?.body["allowed"] == true, "{}", checked.text);
    }
    operator.post_nothing(&path("acme", "/r1/release?wait=false")).await?.expect(200)?;
    let ahead = format!("?at_least={}:{}", position.partition, position.offset + 1_000);
    let checked = operator.post(&format!("/v1/accounts/acme/check{ahead}"), json!({})).await?;
    checked.expect_problem(503, "behind")?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_name_their_fields_and_strangers_hold_nothing() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    for (body, field) in [
        (json!({"amount": "1"}), "reservation_id"),
        (json!({"reservation_id": "r", "amount": "0"}), "amount"),
        (json!({"reservation_id": "r", "amount": 1}), "amount"),
        (json!({"reservation_id": "r", "amount": "1", "ttl_seconds": 0}), "ttl_seconds"),
        (json!({"reservation_id": "r", "amount": "1", "ttl_seconds": 86_401}), "ttl_seconds"),
        (json!({"reservation_id": "r", "amount": "1", "colour": "red"}), "colour"),
    ] {
        let refused = reserve(&operator, "acme", body).await?;
        refused.expect_problem(422, "invalid")?;
        ensure!(refused.body["errors"][0]["field"] == field, "{}", refused.text);
    }
    operator.patch(&path("acme", "/r"), json!({})).await?.expect_problem(422, "invalid")?;
    let mut other = usage("u1", "1");
    other["reservation_id"] = json!("r2");
    operator.post(&path("acme", "/r1/settle"), other).await?.expect_problem(422, "invalid")?;
    reserve(&operator, "nobody", hold("r", "1")).await?.expect_problem(404, "account_not_found")?;
    let stranger = whole.keyed("producer", &["beta"], None).await?;
    reserve(&stranger, "acme", hold("r", "1")).await?.expect_problem(403, "forbidden")?;
    let admin = whole.keyed("admin", &["acme"], None).await?;
    reserve(&admin, "acme", hold("r", "1")).await?.expect_problem(403, "forbidden")?;
    let at = path("acme", "?at_least=99:1");
    operator.post(&at, hold("r", "1")).await?.expect_problem(422, "invalid")?;
    let end =
        operator.at(OPENED).post("/v1/accounts/acme/usage?wait=false", usage("u1", "4")).await?.position()?;
    let at = path("acme", &format!("?at_least={end}"));
    operator.post(&at, hold("r", "6.1")).await?.expect_problem(402, "credits_exhausted")?;
    operator.post(&at, hold("r", "6")).await?.expect(201)?;
    whole.replay_and_stop().await
}
