//! Runs work in rounds with a pause in between, until shutdown.

use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

use crate::heartbeat::Heartbeat;
use crate::shutdown::CancellationToken;

pub trait Rounds: Send {
    /// Does one round and returns the pause before the next.
    fn round(&mut self) -> impl Future<Output = anyhow::Result<Duration>> + Send;
}

/// Runs rounds until `shutdown`.
///
/// A started round always finishes. A failed one is logged, and the next starts after `pause`. The heartbeat tells a
/// round that never ends, and rounds that only fail.
pub async fn every(
    pause: Duration,
    shutdown: &CancellationToken,
    heartbeat: &Heartbeat,
    mut rounds: impl Rounds,
) {
    while !shutdown.is_cancelled() {
        heartbeat.beat();
        let wait = match rounds.round().await {
            Ok(wait) => {
                heartbeat.rest();
                wait
            }
            Err(error) => {
                let error = format!("{error:#}");
                warn!(what = heartbeat.name(), error, "a round failed, trying again");
                heartbeat.fail(error);
                pause
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails first, has more to do then, and stops in its third round.
    struct Three<'a> {
        rounds: &'a mut usize,
        shutdown: CancellationToken,
    }

    impl Rounds for Three<'_> {
        async fn round(&mut self) -> anyhow::Result<Duration> {
            *self.rounds += 1;
            match *self.rounds {
                1 => anyhow::bail!("away"),
                2 => Ok(Duration::ZERO),
                _ => {
                    self.shutdown.cancel();
                    Ok(Duration::from_secs(3_600))
                }
            }
        }
    }

    #[tokio::test]
    async fn a_failed_round_is_repeated_and_shutdown_ends_the_pause() {
        let (shutdown, mut rounds) = (CancellationToken::new(), 0);
        let three = Three { rounds: &mut rounds, shutdown: shutdown.clone() };
        every(Duration::from_millis(1), &shutdown, &Heartbeat::new("three"), three).await;
        assert_eq!(rounds, 3);
    }
}
