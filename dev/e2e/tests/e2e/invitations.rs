//! Invitations: each mailed once to the invited person, also where the mail server is down at first.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::redelivery::redelivered_in;
use crate::server::{MailServer, Mood};
use e2e::{Caller, Whole};

/// Longer than anything here takes.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// Many polls of a worker: a second mail would have come by then.
const A_WHILE: Duration = Duration::from_millis(500);

async fn host(server: &MailServer) -> Result<(Whole, Caller)> {
    let url = server.url();
    let soon =
        ["--delivery-interval-ms", "20", "--delivery-first-backoff-ms", "50", "--delivery-attempts", "2"];
    let whole = Whole::start_with(&[&["--smtp-url", &url][..], &soon].concat()).await?;
    let operator = whole.operator();
    let host = json!({"account_id": "host", "plan": {"cycle": "monthly", "allowance": "0"}});
    operator.post("/v1/accounts", host).await?.expect(200)?;
    Ok((whole, operator))
}

async fn invite(operator: &Caller, email: &str) -> Result<String> {
    let answer = operator.post("/v1/accounts/host/referrals", json!({"email": email})).await?;
    Ok(answer.expect(201)?.body["code"].as_str().context("a code")?.to_owned())
}

/// Waits until the mail of a code has this status.
async fn stands(whole: &Whole, code: &str, status: &str) -> Result<()> {
    let end = Instant::now() + WAIT_MAX;
    loop {
        let query = "select status from delivery.notification where recipient = $1";
        let found: String = sqlx::query_scalar(query).bind(code).fetch_one(&whole.pool).await?;
        if found == status {
            return Ok(());
        }
        ensure!(Instant::now() < end, "the mail of {code} is {found}, not {status}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_invited_gets_one_mail_with_the_code() -> Result<()> {
    let server = MailServer::start(Mood::Take).await?;
    let (whole, operator) = host(&server).await?;
    let code = invite(&operator, "bo@example.test").await?;
    ensure!(invite(&operator, "BO@example.test").await? == code, "the same code again");
    stands(&whole, &code, "delivered").await?;
    let other = invite(&operator, "cy@example.test").await?;
    stands(&whole, &other, "delivered").await?;
    sleep(A_WHILE).await;
    let mails = server.mails();
    let to: Vec<&str> = mails.iter().map(|mail| mail.to.as_str()).collect();
    ensure!(to == ["bo@example.test", "cy@example.test"], "{to:?}");
    for (mail, code) in mails.iter().zip([&code, &other]) {
        ensure!(mail.header("Subject") == Some("host invites you"), "{}", mail.data);
        ensure!(mail.data.contains(code.as_str()), "{code} is not in {}", mail.data);
    }
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_that_was_parked_goes_out_again_on_demand() -> Result<()> {
    let mut server = MailServer::start(Mood::Take).await?;
    let (whole, operator) = host(&server).await?;
    server.go_down().await;
    let code = invite(&operator, "bo@example.test").await?;
    stands(&whole, &code, "parked").await?;
    server.come_up().await?;
    let said = redelivered_in(&whole.database_url, &["--account", "host"]).await?;
    ensure!(said.contains("1 notification goes out again, 0 can't"), "{said}");
    stands(&whole, &code, "delivered").await?;
    let mails = server.wait_for(1).await?;
    ensure!(mails[0].to == "bo@example.test" && mails[0].data.contains(&code), "{mails:?}");
    whole.replay_and_stop().await
}
