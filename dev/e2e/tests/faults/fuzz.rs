//! Fuzz: records that are nearly events, and records that are nothing at all.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

/// The account that most fuzzed usage names.
pub const ACCOUNT: &str = "fuzz";
/// The account that fuzzed records of the journal name: an unknown type may halt it.
pub const JOURNAL_ACCOUNT: &str = "fuzz-journal";
/// Above the limit of a record.
const LARGE_BYTES: usize = 70 * 1024;

#[derive(Debug)]
pub struct Fuzzed {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// Returns the record with this number, for the journal or for the ingress.
pub fn record(number: usize, journal: bool, random: &mut StdRng) -> Fuzzed {
    let account = if journal { JOURNAL_ACCOUNT } else { ACCOUNT };
    let event = event(number, account, journal);
    let text = event.to_string();
    let key = Some(account.as_bytes().to_vec());
    let value = match random.random_range(0..14) {
        0 => return Fuzzed { key: None, value: Some(text.into_bytes()) },
        1 => return Fuzzed { key, value: None },
        2 => return Fuzzed { key: Some(bytes(random, 300)), value: Some(bytes(random, 300)) },
        3 => bytes(random, 600),
        4 => truncated(text.into_bytes(), random),
        5..=7 => flipped(text.into_bytes(), random),
        8 => changed(event, random).to_string().into_bytes(),
        9 => format!("{}1{}", "[".repeat(500), "]".repeat(500)).into_bytes(),
        10 => doubled(&text).into_bytes(),
        11 | 12 => misspelt(text.into_bytes(), random),
        _ => {
            let mut large = text.into_bytes();
            large.resize(LARGE_BYTES, b' ');
            large
        }
    };
    Fuzzed { key, value: Some(value) }
}

fn event(number: usize, account: &str, journal: bool) -> Value {
    let now = platform::clock::now().to_string();
    let mut event = json!({
        "specversion": "1.0", "id": format!("fuzz-{number}"), "source": "/fuzz",
        "type": "ledger.usage.recorded.v1", "subject": account, "time": now,
        "data": {"user_id": "user", "credits": "0.000000001", "feature": "fuzz", "metadata": {"n": "1"}},
    });
    if journal {
        event["recordedat"] = json!(now);
        event["actor"] = json!("fuzz");
    }
    event
}

fn bytes(random: &mut StdRng, most: usize) -> Vec<u8> {
    let length = random.random_range(0..most);
    (0..length).map(|_| random.random()).collect()
}

fn truncated(mut text: Vec<u8>, random: &mut StdRng) -> Vec<u8> {
    text.truncate(random.random_range(0..text.len()));
    text
}

fn flipped(mut text: Vec<u8>, random: &mut StdRng) -> Vec<u8> {
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..text.len());
        text[at] = random.random();
    }
    text
}

/// Changes one letter or digit, often of a name or a value that stays well-formed.
fn misspelt(mut text: Vec<u8>, random: &mut StdRng) -> Vec<u8> {
    let letters: Vec<usize> = (0..text.len()).filter(|at| text[*at].is_ascii_alphanumeric()).collect();
    let at = letters[random.random_range(0..letters.len())];
    text[at] = if text[at].is_ascii_digit() {
        b'0' + random.random_range(0..10)
    } else {
        b'a' + random.random_range(0..26)
    };
    text
}

/// Gives one field a value of another kind.
fn changed(mut event: Value, random: &mut StdRng) -> Value {
    let values = [
        json!(null),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("\u{0}"),
        json!([]),
        json!({"a": {"b": []}}),
        json!("9".repeat(40)),
        json!("-5"),
        json!("2999-01-01T00:00:00Z"),
        json!("x".repeat(2_000)),
    ];
    let value = values[random.random_range(0..values.len())].clone();
    let names = ["specversion", "id", "source", "type", "subject", "time", "data", "unknown"];
    let inner =
        ["user_id", "credits", "feature", "metadata", "quantities", "category", "reservation_id", "unknown"];
    match random.random_range(0..2) {
        0 => event[names[random.random_range(0..names.len())]] = value,
        _ => event["data"][inner[random.random_range(0..inner.len())]] = value,
    }
    event
}

/// Names a field twice.
fn doubled(text: &str) -> String {
    text.replacen('{', r#"{"id":"another","#, 1)
}
