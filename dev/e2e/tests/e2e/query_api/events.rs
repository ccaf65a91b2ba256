//! Events and messages: the outcome of a record, its cost, and the lots that paid.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::described::{ensure_is, read};
use super::story::Story;
use e2e::Whole;

async fn publish_card(whole: &Whole) -> Result<()> {
    let prices = json!({"input_tokens": {"credits": "250", "per": "1000000"},
                        "output_tokens": {"credits": "1000", "per": "1000000"},
                        "reasoning_tokens": {"credits": "1000", "per": "1000000"}});
    let meters = json!([{"category": "ai_usage", "match": {"model": "gpt-4o"}, "prices": prices}]);
    whole.operator().put("/v1/rate-cards/standard", json!({"meters": meters})).await?.expect(200).map(drop)
}

fn line(quantity: &str, amount: &str, unit_credits: &str, credits: &str) -> Value {
    json!({"quantity": quantity, "amount": amount, "unit_credits": unit_credits, "per": "1000000",
           "credits": credits, "rate_card": "standard", "version": 1})
}

fn tokens(message: &str) -> Value {
    json!({"user_id": "ana", "category": "ai_usage", "model": "gpt-4o", "message_id": message,
           "quantities": {"input_tokens": "1200", "output_tokens": 80, "reasoning_tokens": "0"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_shows_its_outcome_its_price_lines_and_the_lots_drawn() -> Result<()> {
    let whole = Whole::start().await?;
    publish_card(&whole).await?;
    let plan = json!({"allowance": "0.1", "rate_card": "standard"});
    let story = Story::monthly(&whole, "acme", plan).await?;
    let opened = story.get("/periods").await?;
    let mut body = tokens("msg-1");
    body["occurred_at"] = json!("2026-01-06T10:00:00Z");
    let used = story.usage("2026-01-06T10:00:01Z", "msg-1:1", body.clone()).await?;
    let mut expected = json!({
        "account_id": "acme", "event_id": "msg-1:1", "source": "/v1/usage", "type": "ledger.usage.recorded.v1",
        "position": used.body["position"], "outcome": "applied", "reason": null, "credits": "0.38", "user_id": "ana",
        "message_id": "msg-1", "call_id": null, "duplicate_of": null, "duplicate_of_source": null,
        "occurred_at": "2026-01-06T10:00:00Z", "recorded_at": "2026-01-06T10:00:01Z",
        "actor": "operator",
        "lines": [line("input_tokens", "1200", "250", "0.3"), line("output_tokens", "80", "1000", "0.08")],
        "lots": [{"grant_id": "plan:0", "source": "plan", "amount": "-0.1"}], "overdraft": "0.28",
        "reversed_at": null, "repeats": [], "reservation_id": null, "held": null, "over_hold": null,
    });
    let answer = story.get("/events/msg-1:1").await?;
    ensure_is(&answer.body, &expected)?;
    ensure!(answer.headers["ledger-position"] == *used.position()?.to_string(), "{:?}", answer.headers);

    // The same id again, with the same content and with another.
    let operator = whole.operator();
    let mut again = body;
    again["id"] = json!("msg-1:1");
    let late = operator.at("2026-01-07T00:00:00Z").post("/v1/accounts/acme/usage", again.clone()).await?;
    late.expect(200)?;
    again["credits"] = json!("9");
    again.as_object_mut().map(|body| body.remove("quantities"));
    let other = operator.at("2026-01-08T00:00:00Z").post("/v1/accounts/acme/usage", again).await?;
    other.expect(409)?;
    expected["repeats"] = json!([
        {"position": late.body["position"], "outcome": "duplicate", "recorded_at": "2026-01-07T00:00:00Z"},
        {"position": "*", "outcome": "conflict", "recorded_at": "2026-01-08T00:00:00Z"},
    ]);
    story.post("2026-01-09T00:00:00Z", "/usage/msg-1:1/reversal", json!({"reason": "wrong"})).await?;
    expected["reversed_at"] = json!("2026-01-09T00:00:00Z");
    ensure_is(&story.get("/events/msg-1:1").await?.body, &expected)?;
    ensure_is(&opened.body["items"][0]["index"], &json!(0))?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_event_can_be_looked_up_with_what_it_did_to_lots() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "5"})).await?;
    let bought =
        story.post("2026-01-06T00:00:00Z", "/purchases", json!({"payment_id": "p1", "amount": "10"})).await?;
    let adjusted = story
        .post("2026-01-07T00:00:00Z", "/adjustments", json!({"amount": "-6", "reason": "wrong"}))
        .await?;
    let rejected = json!({"payment_id": "p1", "amount": "40"});
    let refund = whole.operator().at("2026-01-08T00:00:00Z").with("Idempotency-Key", "r1");
    let refund = refund.post("/v1/accounts/acme/refunds", rejected).await?;
    refund.expect(422)?;
    let moved = story.clock("2026-02-01T00:00:00Z").await?;
    let event = |answer: &e2e::Answer, id: Value, kind: &str, lots: Value| {
        json!({"account_id": "acme", "event_id": id, "source": "*", "type": format!("ledger.{kind}.v1"),
               "position": answer.body["position"], "outcome": "applied", "reason": null, "credits": null,
               "user_id": null, "message_id": null, "call_id": null, "duplicate_of": null,
               "duplicate_of_source": null, "occurred_at": "*", "recorded_at": "*", "actor": "operator",
               "lines": [], "lots": lots, "overdraft": "*", "reversed_at": null, "repeats": [],
               "reservation_id": null, "held": null, "over_hold": null})
    };
    let expected = event(
        &bought,
        json!("p1"),
        "credits.purchased",
        json!([{"grant_id": "p1", "source": "purchase", "amount": "10"}]),
    );
    ensure_is(&story.get("/events/p1").await?.body, &expected)?;
    let id = &adjusted.body["event_id"];
    let expected = event(
        &adjusted,
        id.clone(),
        "credits.adjusted",
        json!([{"grant_id": "plan:0", "source": "plan", "amount": "-5"},
                                {"grant_id": "p1", "source": "purchase", "amount": "-1"}]),
    );
    ensure_is(&story.get(&format!("/events/{}", id.as_str().unwrap_or_default())).await?.body, &expected)?;
    // A clock's event booked the crossing, which is the period's and not its own.
    let id = moved.body["event_id"].as_str().unwrap_or_default();
    let clock = story.get(&format!("/events/{id}")).await?;
    ensure!(
        clock.body["type"] == "ledger.clock.advanced.v1" && clock.body["outcome"] == "applied",
        "{}",
        clock.text
    );

    let entries = story.get("/entries").await?;
    ensure!(!entries.text.contains("refunded"), "what is rejected books nothing: {}", entries.text);
    let id = refund.body["event_id"].as_str().unwrap_or_default().to_owned();
    ensure!(!id.is_empty(), "a refusal that stands in the log names its event: {}", refund.text);
    let refused = story.get(&format!("/events/{id}")).await?;
    let found = json!([refused.body["outcome"], refused.body["reason"]]);
    ensure_is(&found, &json!(["rejected", "refund_exceeds_payment"]))?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_from_two_sources_is_distinguished_by_the_source() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "5"})).await?;
    story.usage("2026-01-06T00:00:00Z", "u1", json!({"credits": "1"})).await?;
    story.usage("2026-01-06T00:00:00Z", "u1", json!({"credits": "2", "source": "/app?x=1"})).await?;
    let operator = whole.operator();
    read(&operator, "/v1/accounts/acme/events/u1").await?.expect_problem(409, "ambiguous_event")?;
    for (source, credits) in [("/v1/usage", "1"), ("/app%3Fx%3D1", "2")] {
        let answer = story.get(&format!("/events/u1?source={source}")).await?;
        ensure_is(&answer.body["credits"], &json!(credits))?;
    }
    read(&operator, "/v1/accounts/acme/events/u1?source=/other")
        .await?
        .expect_problem(404, "event_not_found")?;
    read(&operator, "/v1/accounts/acme/events/u2").await?.expect_problem(404, "event_not_found")?;
    read(&operator, "/v1/accounts/acme/events/u1?source=").await?.expect_fields(&["source bad_source"])?;
    // Any valid id can be read.
    let odd = "a/b c%ü?#";
    story.usage("2026-01-06T00:00:00Z", odd, json!({"credits": "1"})).await?;
    let answer = story.get("/events/a%2Fb%20c%25%C3%BC%3F%23").await?;
    ensure_is(&answer.body["event_id"], &json!(odd))?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_the_sum_of_its_usage() -> Result<()> {
    let whole = Whole::start().await?;
    publish_card(&whole).await?;
    let plan = json!({"allowance": "0.5", "rate_card": "standard"});
    let story = Story::monthly(&whole, "acme", plan).await?;
    story.usage("2026-01-06T10:00:00Z", "msg-1:1", tokens("msg-1")).await?;
    story.usage("2026-01-06T10:00:05Z", "msg-1:2", tokens("msg-1")).await?;
    story.usage("2026-01-06T10:00:06Z", "msg-1:3", tokens("msg-1")).await?;
    story.usage("2026-01-06T10:00:07Z", "msg-2:1", tokens("msg-2")).await?;
    story.post("2026-01-06T11:00:00Z", "/usage/msg-1:3/reversal", json!({"reason": "wrong"})).await?;
    let mut expected = json!({
        "account_id": "acme", "position": "*", "recorded_at": "2026-01-06T11:00:00Z", "message_id": "msg-1",
        "credits": "0.76", "events": 2, "reversed": 1, "user_id": "ana", "occurred_at": "2026-01-06T10:00:00Z",
        "lines": [line("input_tokens", "2400", "250", "0.6"), line("output_tokens", "160", "1000", "0.16")],
        "lots": [{"grant_id": "plan:0", "source": "plan", "amount": "-0.5"}], "overdraft": "0.26",
        "held": null, "over_hold": null,
    });
    ensure_is(&story.get("/messages/msg-1").await?.body, &expected)?;
    let other = json!({"user_id": "bo", "credits": "1", "message_id": "msg-1"});
    story.usage("2026-01-06T12:00:00Z", "tool", other).await?;
    expected["recorded_at"] = json!("2026-01-06T12:00:00Z");
    expected["credits"] = json!("1.76");
    expected["events"] = json!(3);
    expected["user_id"] = Value::Null;
    expected["overdraft"] = json!("1.26");
    ensure_is(&story.get("/messages/msg-1").await?.body, &expected)?;
    let none = read(&whole.operator(), "/v1/accounts/acme/messages/msg-9").await?;
    none.expect_problem(404, "message_not_found")?;
    whole.replay_and_stop().await
}
