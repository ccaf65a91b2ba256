//! Progress of what takes longer than 2 s: a bar in a terminal, a line in the log now and then elsewhere.

use std::io::IsTerminal;
use std::pin::pin;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::sleep;
use tracing::info;

/// How long work runs before its progress is shown.
const SHOWN_AFTER: Duration = Duration::from_secs(2);
/// How often work that counts elsewhere is asked how far it is.
const ASKED_EVERY: Duration = Duration::from_millis(500);
const LOGGED_EVERY: Duration = Duration::from_secs(15);

/// How many of a known number of records are done.
pub struct Progress {
    what: &'static str,
    total: u64,
    began: Instant,
    bar: Option<ProgressBar>,
    logged: Instant,
    in_terminal: bool,
}

impl Progress {
    /// Starts at none of `total` records. Writes to standard error.
    pub fn start(what: &'static str, total: u64) -> Progress {
        let now = Instant::now();
        Progress {
            what,
            total,
            began: now,
            bar: None,
            logged: now,
            in_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Sets how many are done.
    pub fn set(&mut self, done: u64) {
        if self.began.elapsed() < SHOWN_AFTER {
            return;
        }
        if self.in_terminal {
            self.bar.get_or_insert_with(|| bar(self.what, self.total)).set_position(done);
        } else if self.logged.elapsed() >= LOGGED_EVERY {
            self.logged = Instant::now();
            info!(done, total = self.total, "{}", self.what);
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let look = "{msg} {bar:40} {human_pos} of {human_len} records, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(look) {
        bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
    }
    bar.set_message(what);
    bar
}

/// Runs `work` and shows its progress, which `done` reads; none if it can't be read now.
pub async fn watched<T>(
    mut progress: Progress,
    done: impl AsyncFn() -> Option<u64>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    loop {
        let asked = async {
            sleep(ASKED_EVERY).await;
            done().await
        };
        tokio::select! {
            finished = &mut work => {
                progress.finish();
                return finished;
            }
            Some(done) = asked => progress.set(done),
            else => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_goes_on_while_its_progress_is_read_and_when_it_can_not_be() {
        for known in [Some(1), None] {
            let asked = std::cell::Cell::new(0);
            let done = async || {
                asked.set(asked.get() + 1);
                known
            };
            let work = async {
                sleep(ASKED_EVERY * 3).await;
                7
            };
            assert_eq!(watched(Progress::start("folding", 2), done, work).await, 7);
            assert!(asked.get() >= 1, "asked {} times", asked.get());
        }
    }
}
