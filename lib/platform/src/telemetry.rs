//! Sets up logging and the metrics recorder, once per process.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Upper bounds of histogram buckets, in seconds: from a local read to the longest wait.
const LATENCY_BUCKETS_SECONDS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Upper bounds of the buckets of all other histograms, which count items: from one to the largest batch.
const COUNT_BUCKETS: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0];

/// Starts logging to standard error: plain lines, or JSON with `LEDGER_LOG_FORMAT=json`.
///
/// `RUST_LOG` sets the filter, `info` by default. A second call in one process does nothing.
pub fn init() {
    init_with("info");
}

/// Starts logging as `init` does, with another default filter.
pub fn init_with(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let registry = tracing_subscriber::registry().with(filter);
    let json = std::env::var("LEDGER_LOG_FORMAT").is_ok_and(|format| format == "json");
    let started = if json {
        let lines = tracing_subscriber::fmt::layer().json().with_writer(io::stderr);
        registry.with(lines).try_init()
    } else {
        let lines =
            tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
        registry.with(lines).try_init()
    };
    // Fails only if a subscriber is already set: tests and embedders keep theirs.
    drop(started);
}

/// Returns the process's metrics, installing the recorder at the first call.
pub fn metrics() -> Result<&'static PrometheusHandle, &'static BuildError> {
    static RECORDER: OnceLock<Result<PrometheusHandle, BuildError>> = OnceLock::new();
    RECORDER.get_or_init(|| builder()?.install_recorder()).as_ref()
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    PrometheusBuilder::new()
        .set_buckets(&COUNT_BUCKETS)?
        .set_buckets_for_metric(seconds, &LATENCY_BUCKETS_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered_and_asking_twice_installs_once() {
        metrics().expect("first");
        metrics::counter!("ledger_test_total").increment(2);
        let page = metrics().expect("second").render();
        assert!(page.contains("ledger_test_total 2"), "{page}");
    }

    #[test]
    fn seconds_and_counts_have_buckets_of_their_own() {
        metrics().expect("installed");
        metrics::histogram!("ledger_test_seconds", "step" => "fold").record(0.12);
        metrics::histogram!("ledger_test_records").record(512.0);
        let page = metrics().expect("installed").render();
        for line in [
            r#"ledger_test_seconds_bucket{step="fold",le="0.1"} 0"#,
            r#"ledger_test_seconds_bucket{step="fold",le="0.15"} 1"#,
            r#"ledger_test_records_bucket{le="500"} 0"#,
            r#"ledger_test_records_bucket{le="1000"} 1"#,
            r#"ledger_test_records_bucket{le="10000"} 1"#,
        ] {
            assert!(page.lines().any(|said| said == line), "no {line} in {page}");
        }
        assert!(!page.contains(r#"ledger_test_records_bucket{le="0.1"}"#), "{page}");
    }
}
