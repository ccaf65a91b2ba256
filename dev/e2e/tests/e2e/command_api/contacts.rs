//! Contacts: stored, shown, erased, and never in the journal; the webhook's secret is shown once.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{expect_same, open};
use e2e::{Answer, Caller, Whole};

const CONTACTS: &str = "/v1/accounts/acme/contacts";

/// An account's webhook in the table: secret, old secret, hours until the old one ends.
type Secrets = (Option<String>, Option<String>, Option<f64>);

async fn secrets(whole: &Whole) -> Result<Secrets> {
    let stored = sqlx::query_as(
        "select webhook_secret, webhook_secret_old,
                extract(epoch from webhook_secret_old_until - clock_timestamp())::float8 / 3600
           from control.contacts
          where account_id = 'acme'",
    );
    Ok(stored.fetch_one(&whole.pool).await?)
}

fn people() -> Value {
    json!({"admins": [{"id": "carl", "name": "Carl", "email": "carl@example.test"}, {"id": "dora"}],
           "users": [{"id": "ana", "email": "ana+credits@example.test"}]})
}

fn with_webhook(url: &str) -> Value {
    let mut contacts = people();
    contacts["webhook"] = json!({"url": url});
    contacts
}

/// The contacts as shown after they were sent.
fn standing(mut sent: Value) -> Value {
    sent["account_id"] = json!("acme");
    if sent.get("webhook").is_none() {
        sent["webhook"] = Value::Null;
    }
    sent
}

async fn expect_standing(operator: &Caller, sent: Value) -> Result<()> {
    let shown = operator.get(CONTACTS).await?;
    ensure!(shown.expect(200)?.body == standing(sent), "{}", shown.text);
    Ok(())
}

/// Returns the secret that an answer shows, if any.
fn secret(answer: &Answer) -> Result<Option<String>> {
    answer.expect(200)?;
    Ok(answer.body["webhook"]["secret"].as_str().map(str::to_owned))
}

async fn rotate_of(caller: &Caller, account: &str) -> Result<Answer> {
    let path = format!("/v1/accounts/{account}/contacts/webhook-secret");
    caller.send(caller.request(Method::POST, &path)).await
}

async fn rotate(caller: &Caller) -> Result<Answer> {
    rotate_of(caller, "acme").await
}

#[tokio::test]
async fn contacts_stand_until_others_are_put() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    open(&operator, "beta", "10").await?;
    expect_standing(&operator, json!({"admins": [], "users": []})).await?;
    people_are_replaced_whole(&operator).await?;
    a_webhook_keeps_its_secret_wherever_it_moves(&whole).await?;
    a_rotated_secret_signs_along_for_a_day(&whole).await?;
    a_removed_webhook_leaves_no_secret(&whole).await?;
    nothing_of_them_is_in_the_journal(&whole).await?;
    a_person_is_erased_for_good(&whole).await?;
    let beta = operator.get("/v1/accounts/beta/contacts").await?;
    ensure!(beta.expect(200)?.body["admins"] == json!([]), "another account's contacts: {}", beta.text);
    whole.replay_and_stop().await
}

async fn people_are_replaced_whole(operator: &Caller) -> Result<()> {
    let put = operator.put(CONTACTS, people()).await?;
    ensure!(put.expect(200)?.body == standing(people()), "{}", put.text);
    expect_same(&put, &operator.put(CONTACTS, people()).await?)?;
    expect_standing(operator, people()).await?;
    // An address can be erased: one that is left out or null is deleted.
    operator
        .put(CONTACTS, json!({"admins": null, "users": [{"id": "ana", "email": null}]}))
        .await?
        .expect(200)?;
    expect_standing(operator, json!({"admins": [], "users": [{"id": "ana"}]})).await
}

async fn a_webhook_keeps_its_secret_wherever_it_moves(whole: &Whole) -> Result<()> {
    let operator = whole.operator();
    let (here, there) = ("https://hooks.example.test/ledger?team=1", "http://127.0.0.1:9999/other");
    rotate(&operator).await?.expect_problem(404, "webhook_unknown")?;
    let first = secret(&operator.put(CONTACTS, with_webhook(here)).await?)?.context("a first secret")?;
    ensure!(first.strip_prefix("whsec_").is_some_and(|bytes| bytes.len() == 44), "{first}");
    ensure!(secrets(whole).await? == (Some(first.clone()), None, None));
    for url in [here, there] {
        ensure!(secret(&operator.put(CONTACTS, with_webhook(url)).await?)?.is_none(), "shown again");
        expect_standing(&operator, with_webhook(url)).await?;
    }
    ensure!(secrets(whole).await? == (Some(first), None, None));
    Ok(())
}

async fn a_rotated_secret_signs_along_for_a_day(whole: &Whole) -> Result<()> {
    let operator = whole.operator();
    let before = secrets(whole).await?.0;
    let rotated = rotate(&operator).await?;
    let second = secret(&rotated)?;
    ensure!(second.is_some() && second != before, "{}", rotated.text);
    let (now, old, hours) = secrets(whole).await?;
    ensure!(now == second && old == before, "the one before signs along");
    ensure!(hours.is_some_and(|hours| (23.9..=24.0).contains(&hours)), "{hours:?}");
    let url = rotated.body["webhook"]["url"].as_str().context("a url")?;
    expect_standing(&operator, with_webhook(url)).await?;
    // A new URL changes neither.
    operator.put(CONTACTS, with_webhook("https://moved.example.test")).await?.expect(200)?;
    let kept = secrets(whole).await?;
    ensure!((kept.0, kept.1) == (now, old));
    // After another rotation, the first one has ended.
    let third = secret(&rotate(&operator).await?)?;
    let (now, old, _) = secrets(whole).await?;
    ensure!(now == third && old == second && third != second);
    Ok(())
}

async fn a_removed_webhook_leaves_no_secret(whole: &Whole) -> Result<()> {
    let operator = whole.operator();
    let before = secrets(whole).await?.0;
    operator.put(CONTACTS, people()).await?.expect(200)?;
    expect_standing(&operator, people()).await?;
    ensure!(secrets(whole).await? == (None, None, None));
    rotate(&operator).await?.expect_problem(404, "webhook_unknown")?;
    let anew = secret(&operator.put(CONTACTS, with_webhook("https://moved.example.test")).await?)?;
    ensure!(anew.is_some() && anew != before, "set anew it has another secret");
    Ok(())
}

async fn nothing_of_them_is_in_the_journal(whole: &Whole) -> Result<()> {
    let operator = whole.operator();
    let mut journal = String::new();
    for end in whole.ends().await? {
        let answer = operator.get(&format!("/v1/audit/events?partition={}", end.partition)).await?;
        journal += &answer.expect(200)?.text;
    }
    ensure!(journal.contains("acme"), "the journal was read");
    for secret in ["example.test", "carl", "whsec_"] {
        ensure!(!journal.contains(secret), "{secret} is in the journal");
    }
    Ok(())
}

async fn a_person_is_erased_for_good(whole: &Whole) -> Result<()> {
    let operator = whole.operator();
    let mut contacts = people();
    contacts["users"] = json!([{"id": "dora", "email": "Dora@example.test"}, {"id": "ana"}]);
    operator.put(CONTACTS, contacts).await?.expect(200)?;
    for who in ["dora@example.test", "other@example.test"] {
        operator.post("/v1/accounts/acme/referrals", json!({"email": who})).await?.expect(201)?;
    }
    let erase = async || operator.post("/v1/accounts/acme/erase-person", json!({"id": "dora"})).await;
    let erased = erase().await?;
    ensure!(erased.expect(200)?.body["contacts"] == 1 && erased.body["invitations"] == 1, "{}", erased.text);
    let said = (erased.body["notifications"].clone(), erase().await?.body["contacts"].clone());
    ensure!(said == (json!(1), json!(0)), "{said:?}");
    let left: Vec<String> = sqlx::query_scalar(
        "select row_to_json(one)::text from (select admins, users from control.contacts) as one
         union all select row_to_json(one)::text from control.invitation as one
         union all select row_to_json(one)::text from delivery.notification as one",
    )
    .fetch_all(&whole.pool)
    .await?;
    let left = left.concat().to_lowercase();
    ensure!(!left.contains("dora") && left.contains("other@example.test") && left.contains("carl"), "{left}");
    Ok(())
}

#[tokio::test]
async fn what_is_no_contact_is_refused_and_nothing_is_stored() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    operator.put(CONTACTS, people()).await?.expect(200)?;
    every_bad_field_is_named(&operator).await?;
    for caller in [
        operator.put("/v1/accounts/nobody/contacts", people()).await?,
        operator.get("/v1/accounts/nobody/contacts").await?,
        rotate_of(&operator, "nobody").await?,
    ] {
        caller.expect_problem(404, "account_not_found")?;
    }
    expect_standing(&operator, people()).await?;
    let rows: i64 =
        sqlx::query_scalar("select count(*) from control.contacts").fetch_one(&whole.pool).await?;
    ensure!(rows == 1, "{rows} accounts have contacts");
    whole.replay_and_stop().await
}

async fn every_bad_field_is_named(operator: &Caller) -> Result<()> {
    let url = |url: &str| json!({"webhook": {"url": url}});
    let crowd: Vec<Value> = (0..5_001).map(|n| json!({"id": format!("u{n}")})).collect();
    for (body, fields) in [
        (
            json!({"admins": [{"id": "carl", "email": "carl"}, {"id": "carl"}, {"id": " no id"}]}),
            &["admins.0.email not_an_email", "admins.1.id duplicate", "admins.2.id bad_id"][..],
        ),
        (
            json!({"admins": [{"id": "carl", "email": "carl"}, {"id": "carl"}], "users": [{"id": "ana", "email": "a@b, c@d"}]}),
            &["admins.0.email not_an_email", "admins.1.id duplicate", "users.0.email not_an_email"],
        ),
        (
            json!({"team": [], "admins": [{"phone": "1"}]}),
            &["admins.0.id required", "admins.0.phone unknown_field", "team unknown_field"],
        ),
        (json!({"users": "all"}), &["users wrong_type"]),
        (json!({"users": crowd}), &["users too_many"]),
        (json!({"admins": [{"id": "carl", "name": "a\u{0}b"}]}), &["admins.0.name too_long"]),
        (json!({"webhook": {}}), &["webhook.url required"]),
        (json!({"webhook": {"url": "https://a.test", "secret": "mine"}}), &["webhook.secret unknown_field"]),
        (url("hooks.example.test"), &["webhook.url not_a_url"]),
        (url("ftp://example.test"), &["webhook.url not_a_url"]),
        (url("https://me:secret@example.test"), &["webhook.url not_a_url"]),
        (url("https://example.test/\u{0}"), &["webhook.url not_a_url"]),
        (url(&format!("https://example.test/{}", "x".repeat(2_048))), &["webhook.url not_a_url"]),
    ] {
        operator.put(CONTACTS, body).await?.expect_fields(fields)?;
    }
    Ok(())
}
