//! Audit: the journal as stored, for independent checks.

use anyhow::{Context, Result, ensure};
use platform::kafka::Appender;
use serde_json::{Value, json};

use super::described::{ensure_is, read};
use super::story::Story;
use e2e::Whole;

/// Most concurrent readers of the journal with one key: half of all.
const STREAMS_MAX: usize = 4;

fn lines_of(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).map_err(Into::into)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_read_as_stored_and_taken_up_at_any_offset() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "5"})).await?;
    let used = story.usage("2026-01-06T00:00:00Z", "u1", json!({"credits": "1.5"})).await?.position()?;
    let topic = whole.kafka.topics().events;
    let appender = Appender::new(&whole.kafka, &topic, whole.kafka.partitions)?;
    let garbage = appender.append(b"acme", b"\xff\n").await?;
    let auditor = whole.keyed("auditor", &[], None).await?;
    let path = format!("/v1/audit/events?partition={}", used.partition);
    let answer = read(&auditor, &path).await?;
    ensure!(answer.expect(200)?.content_type == "application/x-ndjson", "{}", answer.content_type);
    let end = format!("{}:{}", used.partition, garbage.offset + 1);
    ensure!(answer.headers["ledger-end"] == *end, "{:?}", answer.headers);
    let lines = lines_of(&answer.text)?;
    let event = |id: &str, kind: &str, time: &str, data: Value| {
        json!({"specversion": "1.0", "id": id, "source": "*", "type": format!("ledger.{kind}.v1"), "subject": "acme",
               "time": time, "recordedat": time, "actor": "operator", "datacontenttype": "application/json",
               "dataschema": format!("schemas/{kind}.v1.json"), "data": data})
    };
    let line = |offset: i64, event: Value| {
        json!({"partition": used.partition, "offset": offset, "leaf": offset, "timestamp": "*", "key": "acme",
               "value_sha256": "*", "event": event})
    };
    let genesis =
        json!({"type": "ledger.genesis.v1", "log_id": "*", "partitions": 3, "created_at": "*", "salt": "*"});
    let mut first = line(0, genesis);
    first["key"] = Value::Null;
    let mut last = line(3, Value::Null);
    last["value_base64"] = json!("/wo=");
    let expected = json!([
        first,
        line(1, event("*", "account.opened", "2026-01-05T00:00:00Z", json!("*"))),
        line(2, event("u1", "usage.recorded", "2026-01-06T00:00:00Z", json!({"credits": "1.5"}))),
        last,
    ]);
    ensure_is(&Value::Array(lines), &expected)?;

    for offset in 0..=6 {
        let rest = read(&auditor, &format!("{path}&offset={offset}")).await?;
        let expected: String = answer.text.lines().skip(offset).map(|line| format!("{line}\n")).collect();
        ensure!(rest.expect(200)?.text == expected, "from {offset}: {}", rest.text);
    }
    // Reads on from the end: only what was appended since, once.
    story.usage("2026-01-07T00:00:00Z", "u2", json!({"credits": "1"})).await?;
    let rest = read(&auditor, &format!("{path}&offset=4")).await?;
    let ids: Vec<Value> = lines_of(&rest.text)?.iter().map(|line| line["event"]["id"].clone()).collect();
    ensure_is(&json!(ids), &json!(["u2"]))?;

    for partition in ["3", "-1", "2147483647"] {
        let none = read(&auditor, &format!("/v1/audit/events?partition={partition}")).await?;
        none.expect_problem(404, "partition_not_found")?;
    }
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_the_journal_are_let_in_one_by_one_and_slow_ones_hold_little() -> Result<()> {
    if std::env::var_os(ALONE).is_none() {
        let name = "readers_of_the_journal_are_let_in_one_by_one_and_slow_ones_hold_little";
        return alone(&format!("{}::{name}", module_path!()));
    }
    let whole = Whole::start().await?;
    let topic = whole.kafka.topics().events;
    let appender = Appender::new(&whole.kafka, &topic, whole.kafka.partitions)?;
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(60_000));
    let batch = vec![("acme".as_bytes(), large.as_bytes()); 250];
    let mut partition = 0;
    for _ in 0..4 {
        for stored in appender.append_all(&batch).await {
            partition = stored?.partition;
        }
    }
    let operator = whole.operator();
    let path = format!("/v1/audit/events?partition={partition}");
    let get = || operator.request(reqwest::Method::GET, &path).send();
    let before = resident_kbytes()?;
    let mut readers = Vec::new();
    for _ in 0..STREAMS_MAX {
        let mut reader = get().await?;
        ensure!(reader.status() == 200, "{}", reader.status());
        reader.chunk().await?.context("a first chunk")?;
        readers.push(reader);
    }
    let refused = read(&operator, &path).await?;
    refused.expect_problem(429, "too_many_requests")?;
    ensure!(!refused.retry_after.is_empty(), "{:?}", refused.headers);
    let auditor = whole.keyed("auditor", &[], None).await?;
    let mut other = auditor.request(reqwest::Method::GET, &path).send().await?;
    ensure!(other.status() == 200 && other.chunk().await?.is_some(), "another key has its share");
    drop(other);
    // Readers that don't read: each holds what was fetched ahead, not the 60 MB that it requested.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let grown = resident_kbytes()?.saturating_sub(before);
    let most = STREAMS_MAX as u64 * HELD_KBYTES_MAX;
    ensure!(grown < most, "{STREAMS_MAX} readers that wait hold {grown} KiB");

    let mut last = readers.pop().context("a reader")?;
    drop(readers);
    let mut bytes = 0;
    while let Some(chunk) = last.chunk().await? {
        bytes += chunk.len();
    }
    ensure!(bytes > 900 * 60_000, "read to the end: {bytes}");
    // Readers that left have freed their slots.
    for _ in 0..50 {
        let answer = get().await?;
        if answer.status() == 200 {
            return whole.replay_and_stop().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    anyhow::bail!("places are not given back")
}

/// Set in the process that runs one test alone.
const ALONE: &str = "LEDGER_TEST_ALONE";

/// Most memory of a waiting reader: 4 MB that librdkafka fetched ahead, a chunk of records as it turns into lines, and
/// socket buffers. About three times the measured figure, half of what was requested.
const HELD_KBYTES_MAX: u64 = 32 * 1024;

/// Runs one test of this program in a process of its own, because memory is measured per process. The C library returns
/// freed memory at once there: else it would keep more than the readers hold, and the test would measure that.
fn alone(path: &str) -> Result<()> {
    let program = std::env::current_exe()?;
    let (_crate, test) = path.split_once("::").context("a path in this crate")?;
    let mut command = std::process::Command::new(program);
    command.args([test, "--exact"]).env(ALONE, "1");
    command.env("MALLOC_MMAP_THRESHOLD_", "65536").env("MALLOC_TRIM_THRESHOLD_", "65536");
    let ran = command.output()?;
    let said = String::from_utf8_lossy(&ran.stdout);
    ensure!(ran.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}

/// Resident memory of this process, in KiB; the services run in it.
fn resident_kbytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(resident.split_whitespace().next().context("a number")?.parse()?)
}
