//! SIGTERM and Ctrl-C cancel one token, which all long-running tasks watch.

use tokio::signal::unix::{SignalKind, signal};
pub use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Returns a token that the first SIGTERM or SIGINT cancels; a second one ends the process at once.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    // Owned by the process: it has nothing to finish at exit.
    tokio::spawn(async move {
        let mut asked_before = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if asked_before {
                warn!("asked twice to stop, stopping at once");
                std::process::exit(130);
            }
            asked_before = true;
            info!("stopping: draining what is under way");
            cancelled.cancel();
        }
    });
    Ok(token)
}
