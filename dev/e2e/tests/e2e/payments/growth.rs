//! Promotional grants: each once, under retries and races.

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use serde_json::{Value, json};

use e2e::{Caller, Whole};

const BONUSES: [&str; 4] = ["--welcome-bonus", "1000", "--referral-bonus", "50"];

async fn open(caller: &Caller, id: &str, more: Value) -> Result<e2e::Answer> {
    let mut body = json!({"account_id": id, "plan": {"cycle": "monthly", "allowance": "0"}});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    caller.post("/v1/accounts", body).await
}

/// The account's grants, oldest first: `welcome:acme 1000`.
async fn grants(caller: &Caller, account: &str) -> Result<Vec<String>> {
    let found = caller.get(&format!("/v1/accounts/{account}/grants?limit=100")).await?;
    let items = found.expect(200)?.body["items"].as_array().context("items")?.clone();
    let summary = |item: &Value| {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("grant_id"), text("amount"))
    };
    let mut all: Vec<String> =
        items.iter().map(summary).filter(|grant| !grant.starts_with("plan:")).collect();
    all.reverse();
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_account_gets_its_bonuses_with_its_opening_and_once() -> Result<()> {
    let whole = Whole::start_with(&BONUSES).await?;
    let operator = whole.operator();
    let spring = json!({"code": "SPRING", "amount": "500", "max_redemptions": 3});
    operator.post("/v1/promo-codes", spring.clone()).await?.expect(201)?;
    operator.post("/v1/promo-codes", spring).await?.expect(201)?;
    let other = json!({"code": "SPRING", "amount": "501"});
    operator.post("/v1/promo-codes", other).await?.expect_problem(409, "conflict")?;
    operator
        .post("/v1/promo-codes", json!({"code": "A", "amount": "0", "max_redemptions": 0}))
        .await?
        .expect_fields(&["amount not_positive", "max_redemptions out_of_range"])?;

    open(&operator, "host", json!({})).await?.expect(200)?;
    ensure!(grants(&operator, "host").await? == ["welcome:host 1000"]);
    let both = json!({"promo_code": "SPRING", "referred_by": "host"});
    let first = open(&operator, "guest", both.clone()).await?;
    first.expect(200)?;
    let expected = ["welcome:guest 1000", "promo:SPRING 500", "referral:guest:joined 50"];
    ensure!(grants(&operator, "guest").await? == expected, "{:?}", grants(&operator, "guest").await?);
    let again = open(&operator, "guest", both).await?;
    ensure!(again.expect(200)?.body["event_id"] == first.body["event_id"], "the first answer again");
    open(&operator, "guest", json!({})).await?.expect_problem(409, "conflict")?;
    // A code redeemed at the opening counts: a repeat gets that answer.
    let again = operator.post("/v1/accounts/guest/redemptions", json!({"code": "SPRING"})).await?;
    ensure!(again.expect(200)?.body["event_id"] == "promo:SPRING", "{}", again.text);
    ensure!(grants(&operator, "guest").await? == expected);
    ensure!(grants(&operator, "host").await? == ["welcome:host 1000", "referral:guest 50"]);

    open(&operator, "x", json!({"promo_code": "NONE"})).await?.expect_problem(404, "promo_code_unknown")?;
    open(&operator, "x", json!({"referred_by": "nobody"})).await?.expect_fields(&["referred_by unknown"])?;
    open(&operator, "x", json!({"referred_by": "x"})).await?.expect_fields(&["referred_by unknown"])?;
    open(&operator, "x", json!({})).await?.expect(200)?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promo_code_is_redeemed_once_by_each_account_and_as_often_as_it_says() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    for number in 0..6 {
        open(&operator, &format!("acct-{number}"), json!({})).await?.expect(200)?;
    }
    let codes = [
        json!({"code": "RACE", "amount": "5", "max_redemptions": 3}),
        json!({"code": "OVER", "amount": "5", "valid_until": "2026-01-01T00:00:00Z"}),
        json!({"code": "SOON", "amount": "5", "valid_from": "2999-01-01T00:00:00Z"}),
    ];
    for code in codes {
        operator.post("/v1/promo-codes", code).await?.expect(201)?;
    }
    let redeem = async |number: usize, code: &str| {
        let path = format!("/v1/accounts/acct-{number}/redemptions");
        operator.post(&path, json!({"code": code})).await
    };
    // Six accounts, each twice at once, race for three uses.
    let racing = (0..12).map(|number| redeem(number % 6, "RACE"));
    let mut won = [0; 6];
    for (number, answer) in join_all(racing).await.into_iter().enumerate() {
        let answer = answer?;
        match answer.status {
            200 => won[number % 6] += 1,
            _ => drop(answer.expect_problem(422, "promo_code_used_up")?),
        }
    }
    ensure!(won.iter().filter(|answers| **answers == 2).count() == 3, "{won:?}");
    ensure!(won.iter().all(|answers| answers % 2 == 0), "a repeat gets the first answer: {won:?}");
    for (number, answers) in won.into_iter().enumerate() {
        let expected: &[&str] = if answers > 0 { &["promo:RACE 5"] } else { &[] };
        ensure!(grants(&operator, &format!("acct-{number}")).await? == expected);
    }
    redeem(0, "OVER").await?.expect_problem(422, "promo_code_expired")?;
    redeem(0, "SOON").await?.expect_problem(422, "promo_code_not_yet_valid")?;
    redeem(0, "NONE").await?.expect_problem(404, "promo_code_unknown")?;
    let admin = whole.keyed("admin", &["acct-0"], None).await?;
    admin
        .post("/v1/promo-codes", json!({"code": "B", "amount": "1"}))
        .await?
        .expect_problem(403, "forbidden")?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_a_referral_are_rewarded_and_the_referrer_for_the_first_ten() -> Result<()> {
    let whole = Whole::start_with(&BONUSES).await?;
    let operator = whole.operator();
    open(&operator, "host", json!({})).await?.expect(200)?;
    let invite = async |email: &str| {
        let answer = operator.post("/v1/accounts/host/referrals", json!({"email": email})).await?;
        Ok::<_, anyhow::Error>(answer.expect(201)?.body["code"].as_str().context("a code")?.to_owned())
    };
    let code = invite("Bo@example.test").await?;
    ensure!(invite("bo@EXAMPLE.test").await? == code && invite("cy@example.test").await? != code);
    operator
        .post("/v1/accounts/host/referrals", json!({"email": "bo"}))
        .await?
        .expect_fields(&["email not_an_email"])?;
    open(&operator, "bo", json!({"referred_by": code})).await?.expect(200)?;
    ensure!(grants(&operator, "bo").await? == ["welcome:bo 1000", "referral:bo:joined 50"]);
    // Eleven at once, by the account's id; nine of them are still rewarded.
    let names: Vec<String> = (0..11).map(|number| format!("guest-{number}")).collect();
    let opening = names.iter().map(|name| open(&operator, name, json!({"referred_by": "host"})));
    for answer in join_all(opening).await {
        answer?.expect(200)?;
    }
    for name in &names {
        let expected = [format!("welcome:{name} 1000"), format!("referral:{name}:joined 50")];
        ensure!(grants(&operator, name).await? == expected);
    }
    whole.all_projected().await?;
    let rewards = grants(&operator, "host").await?;
    ensure!(
        rewards.len() == 11 && rewards[0] == "welcome:host 1000" && rewards[1] == "referral:bo 50",
        "{rewards:?}"
    );
    let stats = operator.get("/v1/accounts/host/referrals").await?;
    let stats = &stats.expect(200)?.body;
    let shown = (&stats["invited"], &stats["accepted"], &stats["rewarded"], &stats["credits_earned"]);
    ensure!(shown == (&json!(13), &json!(12), &json!(10), &json!("500")), "{stats}");
    let mails: i64 =
        sqlx::query_scalar("select count(*) from delivery.notification where kind = 'referral_invitation'")
            .fetch_one(&whole.pool)
            .await?;
    ensure!(mails == 2, "{mails} mails for two people");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn checkouts_redemptions_and_invitations_are_an_admins_for_their_own_accounts_alone() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", json!({"usd_per_unit": "0.01"})).await?.expect(200)?;
    open(&operator, "beta", json!({})).await?.expect(200)?;
    operator.post("/v1/promo-codes", json!({"code": "SPRING", "amount": "5"})).await?.expect(201)?;
    let writes = [
        ("checkout", json!({"amount": "50"}), 201),
        ("redemptions", json!({"code": "SPRING"}), 200),
        ("referrals", json!({"email": "bo@example.test"}), 201),
    ];
    let others = [
        whole.keyed("admin", &["beta"], None).await?,
        whole.keyed("producer", &["acme"], None).await?,
        whole.keyed("member", &["acme"], Some("ana")).await?,
        whole.keyed("auditor", &[], None).await?,
    ];
    let admin = whole.keyed("admin", &["acme"], None).await?;
    for (what, body, status) in writes {
        let path = format!("/v1/accounts/acme/{what}");
        for other in &others {
            other.post(&path, body.clone()).await?.expect_problem(403, "forbidden")?;
        }
        admin.post(&path, body).await?.expect(status)?;
    }
    let [elsewhere, producer, member, auditor] = &others;
    for other in [elsewhere, producer, member] {
        other.get("/v1/accounts/acme/referrals").await?.expect_problem(403, "forbidden")?;
    }
    for reader in [&admin, auditor] {
        let stats = reader.get("/v1/accounts/acme/referrals").await?;
        ensure!(stats.expect(200)?.body["invited"] == 1, "{}", stats.text);
    }
    ensure!(grants(&operator, "acme").await? == ["promo:SPRING 5"], "redeemed by the admin alone");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promo_code_begins_and_ends_by_the_clock_of_the_account() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    let codes = [
        json!({"code": "WINTER", "amount": "5", "valid_until": "2026-01-06T00:00:00Z", "expires_at": "2026-02-01T00:00:00Z"}),
        json!({"code": "GONE", "amount": "5", "expires_at": "2026-01-05T00:00:00Z"}),
        json!({"code": "LATER", "amount": "7", "valid_from": "2026-01-06T00:00:00Z"}),
    ];
    for code in codes {
        operator.post("/v1/promo-codes", code).await?.expect(201)?;
    }
    let (early, late) =
        (super::Account::open(&whole, "early").await?, super::Account::open(&whole, "late").await?);
    let redeem = async |account: &str, code: &str| {
        operator.post(&format!("/v1/accounts/{account}/redemptions"), json!({"code": code})).await
    };
    // Both accounts are at 5 January 2026, whatever the real date.
    let first = redeem("early", "WINTER").await?;
    first.expect(200)?;
    let lots = early.read("grants").await?;
    let found = lots["items"].as_array().into_iter().flatten().find(|lot| lot["grant_id"] == "promo:WINTER");
    ensure!(found.is_some_and(|lot| lot["expires_at"] == "2026-02-01T00:00:00Z"), "{lots}");
    redeem("early", "GONE").await?.expect_problem(422, "promo_code_expired")?;
    redeem("late", "LATER").await?.expect_problem(422, "promo_code_not_yet_valid")?;
    late.advance("2026-01-06T00:00:00Z").await?;
    redeem("late", "WINTER").await?.expect_problem(422, "promo_code_expired")?;
    redeem("late", "LATER").await?.expect(200)?;
    ensure!(late.figure("settled").await? == "7" && early.figure("settled").await? == "5");
    // Its credits expire with it; a repeated redemption gets the first answer.
    early.advance("2026-02-01T00:00:00Z").await?;
    ensure!(early.figure("settled").await? == "0");
    let again = redeem("early", "WINTER").await?;
    ensure!(again.expect(200)?.body["position"] == first.body["position"], "{}", again.text);
    ensure!(early.figure("settled").await? == "0");
    whole.replay_and_stop().await
}
