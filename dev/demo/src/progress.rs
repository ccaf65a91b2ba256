//! Progress: a bar in a terminal, a line now and then elsewhere.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use crate::tables::counted;

/// Lines that are written without a terminal.
const LINES: usize = 5;

/// How much of the demo's events is sent.
pub enum Progress {
    Bar(ProgressBar),
    Lines(Lines),
}

/// Events so far, and in all.
#[derive(Debug)]
pub struct Lines {
    done: AtomicUsize,
    total: usize,
}

impl Progress {
    /// Starts at none of `total` events.
    pub fn start(total: usize, terminal: bool) -> Progress {
        if !terminal {
            return Progress::Lines(Lines { done: AtomicUsize::new(0), total });
        }
        let bar = ProgressBar::new(total as u64);
        let look = "  {bar:40} {human_pos:>6} of {human_len} events";
        if let Ok(style) = ProgressStyle::with_template(look) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        Progress::Bar(bar)
    }

    pub fn add(&self, events: usize) {
        match self {
            Progress::Bar(bar) => bar.inc(events as u64),
            Progress::Lines(lines) => {
                if let Some(line) = lines.add(events) {
                    let _ = writeln!(std::io::stderr(), "{line}");
                }
            }
        }
    }

    /// Leaves the bar as it is.
    pub fn finish(&self) {
        if let Progress::Bar(bar) = self {
            bar.finish();
        }
    }
}

impl Lines {
    /// Returns a line when another part is done.
    fn add(&self, events: usize) -> Option<String> {
        let before = self.done.fetch_add(events, Ordering::Relaxed);
        let done = before + events;
        let parts = |count: usize| count * LINES / self.total.max(1);
        (parts(done) > parts(before)).then(|| {
            let percent = done * 100 / self.total.max(1);
            format!("  {percent:>3} %: {} of {} events sent", counted(done), counted(self.total))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_appears_at_each_fifth_and_never_more() {
        let lines = Lines { done: AtomicUsize::new(0), total: 1_000 };
        let shown: Vec<String> = (0..100).filter_map(|_| lines.add(10)).collect();
        assert_eq!(shown.len(), LINES);
        assert_eq!(shown[0], "   20 %: 200 of 1,000 events sent");
        assert_eq!(shown[4], "  100 %: 1,000 of 1,000 events sent");
    }
}
