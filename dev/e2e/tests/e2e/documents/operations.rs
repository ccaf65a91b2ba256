//! `docs/operations.md` lists exactly the settings and the metrics that there are.

use std::collections::BTreeSet;
use std::process::Command;

use super::{files, text};

/// Every command with settings of its own.
const COMMANDS: [&[&str]; 9] = [
    &["up"],
    &["demo"],
    &["serve", "command-api"],
    &["serve", "projector"],
    &["serve", "alert-worker"],
    &["serve", "query-api"],
    &["migrate"],
    &["rebuild"],
    &["explain"],
];
/// Read before there are flags.
const WITHOUT_FLAG: [&str; 2] = ["RUST_LOG", "LEDGER_LOG_FORMAT"];
const SOURCES: [&str; 9] = [
    "lib/engine/src",
    "lib/payments/src",
    "lib/contacts/src",
    "lib/platform/src",
    "lib/web/src",
    "command-api/src",
    "projector/src",
    "alert-worker/src",
    "query-api/src",
];
/// Logins to Postgres have names like metrics.
const ROLES: [&str; 4] =
    ["ledger_command_api", "ledger_projector", "ledger_alert_worker", "ledger_query_api"];

fn settings() -> BTreeSet<String> {
    let mut settings: BTreeSet<String> = WITHOUT_FLAG.map(str::to_owned).into();
    for command in COMMANDS {
        let output = Command::new(e2e::program()).args(command).arg("--help").output().expect("the program");
        let help = String::from_utf8(output.stdout).expect("text");
        let names = help.split("[env: ").skip(1).filter_map(|rest| rest.split([']', '=']).next());
        settings.extend(names.map(str::to_owned));
    }
    settings
}

fn metrics() -> BTreeSet<String> {
    let mut metrics = BTreeSet::new();
    for path in SOURCES.iter().flat_map(|folder| files(folder, "rs")) {
        let source = text(&path);
        for maker in ["counter!(", "gauge!(", "histogram!("] {
            let names = source.split(maker).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
            metrics.extend(names.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        }
    }
    metrics.retain(|name| !name.starts_with("ledger_test_"));
    metrics
}

/// Returns the names of a form in the document's code.
fn listed(document: &str, is_name: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let codes = document.split('`').skip(1).step_by(2);
    let names = codes.map(|code| code.split(['{', ' ', '=']).next().unwrap_or_default());
    names.filter(|name| is_name(name)).map(str::to_owned).collect()
}

#[test]
fn every_setting_is_listed_and_every_listed_one_exists() {
    let document = text("docs/operations.md");
    let is_setting = |name: &str| {
        let begins =
            ["LEDGER_", "KAFKA_", "DATABASE_", "RUST_"].iter().any(|prefix| name.starts_with(prefix));
        begins && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let settings = settings();
    assert!(settings.len() > 40, "few settings: {settings:?}");
    assert_eq!(listed(&document, is_setting), settings);
}

#[test]
fn every_metric_is_listed_and_every_listed_one_exists() {
    let is_metric = |name: &str| name.starts_with("ledger_") && !ROLES.contains(&name);
    let metrics = metrics();
    assert!(metrics.len() > 30, "few metrics: {metrics:?}");
    assert_eq!(listed(&text("docs/operations.md"), is_metric), metrics);
}
