//! Usage: plain, as a CloudEvent and in batches; priced, repeated and reversed.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{OPENED, expect_applied, expect_balance, expect_same, expect_written, open, open_live};
use e2e::{Answer, Caller, Whole};

const ONE: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

fn plain(id: &str, credits: &str) -> Value {
    json!({"id": id, "occurred_at": OPENED, "credits": credits})
}

fn cloud(account: &str, id: &str, data: &Value) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/app", "type": "ledger.usage.recorded.v1", "subject": account,
        "time": OPENED, "data": data
    })
}

async fn send(caller: &Caller, query: &str, media_type: &str, body: &Value) -> Result<Answer> {
    caller.send_as(Method::POST, &format!("/v1/events{query}"), media_type, &body.to_string()).await
}

/// The card of the contract's example.
fn standard() -> Value {
    json!({"meters": [
        {"category": "ai_usage", "match": {"model": "gpt-4o"}, "prices": {
            "input_tokens": {"credits": "250", "per": "1000000"},
            "output_tokens": {"credits": "1000", "per": "1000000"}}},
        {"category": "compute_runtime", "prices": {"seconds": {"credits": "1", "per": "60"}}}
    ]})
}

async fn open_with_card(operator: &Caller, account: &str, card: &str) -> Result<()> {
    let plan =
        json!({"cycle": "monthly", "anchor": "2026-02-01T00:00:00Z", "allowance": "100", "rate_card": card});
    let body = json!({"account_id": account, "clock": "test", "plan": plan});
    operator.at(OPENED).post("/v1/accounts", body).await?.expect(200).map(drop)
}

#[tokio::test]
async fn usage_counts_once_however_it_comes() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    plain_usage_is_recorded_whole(&operator).await?;
    the_same_id_counts_once(&operator).await?;
    a_resend_is_not_appended_again(&operator).await?;
    a_cloud_event_is_the_same_usage(&operator).await?;
    usage_may_be_late_but_not_too_late(&operator).await?;
    a_known_id_is_a_duplicate_however_old(&operator).await?;
    bad_usage_is_refused_by_its_fields(&operator).await?;
    whole.replay_and_stop().await
}

async fn plain_usage_is_recorded_whole(operator: &Caller) -> Result<()> {
    operator.put("/v1/rate-cards/standard", standard()).await?.expect(200)?;
    open_with_card(operator, "acme", "standard").await?;
    let body = json!({
        "id": "msg-1:1", "source": "/app", "occurred_at": "2026-02-03T10:00:00Z", "org_id": "acme", "user_id": "ana",
        "feature": "agent_chat", "category": "ai_usage", "provider": "openai", "model": "gpt-4o", "tier": "advanced",
        "kind": null, "quantities": {"input_tokens": "1200", "output_tokens": "80", "reasoning_tokens": "0"},
        "credits": null, "message_id": "msg-1", "session_id": "s-9", "metadata": {"agent": "support"}
    });
    let path = "/v1/accounts/acme/usage";
    let accepted = operator.post(path, body.clone()).await?;
    accepted.expect(202)?;
    expect_written(&accepted, None)?;
    ensure!(accepted.body["event_id"] == "msg-1:1", "{}", accepted.text);
    let waited = operator.post(&format!("{path}?wait=true"), body).await?;
    waited.expect(200)?;
    expect_written(&waited, Some("duplicate"))?;
    ensure!(waited.position()? >= accepted.position()?, "{}", waited.text);
    let event = operator.get("/v1/accounts/acme/events/msg-1:1").await?;
    event.expect(200)?;
    ensure!(event.body["credits"] == "0.38", "{}", event.text);
    let lines = event.body["lines"].as_array().context("lines")?;
    ensure!(
        lines.len() == 2 && lines[0]["rate_card"] == "standard" && lines[0]["version"] == 1,
        "{}",
        event.text
    );
    expect_balance(operator, "acme", "settled=99.62 used=0.38").await
}

async fn the_same_id_counts_once(operator: &Caller) -> Result<()> {
    open(operator, "twice", "10").await?;
    let path = "/v1/accounts/twice/usage?wait=true";
    expect_applied(&operator.post(path, plain("u1", "1")).await?)?;
    let again = operator.post(path, plain("u1", "1.0")).await?;
    again.expect(200)?;
    expect_written(&again, Some("duplicate"))?;
    let other = operator.post(path, plain("u1", "2")).await?;
    other.expect_problem(409, "conflict")?;
    ensure!(other.body["outcome"] == "conflict" && other.position()? > again.position()?, "{}", other.text);
    // Another source is another id space.
    let mut elsewhere = plain("u1", "3");
    elsewhere["source"] = json!("/elsewhere");
    expect_applied(&operator.post(path, elsewhere).await?)?;
    // Usage of 0 is a fact too, and usage without credits left still counts.
    expect_applied(&operator.post(path, plain("u0", "0")).await?)?;
    expect_applied(&operator.post(path, plain("u9", "10")).await?)?;
    expect_balance(operator, "twice", "settled=-4 overdraft=4 used=14 status=depleted").await
}

async fn a_resend_is_not_appended_again(operator: &Caller) -> Result<()> {
    open(operator, "resent", "10").await?;
    let one = cloud("resent", "e1", &json!({"credits": "1"}));
    let first = send(operator, "?wait=true", ONE, &one).await?;
    expect_applied(&first)?;
    let again = send(operator, "?wait=true", ONE, &one).await?;
    expect_written(again.expect(200)?, Some("duplicate"))?;
    ensure!(again.position()? == first.position()?, "{}", again.text);
    let unwaited = send(operator, "?wait=false", ONE, &one).await?;
    expect_written(unwaited.expect(202)?, None)?;
    ensure!(unwaited.position()? == first.position()?, "{}", unwaited.text);
    // Beside what is new, and what has other content.
    let other = cloud("resent", "e1", &json!({"credits": "2"}));
    let new = cloud("resent", "e2", &json!({"credits": "3"}));
    let many = send(operator, "?wait=true", BATCH, &json!([one, new, other, one])).await?;
    let items = many.expect(200)?.body["items"].as_array().context("items")?;
    let outcomes: Vec<_> = items.iter().map(|item| item["outcome"].as_str().unwrap_or_default()).collect();
    ensure!(outcomes == ["duplicate", "applied", "conflict", "duplicate"], "{}", many.text);
    let stands = |nth: usize| &items[nth]["position"];
    ensure!(*stands(0) == first.body["position"] && stands(3) == stands(0), "{}", many.text);
    ensure!(stands(1) != stands(0) && stands(2) != stands(0), "{}", many.text);
    let stored = operator.get("/v1/accounts/resent/events/e1?source=/app").await?;
    let repeats = stored.expect(200)?.body["repeats"].as_array().context("repeats")?;
    ensure!(repeats.len() == 1 && repeats[0]["outcome"] == "conflict", "{}", stored.text);
    // A time that the caller sets moves the account's clock, so this one is appended.
    let later = send(&operator.at("2026-02-04T00:00:00Z"), "?wait=true", ONE, &one).await?;
    expect_written(later.expect(200)?, Some("duplicate"))?;
    ensure!(later.position()? > first.position()?, "{}", later.text);
    expect_balance(operator, "resent", "settled=6 used=4").await
}

async fn a_cloud_event_is_the_same_usage(operator: &Caller) -> Result<()> {
    open(operator, "clouds", "10").await?;
    let mut event = cloud("clouds", "e1", &json!({"credits": "1", "user_id": "ana"}));
    // Fields that only the ledger may set are dropped, and so is every other extension.
    event["recordedat"] = json!("2020-01-01T00:00:00Z");
    event["actor"] = json!("somebody");
    event["traceparent"] = json!("00-1");
    event["datacontenttype"] = json!("application/json");
    let accepted = send(operator, "", ONE, &event).await?;
    accepted.expect(202)?;
    expect_written(&accepted, None)?;
    let again = send(operator, "?wait=true", "application/cloudevents+json; charset=utf-8", &event).await?;
    again.expect(200)?;
    expect_written(&again, Some("duplicate"))?;
    let stored = operator.get("/v1/accounts/clouds/events/e1").await?;
    ensure!(stored.body["recorded_at"] == OPENED, "{}", stored.text);
    // As plain JSON, one or many, and in binary mode: its attributes as headers, its data as the body.
    let json = "application/json";
    let one = send(operator, "?wait=true", json, &event).await?;
    expect_written(one.expect(200)?, Some("duplicate"))?;
    let many = send(operator, "?wait=true", json, &json!([event])).await?;
    ensure!(many.expect(200)?.body["items"][0]["outcome"] == "duplicate", "{}", many.text);
    let mut binary = operator.clone();
    for name in ["specversion", "id", "source", "type", "subject", "time"] {
        binary = binary.with(&format!("ce-{name}"), event[name].as_str().unwrap_or_default());
    }
    let same = send(&binary, "?wait=true", json, &event["data"]).await?;
    expect_written(same.expect(200)?, Some("duplicate"))?;
    let bad = send(&binary, "", json, &json!({"credits": true})).await?;
    bad.expect_fields(&["data.credits not_an_amount"])?;
    let head = operator.request(Method::HEAD, "/v1/accounts/clouds/events/e1").send().await?;
    ensure!(head.status() == 200 && head.headers().contains_key("ledger-position"), "{head:?}");
    ensure!(head.bytes().await?.is_empty());
    expect_balance(operator, "clouds", "settled=9").await
}

async fn usage_may_be_late_but_not_too_late(operator: &Caller) -> Result<()> {
    open(operator, "late", "10").await?;
    let now = operator.at("2026-03-10T10:00:00Z");
    let at = |id: &str, time: &str| json!({"id": id, "occurred_at": time, "credits": "1"});
    let path = "/v1/accounts/late/usage";
    expect_applied(&now.post(path, at("new", "2026-03-10T10:05:00Z")).await?)?;
    expect_applied(&now.post(path, at("old", "2026-02-03T10:00:00Z")).await?)?;
    let new = now.post(path, at("newer", "2026-03-10T10:05:00.001Z")).await?;
    new.expect_problem(422, "too_new")?.expect_fields(&["occurred_at too_new"])?;
    let old = now.post(path, at("older", "2026-02-03T09:59:59.999Z")).await?;
    old.expect_problem(422, "too_old")?.expect_fields(&["occurred_at too_old"])?;
    let mut event = cloud("late", "older", &json!({"credits": "1"}));
    event["time"] = json!("2026-02-03T09:59:59Z");
    let old = send(&now, "", ONE, &event).await?;
    old.expect_problem(422, "too_old")?.expect_fields(&["time too_old"])?;
    // The service's clock bounds a live account's usage.
    open_live(operator, "now", "10").await?;
    let future = at("u", "2999-01-01T00:00:00Z");
    operator.post("/v1/accounts/now/usage", future).await?.expect_problem(422, "too_new")?;
    operator
        .post("/v1/accounts/now/usage", at("u", "2020-01-01T00:00:00Z"))
        .await?
        .expect_problem(422, "too_old")?;
    expect_balance(operator, "now", "settled=10").await?;
    expect_balance(operator, "late", "used=2").await
}

async fn a_known_id_is_a_duplicate_however_old(operator: &Caller) -> Result<()> {
    open(operator, "known", "10").await?;
    let path = "/v1/accounts/known/usage?wait=true";
    expect_applied(&operator.post(path, plain("u1", "1")).await?)?;
    let far = operator.at("2027-01-01T00:00:00Z");
    let again = far.post(path, plain("u1", "1")).await?;
    again.expect(200)?;
    expect_written(&again, Some("duplicate"))?;
    far.post(path, plain("u2", "1")).await?.expect_problem(422, "too_old").map(drop)
}

async fn bad_usage_is_refused_by_its_fields(operator: &Caller) -> Result<()> {
    open(operator, "poor", "10").await?;
    let path = "/v1/accounts/poor/usage";
    let metadata: serde_json::Map<String, Value> = (0..17).map(|n| (format!("k{n}"), json!("v"))).collect();
    let bad = json!({
        "id": "", "source": "urn:ledger:api", "occurred_at": "soon", "org_id": "", "user_id": 5, "feature": "",
        "category": "Not A Slug", "quantities": {"input_tokens": "-1", "Bad": 1, "half": 0.5}, "credits": "-1",
        "message_id": "", "session_id": [], "metadata": metadata, "lines": [], "held": "1", "colour": "red"
    });
    let fields = [
        "category bad_slug",
        "colour unknown_field",
        "credits negative",
        "feature bad_label",
        "held unknown_field",
        "id bad_id",
        "lines unknown_field",
        "message_id bad_id",
        "metadata too_many",
        "occurred_at not_a_time",
        "org_id bad_id",
        "quantities.Bad bad_slug",
        "quantities.half not_an_amount",
        "quantities.input_tokens negative",
        "session_id wrong_type",
        "source reserved_source",
        "user_id wrong_type",
    ];
    operator.post(path, bad).await?.expect_fields(&fields)?;
    operator.post(path, json!({})).await?.expect_fields(&["id required", "occurred_at required"])?;
    let nothing = operator.post(path, json!({"id": "u", "occurred_at": OPENED})).await?;
    nothing.expect_problem(422, "unpriced_usage")?.expect_fields(&["quantities unpriced_usage"])?;
    let mut held = plain("u", "1");
    held["reservation_id"] = json!("r1");
    operator.post(path, held).await?.expect_problem(404, "reservation_not_found")?;
    let nobody = operator.post("/v1/accounts/nobody/usage", plain("u", "1")).await?;
    nobody.expect_problem(404, "account_not_found")?;
    operator.post("/v1/accounts/no%20id/usage", plain("u", "1")).await?.expect_problem(404, "not_found")?;
    let waits = operator.post(&format!("{path}?wait=maybe"), plain("u", "1")).await?;
    waits.expect_fields(&["wait wrong_type"])?;

    let mut event = cloud("poor", "e", &json!({"credits": 5, "lines": []}));
    for (attribute, value) in
        [("specversion", "0.3"), ("type", "ledger.credits.granted.v1"), ("time", "soon")]
    {
        event[attribute] = json!(value);
    }
    let fields = [
        "data.credits not_an_amount",
        "data.lines unknown_field",
        "specversion not_one_of",
        "time not_a_time",
        "type not_one_of",
    ];
    send(operator, "", ONE, &event).await?.expect_fields(&fields)?;
    let required = [
        "data required",
        "id required",
        "source required",
        "specversion required",
        "subject required",
        "time required",
        "type required",
    ];
    send(operator, "", ONE, &json!({})).await?.expect_fields(&required)?;
    let nobody = send(operator, "", ONE, &cloud("nobody", "e", &json!({"credits": "1"}))).await?;
    nobody.expect_problem(404, "account_not_found")?;
    let unpriced = send(operator, "", ONE, &cloud("poor", "e", &json!({"quantities": {"x": 1}}))).await?;
    unpriced.expect_problem(422, "unpriced_usage")?.expect_fields(&["data.quantities unpriced_usage"])?;
    expect_balance(operator, "poor", "settled=10 used=0").await
}

#[tokio::test]
async fn batches_take_what_is_good() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    each_item_has_its_result(&operator).await?;
    a_whole_batch_may_be_sent_again(&operator).await?;
    a_batch_has_its_size(&operator).await?;
    a_time_is_for_test_accounts_item_by_item(&operator).await?;
    a_full_batch_counts_to_the_last(&operator).await?;
    whole.replay_and_stop().await
}

/// Returns the items as `index id result code outcome`.
fn items(answer: &Answer) -> Result<Vec<String>> {
    let items = answer.body["items"].as_array().with_context(|| answer.text.clone())?;
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let said = items.iter().map(|item| {
        let placed = item["position"]["offset"].is_i64() == (item["result"] == "accepted");
        let explained = item["detail"].is_string() == (item["result"] == "refused");
        let odd = if placed && explained { "" } else { " odd" };
        let [id, result, code, outcome] = ["id", "result", "code", "outcome"].map(|name| text(&item[name]));
        format!("{} {id} {result} {code} {outcome}{odd}", item["index"])
    });
    Ok(said.collect())
}

fn expect_items(answer: &Answer, status: u16, expected: &[&str]) -> Result<()> {
    answer.expect(status)?;
    let said = items(answer)?;
    ensure!(said == expected, "{said:#?} is not {expected:#?}: {}", answer.text);
    let accepted = said.iter().filter(|item| item.contains(" accepted ")).count();
    let counts = (answer.body["accepted"].as_u64(), answer.body["refused"].as_u64());
    let expected = (Some(accepted as u64), Some((said.len() - accepted) as u64));
    ensure!(counts == expected, "{}", answer.text);
    Ok(())
}

fn mixed() -> Value {
    let good = json!({"credits": "1"});
    let mut old = cloud("acme", "old", &good);
    old["time"] = json!("2025-01-01T00:00:00Z");
    let mut foreign = cloud("acme", "foreign", &good);
    foreign["type"] = json!("ledger.credits.granted.v1");
    json!([
        cloud("acme", "e1", &good),
        cloud("acme", "e2", &json!({"credits": 1})),
        cloud("nobody", "e3", &good),
        cloud("acme", "e4", &json!({"category": "ai_usage", "quantities": {"x": 1}})),
        old,
        foreign,
        7,
        {},
        cloud("acme", "e1", &good),
        cloud("acme", "e1", &json!({"credits": "2"})),
        cloud("acme", "e9", &json!({"credits": "1", "metadata": {"k": "x".repeat(65_536)}})),
        cloud("beta", "e1", &good),
    ])
}

async fn each_item_has_its_result(operator: &Caller) -> Result<()> {
    open(operator, "acme", "10").await?;
    open(operator, "beta", "10").await?;
    let answer = send(operator, "?wait=true", BATCH, &mixed()).await?;
    let expected = [
        "0 e1 accepted - applied",
        "1 e2 refused invalid -",
        "2 e3 refused account_not_found -",
        "3 e4 refused unpriced_usage -",
        "4 old refused too_old -",
        "5 foreign refused invalid -",
        "6 - refused invalid -",
        "7 - refused invalid -",
        "8 e1 accepted - duplicate",
        "9 e1 accepted - conflict",
        "10 e9 refused too_large -",
        "11 e1 accepted - applied",
    ];
    expect_items(&answer, 200, &expected)?;
    let detail = answer.body["items"][1]["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains("data.credits"), "the field is named: {detail}");
    expect_balance(operator, "acme", "settled=9").await?;
    expect_balance(operator, "beta", "settled=9").await
}

async fn a_whole_batch_may_be_sent_again(operator: &Caller) -> Result<()> {
    let answer = send(operator, "", BATCH, &mixed()).await?;
    answer.expect(202)?;
    ensure!(items(&answer)?.iter().all(|item| item.ends_with(" -")), "no outcome: {}", answer.text);
    let answer = send(operator, "?wait=true", BATCH, &mixed()).await?;
    answer.expect(200)?;
    let outcomes: Vec<&str> =
        [0, 8, 9, 11].iter().filter_map(|index| answer.body["items"][index]["outcome"].as_str()).collect();
    ensure!(outcomes == ["duplicate", "duplicate", "conflict", "duplicate"], "{}", answer.text);
    expect_balance(operator, "acme", "settled=9").await?;
    expect_balance(operator, "beta", "settled=9").await
}

async fn a_batch_has_its_size(operator: &Caller) -> Result<()> {
    send(operator, "", BATCH, &json!([])).await?.expect_fields(&["body empty"])?;
    send(operator, "", BATCH, &json!({})).await?.expect_fields(&["body wrong_type"])?;
    let broken = operator.send_as(Method::POST, "/v1/events", BATCH, "[{]").await?;
    broken.expect_problem(400, "not_json")?;
    let many = vec![json!(7); 10_001];
    send(operator, "", BATCH, &json!(many)).await?.expect_problem(413, "too_large")?;
    let large = format!("[\"{}\"]", "x".repeat(8 * 1024 * 1024));
    let large = operator.send_as(Method::POST, "/v1/events", BATCH, &large).await?;
    large.expect_problem(413, "too_large")?;
    for other in ["text/plain", "application/x-ndjson"] {
        let answer = operator.send_as(Method::POST, "/v1/events", other, "[]").await?;
        answer.expect_problem(415, "unsupported_media_type")?;
    }
    Ok(())
}

async fn a_time_is_for_test_accounts_item_by_item(operator: &Caller) -> Result<()> {
    open_live(operator, "live", "10").await?;
    open(operator, "tested", "10").await?;
    let one = json!({"credits": "1"});
    let mut items = json!([cloud("live", "e1", &one), cloud("tested", "e1", &one)]);
    items[1]["time"] = json!("2026-03-05T00:00:00Z");
    // A request with a time waits, as for one event.
    let answer = send(&operator.at("2026-03-05T00:00:00Z"), "", BATCH, &items).await?;
    expect_items(&answer, 200, &["0 e1 refused clock_is_live -", "1 e1 accepted - applied"])?;
    let period = super::balance(operator, "tested").await?["period"]["index"].clone();
    ensure!(period == 1, "the clock moved: {period}");
    expect_balance(operator, "live", "settled=10").await
}

async fn a_full_batch_counts_to_the_last(operator: &Caller) -> Result<()> {
    open(operator, "busy", "10000").await?;
    let events: Vec<Value> =
        (0..10_000).map(|n| cloud("busy", &format!("e{n}"), &json!({"credits": "1"}))).collect();
    let answer = send(operator, "", BATCH, &json!(events)).await?;
    answer.expect(202)?;
    ensure!(answer.body["accepted"] == 10_000, "{}", answer.text);
    let last = answer.body["items"][9_999]["position"].clone();
    let at = format!("{}:{}", last["partition"], last["offset"]);
    for _ in 0..10 {
        let read = operator.get(&format!("/v1/accounts/busy/balance?at_least={at}")).await?;
        if read.status == 200 {
            break;
        }
        read.expect_problem(503, "behind")?;
    }
    expect_balance(operator, "busy", "settled=0 used=10000").await
}

#[tokio::test]
async fn usage_is_priced_by_the_card_of_its_time_and_taken_back_once() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    a_card_counts_its_versions(&operator).await?;
    usage_keeps_the_price_it_was_charged(&operator).await?;
    unpriced_usage_is_refused(&operator).await?;
    bad_cards_are_not_published(&operator).await?;
    a_reversal_gives_back_once(&operator).await?;
    an_id_of_several_sources_must_name_its_source(&operator).await?;
    whole.replay_and_stop().await
}

fn card(credits: &str) -> Value {
    json!({"meters": [{"category": "c", "prices": {"x": {"credits": credits, "per": "1"}}}]})
}

async fn a_card_counts_its_versions(operator: &Caller) -> Result<()> {
    let path = "/v1/rate-cards/card";
    let published = |version: u32| json!({"card": "card", "version": version});
    ensure!(operator.put(path, card("1")).await?.expect(200)?.body == published(1));
    ensure!(
        operator.put(path, card("1")).await?.expect(200)?.body == published(1),
        "the same is no new version"
    );
    ensure!(operator.put(path, card("2")).await?.expect(200)?.body == published(2));
    // A late repeat of older prices does not become the newest version, unless its caller knows the newest.
    operator.put(path, card("1")).await?.expect_problem(409, "conflict")?;
    operator
        .with("If-Match", "\"1\"")
        .put(path, card("1"))
        .await?
        .expect_problem(412, "changed_meanwhile")?;
    let knowing = operator.with("If-Match", "\"2\"").put(path, card("1")).await?;
    ensure!(knowing.expect(200)?.body == published(3));
    Ok(())
}

fn metered(id: &str, quantity: &str) -> Value {
    json!({"id": id, "occurred_at": OPENED, "category": "c", "quantities": {quantity: 2}})
}

async fn usage_keeps_the_price_it_was_charged(operator: &Caller) -> Result<()> {
    open_with_card(operator, "acme", "card").await?;
    let path = "/v1/accounts/acme/usage?wait=true";
    expect_applied(&operator.post(path, metered("u1", "x")).await?)?;
    expect_balance(operator, "acme", "used=2").await?;
    operator.put("/v1/rate-cards/card", card("10")).await?.expect(200)?;
    // A resend after a price change is still a duplicate.
    let again = operator.post(path, metered("u1", "x")).await?;
    again.expect(200)?;
    expect_written(&again, Some("duplicate"))?;
    expect_applied(&operator.post(path, metered("u2", "x")).await?)?;
    expect_balance(operator, "acme", "used=22").await?;
    for (id, version, credits) in [("u1", 3, "2"), ("u2", 4, "20")] {
        let event = operator.get(&format!("/v1/accounts/acme/events/{id}")).await?;
        let line = &event.body["lines"][0];
        ensure!(line["version"] == version && line["credits"] == credits, "{}", event.text);
    }
    // Credits in the event take precedence over the card's.
    let mut given = metered("u3", "x");
    given["credits"] = json!("0.5");
    expect_applied(&operator.post(path, given).await?)?;
    expect_balance(operator, "acme", "used=22.5").await
}

async fn unpriced_usage_is_refused(operator: &Caller) -> Result<()> {
    let path = "/v1/accounts/acme/usage?wait=true";
    operator.post(path, metered("u9", "y")).await?.expect_problem(422, "unpriced_usage")?;
    let mut elsewhere = metered("u9", "x");
    elsewhere["category"] = json!("d");
    operator.post(path, elsewhere).await?.expect_problem(422, "unpriced_usage")?;
    open(operator, "cardless", "100").await?;
    let path = "/v1/accounts/cardless/usage?wait=true";
    operator.post(path, metered("u9", "x")).await?.expect_problem(422, "unpriced_usage")?;
    // A plan can't name a card that was never published.
    let plan = json!({"plan": {"cycle": "monthly", "allowance": "100", "rate_card": "nocard"}});
    let account = json!({"account_id": "nowhere", "plan": plan["plan"]});
    let unknown = ["plan.rate_card unknown"];
    operator.put("/v1/accounts/cardless/plan", plan.clone()).await?.expect_fields(&unknown)?;
    operator.post("/v1/accounts", account).await?.expect_fields(&unknown)?;
    // Once the plan has a card, the same event is accepted.
    operator.put("/v1/rate-cards/nocard", card("0")).await?.expect(200)?;
    operator.put("/v1/accounts/cardless/plan", plan).await?.expect(200)?;
    expect_applied(&operator.post(path, metered("u9", "x")).await?)?;
    expect_balance(operator, "cardless", "used=0 settled=100").await?;
    expect_balance(operator, "acme", "used=22.5").await
}

async fn bad_cards_are_not_published(operator: &Caller) -> Result<()> {
    let path = "/v1/rate-cards/card";
    let bad = json!({"meters": [
        {"category": "C", "match": {"size": "l"}, "prices": {"x": {"credits": "-1", "per": "0"}}},
        {"category": "c", "prices": {}},
        {"category": "d", "prices": {"x": {"credits": "1"}}}
    ], "name": "x"});
    let fields = [
        "meters.0.category bad_slug",
        "meters.0.match.size unknown_field",
        "meters.0.prices.x.credits negative",
        "meters.0.prices.x.per not_positive",
        "meters.1.prices required",
        "meters.2.prices.x.per required",
        "name unknown_field",
    ];
    operator.put(path, bad).await?.expect_fields(&fields)?;
    let meter = |credits: &str| json!({"category": "c", "match": {"model": "m"}, "prices": {"x": {"credits": credits, "per": "1"}}});
    let twice = json!({"meters": [meter("1"), {"category": "c", "prices": {"x": {"credits": "1", "per": "1"}}}, meter("2")]});
    let both = ["meters.0 same_match", "meters.2 same_match"];
    operator.put(path, twice).await?.expect_fields(&both)?;
    operator.put(path, json!({"meters": []})).await?.expect_fields(&["meters out_of_range"])?;
    operator.put("/v1/rate-cards/no%20id", card("1")).await?.expect(422)?;
    ensure!(operator.put(path, card("10")).await?.body["version"] == 4, "nothing was published");
    Ok(())
}

async fn a_reversal_gives_back_once(operator: &Caller) -> Result<()> {
    open(operator, "back", "10").await?;
    operator.post("/v1/accounts/back/usage?wait=true", plain("u1", "4")).await?.expect(200)?;
    let path = "/v1/accounts/back/usage/u1/reversal";
    let first = operator.post(path, json!({"reason": "mistake"})).await?;
    expect_applied(&first)?;
    expect_balance(operator, "back", "settled=10 used=0").await?;
    expect_same(&first, &operator.post(path, json!({"reason": "mistake"})).await?)?;
    operator.post(path, json!({"reason": "other"})).await?.expect_problem(409, "conflict")?;
    // Neither a reason nor a body is required.
    operator.post("/v1/accounts/back/usage?wait=true", plain("u2", "4")).await?.expect(200)?;
    let bare = operator.request(Method::POST, "/v1/accounts/back/usage/u2/reversal");
    expect_applied(&operator.send(bare).await?)?;
    expect_balance(operator, "back", "settled=10 used=0").await?;
    let unknown = operator.post("/v1/accounts/back/usage/u9/reversal", json!({})).await?;
    unknown.expect_problem(404, "event_not_found")?;
    let nobody = operator.post("/v1/accounts/nobody/usage/u1/reversal", json!({})).await?;
    nobody.expect_problem(404, "account_not_found")?;
    operator.post(path, json!({"why": "x"})).await?.expect_fields(&["why unknown_field"])?;
    // A usage id can be any text, percent-encoded in the path.
    operator.post("/v1/accounts/back/usage?wait=true", plain("a b/ü?", "4")).await?.expect(200)?;
    let odd = operator.post("/v1/accounts/back/usage/a%20b%2F%C3%BC%3F/reversal", json!({})).await?;
    expect_applied(&odd)?;
    expect_balance(operator, "back", "settled=10 used=0").await
}

async fn an_id_of_several_sources_must_name_its_source(operator: &Caller) -> Result<()> {
    open(operator, "both", "10").await?;
    for source in ["/a", "/b"] {
        let mut usage = plain("u1", "1");
        usage["source"] = json!(source);
        operator.post("/v1/accounts/both/usage?wait=true", usage).await?.expect(200)?;
    }
    let path = "/v1/accounts/both/usage/u1/reversal";
    operator.post(path, json!({})).await?.expect_problem(409, "ambiguous_event")?;
    expect_applied(&operator.post(&format!("{path}?source=/a"), json!({})).await?)?;
    expect_balance(operator, "both", "used=1").await?;
    let neither = operator.post(&format!("{path}?source=/c"), json!({})).await?;
    neither.expect_problem(404, "event_not_found")?;
    // The id stays ambiguous, also after one of the two was reversed.
    operator.post(path, json!({})).await?.expect_problem(409, "ambiguous_event").map(drop)
}
