//! Access: who may read what, how recent an answer must be, and what is refused.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use platform::kafka::{Appender, Position};
use reqwest::Method;
use serde_json::{Value, json};

use super::described::{ensure_is, read};
use super::story::Story;
use e2e::{Caller, Whole};

/// Every read of an account.
const READS: [&str; 10] = [
    "",
    "/balance",
    "/usage",
    "/users",
    "/grants",
    "/periods",
    "/entries",
    "/events",
    "/events/u1",
    "/messages/m1",
];
/// The reads in which a member sees the own rows.
const OWN_READS: [&str; 4] = ["/usage", "/users", "/events/u1", "/messages/m1"];

async fn tell(whole: &Whole) -> Result<Story> {
    let story = Story::monthly(whole, "acme", json!({"allowance": "5"})).await?;
    for (id, user) in [("u1", "ana"), ("u2", "bo")] {
        let body = json!({"credits": "1", "user_id": user, "message_id": id.replace('u', "m")});
        story.usage("2026-01-06T00:00:00Z", id, body).await?;
    }
    story
        .usage("2026-01-06T00:00:00Z", "u3", json!({"credits": "1", "user_id": "ana", "message_id": "m2"}))
        .await?;
    Ok(story)
}

async fn status(caller: &Caller, path: &str) -> Result<u16> {
    Ok(read(caller, path).await?.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_reads_what_it_may_and_a_refusal_reveals_nothing() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole).await?;
    let anybody = whole.caller(None);
    let wrong = whole.caller(Some("ldg_0123456789abcdef_wrong"));
    let admin = whole.keyed("admin", &["acme", "unopened"], None).await?;
    let everywhere = whole.keyed("admin", &["*"], None).await?;
    let auditor = whole.keyed("auditor", &[], None).await?;
    let producer = whole.keyed("producer", &["acme"], None).await?;
    let member = whole.keyed("member", &["acme"], Some("ana")).await?;
    for what in READS {
        let (acme, other) = (format!("/v1/accounts/acme{what}"), format!("/v1/accounts/other{what}"));
        let may_own = if OWN_READS.contains(&what) { 200 } else { 403 };
        for (caller, name, expected) in [
            (&whole.operator(), "operator", [200, 404]),
            (&everywhere, "admin of all", [200, 404]),
            (&auditor, "auditor", [200, 404]),
            (&admin, "admin", [200, 403]),
            (&producer, "producer", [403, 403]),
            (&member, "member", [may_own, 403]),
            (&anybody, "nobody", [401, 401]),
            (&wrong, "wrong key", [401, 401]),
        ] {
            let found = [status(caller, &acme).await?, status(caller, &other).await?];
            ensure!(found == expected, "{name} {what}: {found:?}, not {expected:?}");
        }
        let unopened = read(&admin, &format!("/v1/accounts/unopened{what}")).await?;
        unopened.expect_problem(404, "account_not_found")?;
        // The same for accounts that exist and for others.
        let (known, unknown) = (read(&producer, &acme).await?, read(&producer, &other).await?);
        ensure!(known.text == unknown.text, "{} {}", known.text, unknown.text);
    }
    for (caller, accounts, audit) in [
        (whole.operator(), 200, 200),
        (auditor, 200, 200),
        (admin, 200, 403),
        (producer, 403, 403),
        (member, 403, 403),
        (anybody, 401, 401),
    ] {
        ensure!(status(&caller, "/v1/accounts").await? == accounts);
        ensure!(status(&caller, "/v1/audit/events?partition=0").await? == audit);
        // As with the journal: the operator and auditors.
        ensure!(caller.get("/v1/promo-codes").await?.status == audit);
        // A caller without permission gets 403 before anything of the request is checked.
        ensure!(
            status(&caller, "/v1/audit/events?partition=x").await? == if audit == 200 { 422 } else { audit }
        );
    }
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_sees_only_the_own_rows() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole).await?;
    let ana = whole.keyed("member", &["acme"], Some("ana")).await?;
    let own = read(&ana, "/v1/key").await?;
    ensure!(own.expect(200)?.body["unit"] == "credits" && own.body["user_id"] == "ana", "{}", own.text);
    let unopened = whole.keyed("member", &["unopened"], Some("ana")).await?;
    let own = read(&unopened, "/v1/key").await?;
    ensure!(own.expect(200)?.body.get("unit").is_none(), "{}", own.text);
    let users = read(&ana, "/v1/accounts/acme/users").await?;
    ensure_is(
        &users.expect(200)?.body["items"],
        &json!([{"user_id": "ana", "used": "2", "counted": "2", "held": "0", "limit": null, "blocked": false}]),
    )?;
    let usage = read(&ana, "/v1/accounts/acme/usage?group_by=user").await?;
    ensure_is(
        &usage.body["items"],
        &json!([{"user": "ana", "credits": "2", "events": 2, "quantities": {}}]),
    )?;
    let usage = read(&ana, "/v1/accounts/acme/usage").await?;
    ensure_is(&usage.body["items"], &json!([{"credits": "2", "events": 2, "quantities": {}}]))?;
    for (path, expected) in [
        ("/usage?user=ana", 200),
        ("/usage?user=bo", 403),
        ("/events/u1", 200),
        ("/events/u2", 403),
        ("/messages/m1", 200),
        // Message m2 is partly bo's.
        ("/messages/m2", 403),
    ] {
        let found = status(&ana, &format!("/v1/accounts/acme{path}")).await?;
        ensure!(found == expected, "{path}: {found}, not {expected}");
    }
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_the_requested_position_and_says_so_when_it_can_not() -> Result<()> {
    let whole = Whole::start_impatient().await?;
    let story = tell(&whole).await?;
    let operator = whole.operator();
    // Every read includes what was just accepted, each time.
    for number in 0..20 {
        let id = format!("n{number}");
        let body = json!({"id": id, "occurred_at": "2026-01-06T00:00:00Z", "credits": "0.1"});
        let accepted = operator.post("/v1/accounts/acme/usage?wait=false", body).await?;
        let position = accepted.expect(202)?.position()?;
        let what = READS[number % READS.len()];
        let answer = read(&operator, &format!("/v1/accounts/acme{what}?at_least={position}")).await?;
        answer.expect(200)?;
        let seen = story.get(&format!("/events/{id}?at_least={position}")).await?;
        ensure!(seen.body["outcome"] == "applied", "{}", seen.text);
        let reached = story.get("/balance").await?.position()?;
        ensure!(reached.partition == position.partition && reached.offset >= position.offset, "{reached}");
    }
    let now = story.get("/balance").await?.position()?;
    let later = Position { offset: now.offset + 1, ..now };
    let mut shortest = Duration::MAX;
    for path in
        READS.map(|what| format!("/v1/accounts/acme{what}")).iter().chain([&"/v1/accounts".to_owned()])
    {
        let answer = read(&operator, &format!("{path}?at_least={now}")).await?;
        answer.expect(200)?;
        let asked = Instant::now();
        let behind = read(&operator, &format!("{path}?at_least={later}")).await?;
        behind.expect_problem(503, "behind")?;
        let waited = asked.elapsed();
        ensure!(behind.retry_after == "1", "{:?}", behind.headers);
        ensure!(waited >= Duration::from_secs(2), "{path}: {waited:?}");
        shortest = shortest.min(waited);
        for (text, code) in
            [("3", "not_a_position"), ("-1:2", "not_a_position"), ("99:1", "no_such_partition")]
        {
            let answer = read(&operator, &format!("{path}?at_least={text}")).await?;
            answer.expect_fields(&[&format!("at_least {code}")])?;
        }
    }
    // A machine that stalls may delay some of them, but not all.
    ensure!(shortest < Duration::from_secs(4), "{shortest:?}");
    // A read that comes before the projection answers as soon as that catches up.
    let early = tokio::spawn({
        let (operator, path) = (operator.clone(), format!("/v1/accounts/acme/balance?at_least={later}"));
        async move { operator.get(&path).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    story.usage("2026-01-07T00:00:00Z", "last", json!({"credits": "1"})).await?;
    early.await??.expect(200)?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_parameter_is_named_at_once() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole).await?;
    let operator = whole.operator();
    for (path, named) in [
        ("/v1/accounts?limit=501&cursor=!&colour=red", &["colour unknown_field", "limit out_of_range"][..]),
        ("/v1/accounts?cursor=!", &["cursor bad_cursor"]),
        ("/v1/accounts?q=&status=shut", &["q empty", "status not_one_of"]),
        (&format!("/v1/accounts?q={}", "a".repeat(257)), &["q too_long"]),
        ("/v1/accounts?q=a%00", &["q control_character"]),
        ("/v1/accounts/acme?limit=1", &["limit unknown_field"]),
        ("/v1/accounts/acme/balance?as_of=yesterday", &["as_of not_a_time"]),
        (
            "/v1/accounts/acme/balance?as_of=2026-02-30T00:00:00Z&at_least=x",
            &["as_of not_a_time", "at_least not_a_position"],
        ),
        ("/v1/accounts/acme/users?over_budget=maybe", &["over_budget wrong_type"]),
        ("/v1/accounts/acme/users?cursor=MQ", &["cursor bad_cursor"]),
        // A cursor of the other order.
        ("/v1/accounts/acme/users?sort=-used&cursor=ImFuYSI", &["cursor bad_cursor"]),
        ("/v1/accounts/acme/users?sort=used&q=", &["q empty", "sort not_one_of"]),
        (&format!("/v1/accounts/acme/users?q={}", "a".repeat(257)), &["q too_long"]),
        ("/v1/accounts/acme/users?q=a%00", &["q control_character"]),
        ("/v1/accounts/acme/users?limit=1&limit=2", &["limit duplicate"]),
        ("/v1/accounts/acme/grants?limit=501", &["limit out_of_range"]),
        ("/v1/accounts/acme/grants?cursor=%00", &["cursor control_character"]),
        ("/v1/accounts/acme/decisions?user=%00", &["user control_character"]),
        (
            "/v1/accounts/acme/reservations?user=a%00&cursor=%00",
            &["cursor control_character", "user control_character"],
        ),
        ("/v1/accounts/acme/notifications?recipient=%00", &["recipient control_character"]),
        ("/v1/accounts/acme/periods?limit=-1", &["limit out_of_range"]),
        ("/v1/accounts/acme/periods?cursor=x", &["cursor bad_cursor"]),
        ("/v1/accounts/acme/entries?type=spent", &["type not_one_of"]),
        ("/v1/accounts/acme/events?from=x&limit=0", &["from not_a_time", "limit out_of_range"]),
        ("/v1/accounts/acme/events?type=%00&up_to=x", &["type control_character", "up_to wrong_type"]),
        ("/v1/accounts/acme/events?cursor=x", &["cursor bad_cursor"]),
        ("/v1/accounts/acme/events/u1?from=x", &["from unknown_field"]),
        ("/v1/accounts/acme/messages/m1?source=x", &["source unknown_field"]),
        ("/v1/audit/events", &["partition required"]),
        ("/v1/audit/events?partition=x&offset=-1", &["offset wrong_type", "partition wrong_type"]),
    ] {
        let answer = read(&operator, path).await?;
        answer.expect_fields(named)?;
    }
    for path in ["/v1/accounts/a%20b", "/v1/accounts/%00/balance", "/v1/accounts/-x/users"] {
        let answer = read(&operator, path).await?;
        ensure!(answer.status == 404, "{path}: {}", answer.text);
    }
    let answer = operator.get("/v1/accounts/acme/nothing").await?;
    answer.expect(404)?;
    operator.get("/v1/promo-codes?limit=0").await?.expect_fields(&["limit out_of_range"])?;
    for cursor in ["x", "1", "1.", "9223372036854775808.a", ".a", "1.a%20b%00"] {
        let answer = operator.get(&format!("/v1/promo-codes?cursor={cursor}")).await?;
        ensure!(answer.status == 422, "{cursor}: {}", answer.text);
    }
    operator.get("/v1/promo-codes?cursor=9223372036854775807.a").await?.expect(200)?;
    operator.delete("/v1/accounts/acme/balance").await?.expect(405)?;
    operator.get("/v1/keys?cursor=%00").await?.expect_fields(&["cursor control_character"])?;
    operator.delete("/v1/keys/%00").await?.expect(404)?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_a_halted_account_say_that_it_is_and_others_go_on() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole).await?;
    Story::monthly(&whole, "beta", json!({"allowance": "5"})).await?;
    let newer = json!({"specversion": "1.0", "id": "n1", "source": "/app", "type": "ledger.usage.recorded.v2",
        "subject": "acme", "time": "2026-01-06T00:00:00Z", "recordedat": "2026-01-06T00:00:00Z", "actor": "k", "data": {}});
    let topic = whole.kafka.topics().events;
    let appender = Appender::new(&whole.kafka, &topic, whole.kafka.partitions)?;
    let position = appender.append(b"acme", newer.to_string().as_bytes()).await?;
    let fresh = newer.to_string().replace("acme", "fresh");
    appender.append(b"fresh", fresh.as_bytes()).await?;
    whole.all_projected().await?;
    let operator = whole.operator();
    for what in READS {
        let answer = read(&operator, &format!("/v1/accounts/acme{what}?at_least={position}")).await?;
        answer.expect_problem(503, "account_halted")?;
        read(&operator, &format!("/v1/accounts/fresh{what}")).await?.expect_problem(503, "account_halted")?;
    }
    read(&operator, "/v1/accounts/beta/balance").await?.expect(200)?;
    read(&operator, "/v1/accounts").await?.expect(200)?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_metrics_and_the_description_need_no_key() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole).await?;
    let anybody = whole.caller(None);
    whole.ready().await?;
    for path in ["/healthz", "/readyz", "/openapi.json", "/openapi-3.0.json"] {
        let answer = read(&anybody, path).await?;
        answer.expect(200)?;
        ensure!(answer.content_type == "application/json", "{path}: {}", answer.content_type);
    }
    let metrics = read(&anybody, "/metrics").await?;
    ensure!(metrics.expect(200)?.text.contains("# TYPE "), "{}", metrics.text);
    let served = read(&anybody, "/openapi.json").await?.body;
    let described = query_api::openapi();
    let paths = described["paths"].as_object().into_iter().flatten();
    for (path, item) in paths {
        ensure!(served["paths"][path]["get"] == item["get"], "{path} is described otherwise");
    }
    ensure!(served["openapi"] == "3.1.0" && served["components"]["schemas"] != Value::Null);
    whole.replay_and_stop().await
}

/// Methods that any path of the contract may have.
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

#[tokio::test(flavor = "multi_thread")]
async fn each_path_has_the_methods_that_are_described_and_no_others() -> Result<()> {
    let whole = Whole::start().await?;
    let anybody = whole.caller(None);
    let document = ledger::openapi::merged();
    let paths = document["paths"].as_object().context("paths")?;
    let mut refused = 0;
    for (template, described) in paths {
        let path = template.replace(['{', '}'], "");
        for method in METHODS {
            let answer = anybody.send(anybody.request(method.clone(), &path)).await?;
            let has_it = described.get(method.as_str().to_lowercase()).is_some();
            ensure!((answer.status != 405) == has_it, "{method} {template}: {}", answer.status);
            refused += usize::from(!has_it);
        }
    }
    ensure!(refused > paths.len() && refused < METHODS.len() * paths.len(), "{refused} were refused");
    whole.replay_and_stop().await
}
