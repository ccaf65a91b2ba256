//! Telemetry: log lines and the metrics recorder, set up once per process.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Upper bounds of histogram buckets, in seconds: from a local read to the longest wait.
const LATENCY_BUCKETS_SECONDS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Starts logging to standard error: lines for people, or JSON where `LEDGER_LOG_FORMAT=json`.
///
/// `RUST_LOG` says what is logged, `info` by default. A second call in one process does nothing.
pub fn init() {
    init_with("info");
}

/// Starts logging as `init` does, with another default.
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
    // Fails only where a subscriber stands already: tests and embedders keep theirs.
    drop(started);
}

/// Returns the process's metrics, installing the recorder at the first call.
pub fn metrics() -> Result<&'static PrometheusHandle, &'static BuildError> {
    static RECORDER: OnceLock<Result<PrometheusHandle, BuildError>> = OnceLock::new();
    RECORDER
        .get_or_init(|| PrometheusBuilder::new().set_buckets(&LATENCY_BUCKETS_SECONDS)?.install_recorder())
        .as_ref()
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
}
