//! Redelivery: a parked notification stays parked until `ledger redeliver` sends it again.

use std::collections::BTreeSet;
use std::time::Duration;

use alert_worker::delivery::DeliveryConfig;
use anyhow::Result;
use clap::Parser;
use ledger::redeliver::{self, Redeliver};
use ledger_core::event::{Channel, Recipients};
use tokio::time::sleep;

use crate::fixture::{Fixture, alert, id, soon};
use crate::server::{MailServer, Mood};

/// Many polls of a worker: a second mail would have come by then.
const A_WHILE: Duration = Duration::from_millis(500);

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    asked: Redeliver,
}

async fn redelivered(fixture: &Fixture, arguments: &[&str]) -> Result<String> {
    redelivered_in(&fixture.space.database_url, arguments).await
}

/// Runs `ledger redeliver` and returns its output.
pub async fn redelivered_in(database_url: &str, arguments: &[&str]) -> Result<String> {
    let given = ["redeliver", "--database-url", database_url];
    let asked = Arguments::try_parse_from(given.iter().chain(arguments))?.asked;
    let mut said = Vec::new();
    redeliver::run(&asked, &mut said).await?;
    Ok(String::from_utf8(said)?)
}

/// Fault 33.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_waits_for_a_server_that_is_down_is_parked_and_goes_out_again_on_demand() -> Result<()> {
    let (fixture, mut server) = (Fixture::new().await?, MailServer::start(Mood::Take).await?);
    server.go_down().await;
    fixture.set_admins("acme", &[("carl", "carl@example.test")]).await?;
    // Long enough for a test that stalls to see it between two attempts.
    let patient = DeliveryConfig { delivery_first_backoff_ms: 2_000, ..soon(&server.url()) };
    let worker = fixture.work(patient);
    fixture.fire(&[alert("acme", &[Channel::Email])]).await?;
    fixture.one(|one| one.status == "pending" && one.attempts > 0 && !one.error.is_empty()).await?;
    let parked = fixture.one(|one| one.status == "parked").await?;
    assert_eq!((parked.attempts, parked.is_sent), (3, false));
    assert!(parked.error.contains("Connection error"), "{}", parked.error);

    server.come_up().await?;
    sleep(A_WHILE).await;
    assert_eq!(server.mails().len(), 0, "what is parked stays so by itself");
    assert!(
        redelivered(&fixture, &["--account", "beta"])
            .await?
            .contains("0 notifications go out again, 0 can't")
    );
    let said = redelivered(&fixture, &["--account", "acme"]).await?;
    assert!(said.contains(&format!("{}: email to carl of acme goes out again", parked.id)), "{said}");
    assert!(said.contains("1 notification goes out again, 0 can't"), "{said}");
    let delivered = fixture.one(|one| one.status == "delivered").await?;
    let message_id = format!("<{}@example.test>", parked.id);
    assert_eq!((delivered.id, delivered.attempts), (parked.id, 1));
    assert_eq!(server.mails()[0].header("Message-ID"), Some(message_id.as_str()));
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_go_out_is_parked_with_the_reason_until_somebody_mends_it() -> Result<()> {
    let (fixture, server) = (Fixture::new().await?, MailServer::start(Mood::Take).await?);
    fixture.set_admins("acme", &[("carl", "carl@example.test"), ("dora", "")]).await?;
    let worker = fixture.work(soon(""));
    let mut row = alert("acme", &[Channel::Email]);
    row.firing.audience.recipients = Recipients::These(vec![id("carl"), id("dora"), id("zoe")]);
    fixture.fire(&[row]).await?;
    let parked = fixture.all(3, "parked").await?;
    let reasons: Vec<&str> = parked.iter().map(|one| one.error.as_str()).collect();
    let expected = [
        "no mail server is configured",
        "dora has no e-mail address in the contacts of the account",
        "zoe is not among the contacts of the account",
    ];
    assert_eq!(reasons, expected);
    worker.stop().await?;

    let worker = fixture.work(soon(&server.url()));
    fixture.set_admins("acme", &[("carl", "carl@new.test"), ("dora", "dora@new.test")]).await?;
    assert!(redelivered(&fixture, &["--notification", "unheard-of"]).await.is_err());
    let said = redelivered(&fixture, &["--notification", &parked[1].id]).await?;
    assert!(said.contains("1 notification goes out again, 0 can't"), "{said}");
    let said = redelivered(&fixture, &["--all-parked"]).await?;
    assert!(said.contains("zoe of acme does not go: zoe is not among the contacts of the account"), "{said}");
    server.wait_for(2).await?;
    let recipients: BTreeSet<String> = server.mails().into_iter().map(|mail| mail.to).collect();
    assert_eq!(recipients, ["carl@new.test".to_owned(), "dora@new.test".to_owned()].into());
    worker.stop().await
}
