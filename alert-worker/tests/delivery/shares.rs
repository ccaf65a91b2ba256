//! Shares: a receiver that accepts and never answers, and thousands of firings for it, hold nobody else up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alert_worker::delivery::OutboxRow;
use anyhow::{Context, Result, ensure};
use ledger_core::event::Channel;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::fixture::{Fixture, alert, soon};
use crate::receiver::Receiver;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const HOOK: &[Channel] = &[Channel::Webhook];
/// Calls of one account, and of one target, that a worker has under way at most.
const SHARE: usize = 16;
const FIRINGS: usize = 500;
/// Far less than a call may take.
const IN_TIME: Duration = Duration::from_secs(10);

/// Accepts connections, keeps them and answers nothing; returns its URL and how many it has accepted.
async fn tarpit() -> Result<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/hook", listener.local_addr()?);
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&accepted);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            kept.push(stream);
        }
    });
    Ok((url, accepted))
}

fn many(account: &str) -> Vec<OutboxRow> {
    (0..FIRINGS).map(|_| alert(account, HOOK)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_never_answers_holds_up_nobody_else() -> Result<()> {
    let (fixture, receiver) = (Fixture::new().await?, Receiver::start([]).await?);
    let (url, accepted) = tarpit().await?;
    for account in ["noisy", "accomplice"] {
        fixture.set_webhook(account, &url, SECRET).await?;
        fixture.fire(&many(account)).await?;
    }
    fixture.set_webhook("acme", &receiver.url(), SECRET).await?;
    let worker = fixture.work(soon(""));
    let filled = async {
        while accepted.load(Ordering::Relaxed) < SHARE {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(IN_TIME, filled).await.context("the share is not used")?;
    // By now the front of the line is theirs alone.
    fixture.fire(&[alert("acme", HOOK)]).await?;
    let calls = timeout(IN_TIME, receiver.wait_for(1)).await.context("held up")??;
    ensure!(calls.len() == 1, "{calls:?}");
    ensure!(accepted.load(Ordering::Relaxed) <= SHARE, "{accepted:?} calls of one target");
    worker.stop().await
}
