//! The bounds of `docs/limits.md` are those of the code.

use ledger_core::account::alert::ORG_ALERTS_MAX;
use ledger_core::account::lot::OPEN_LOTS_MAX;
use ledger_core::fold::{CROSSINGS_MAX, RETURNS_MAX};
use ledger_core::policy::alert::backtest::HITS_MAX;
use ledger_core::request::limits::{
    JSON_DEPTH_MAX, LIMITS, METERS_MAX, TOO_NEW_SECONDS, TOO_OLD_SECONDS, TTL_SECONDS_MAX,
};
use query_api::{LIMIT_DEFAULT, LIMIT_MAX};
use web::http::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};

use super::text;

/// Writes a number as people read it: `10,000`.
fn counted(number: impl ToString) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The row that begins so must name these numbers, in this order.
fn check(document: &str, row: &str, numbers: &[String]) {
    let found = document.lines().find_map(|line| line.strip_prefix("| ")?.strip_prefix(row));
    let bound = found.unwrap_or_else(|| panic!("docs/limits.md has no row {row}"));
    let bound = bound.rsplit(" | ").next().unwrap_or_default();
    let words = bound.split(|c: char| !(c.is_ascii_digit() || c == ','));
    let words: Vec<&str> = words.map(|word| word.trim_matches(',')).filter(|word| !word.is_empty()).collect();
    assert_eq!(words, numbers, "docs/limits.md, {row}");
}

#[test]
fn every_bound_is_that_of_the_code() {
    let document = text("docs/limits.md");
    let check = |row: &str, numbers: &[String]| check(&document, row, numbers);
    check("a record, ", &[counted(RECORD_BYTES_MAX / 1024)]);
    check("a batch of usage", &["10,000".to_owned(), counted(BATCH_BYTES_MAX / 1024 / 1024)]);
    check("JSON nesting", &[counted(JSON_DEPTH_MAX)]);
    check("quantities of one usage", &[counted(LIMITS.quantities_max), counted(LIMITS.metadata_keys_max)]);
    check("age of usage", &[counted(TOO_OLD_SECONDS / 86_400), counted(TOO_NEW_SECONDS / 60)]);
    check("meters of one rate card", &[counted(METERS_MAX)]);
    check("lots of an account that are open", &[counted(OPEN_LOTS_MAX)]);
    check("lots that one reversal", &[counted(RETURNS_MAX)]);
    check("alerts of an account", &[counted(ORG_ALERTS_MAX)]);
    check("users' own limits in one", &[counted(LIMITS.custom_limits_max)]);
    check(
        "features excluded from limits",
        &[counted(LIMITS.excluded_features_max), counted(LIMITS.recipients_max)],
    );
    check("lifetime of a hold", &[counted(TTL_SECONDS_MAX / 3_600)]);
    check("instants (", &[counted(CROSSINGS_MAX)]);
    let top_ups = [counted(LIMITS.top_ups_per_period_max), counted(LIMITS.top_up_max)];
    check("automatic top-ups", &top_ups);
    check("events of an account that a backtest folds", &["1,000,000".to_owned(), counted(HITS_MAX)]);
    check("a page of a list", &[counted(LIMIT_DEFAULT), counted(LIMIT_MAX)]);
}
