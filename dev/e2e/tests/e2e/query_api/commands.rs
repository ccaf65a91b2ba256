//! The commands next to the services: replaying the journal, making keys.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use platform::kafka::{Appender, Position};
use serde_json::{Value, json};

use e2e::Whole;

/// Most memory of a replay, with the program itself, in KiB: far below what it reads in the test.
const REPLAY_KBYTES_MAX: u64 = 96 * 1024;
/// Longest wait until a following replay shows what was appended; it polls twice a second.
const FOLLOWS_MAX: Duration = Duration::from_secs(60);

fn ledger(whole: &Whole, arguments: &str) -> Command {
    let mut command = Command::new(e2e::program());
    command
        .args(arguments.split_whitespace())
        .env("KAFKA_BROKERS", &whole.kafka.brokers)
        .env("LEDGER_TOPIC_PREFIX", &whole.kafka.topic_prefix)
        .env("DATABASE_URL", &whole.database_url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs the command to its end, on another thread than the services.
async fn output(whole: &Whole, arguments: &str) -> Result<Output> {
    let mut command = ledger(whole, arguments);
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

async fn replay(whole: &Whole, arguments: &str) -> Result<String> {
    let output = output(whole, &format!("replay {arguments}")).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

async fn open_and_use(whole: &Whole, account: &str, events: usize) -> Result<()> {
    let operator = whole.operator();
    let plan = json!({"cycle": "monthly", "allowance": "10"});
    operator.post("/v1/accounts", json!({"account_id": account, "plan": plan})).await?.expect(200)?;
    for number in 0..events {
        use_once(whole, account, number).await?;
    }
    Ok(())
}

async fn use_once(whole: &Whole, account: &str, number: usize) -> Result<Position> {
    let now = platform::clock::now();
    let usage = json!({"id": format!("u{number}"), "occurred_at": now, "credits": "0.5"});
    let answer = whole.operator().post(&format!("/v1/accounts/{account}/usage?wait=true"), usage).await?;
    answer.expect(200)?.position()
}

/// Leaves out what Kafka alone does not say.
fn without_leaves(lines: &str) -> String {
    let without = |line: &str| {
        let (before, behind) = line.split_once(r#","leaf":"#)?;
        Some(format!("{before}{}\n", behind.trim_start_matches(|c: char| c.is_ascii_digit())))
    };
    lines.lines().filter_map(without).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_what_auditors_read_byte_for_byte_and_goes_on_from_any_position() -> Result<()> {
    let whole = Whole::start().await?;
    for account in ["acme", "beta", "gamma", "delta"] {
        open_and_use(&whole, account, 3).await?;
    }
    let topic = whole.kafka.topics().events;
    let appender = Appender::new(&whole.kafka, &topic, whole.kafka.partitions)?;
    appender.append(b"acme", b"no event\n\xff at all").await?;

    let all = replay(&whole, "").await?;
    let mut audited = String::new();
    for partition in 0..whole.kafka.partitions {
        let path = format!("/v1/audit/events?partition={partition}");
        audited += &whole.operator().get(&path).await?.expect(200)?.text;
    }
    ensure!(all == without_leaves(&audited), "a replay:\n{all}\nan auditor:\n{audited}");
    let lines: Vec<Value> = all.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines.len() == 3 + 4 * 4 + 1, "{} lines", lines.len());

    let of_acme: Vec<&str> = all.lines().filter(|line| line.contains(r#""key":"acme""#)).collect();
    let replayed = replay(&whole, "--account acme").await?;
    ensure!(of_acme.len() == 5 && replayed.lines().collect::<Vec<_>>() == of_acme, "{replayed}");

    for (number, line) in lines.iter().enumerate() {
        let position = format!("{}:{}", line["partition"], line["offset"]);
        let rest = replay(&whole, &format!("--from {position}")).await?;
        ensure!(rest.lines().eq(all.lines().skip(number)), "from {position}: {rest}");
    }
    let last = lines.last().context("a last line")?;
    let partition = last["partition"].as_i64().context("a partition")?;
    let end = last["offset"].as_i64().context("an offset")? + 1;
    ensure!(
        replay(&whole, &format!("--from {partition}:{end}")).await?.is_empty(),
        "nothing is after the end"
    );
    let lines = replay(&whole, &format!("--partition {partition}")).await?.lines().count();
    ensure!(i64::try_from(lines)? == end);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_following_replay_goes_on_with_what_is_appended() -> Result<()> {
    let whole = Whole::start().await?;
    open_and_use(&whole, "acme", 1).await?;
    let mut child = ledger(&whole, "replay --account acme --follow").spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let reader = std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            let _ = sender.send(line);
        }
    });
    for number in 0..4 {
        // The opening and the first usage come first.
        if number >= 2 {
            use_once(&whole, "acme", number).await?;
        }
        let line = tokio::time::timeout(FOLLOWS_MAX, receiver.recv()).await?.context("it ended")?;
        let line: Value = serde_json::from_str(&line)?;
        let expected = if number == 0 { "ledger.account.opened.v1" } else { "ledger.usage.recorded.v1" };
        ensure!(line["event"]["type"] == expected, "{line}");
    }
    child.kill()?;
    child.wait()?;
    ensure!(reader.join().is_ok() && receiver.recv().await.is_none(), "nothing is written twice");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_any_length_takes_the_same_memory_and_ends_quietly_with_its_reader() -> Result<()> {
    let whole = Whole::start().await?;
    let topic = whole.kafka.topics().events;
    let appender = Appender::new(&whole.kafka, &topic, whole.kafka.partitions)?;
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(60_000));
    let batch = vec![("acme".as_bytes(), large.as_bytes()); 250];
    for _ in 0..10 {
        for stored in appender.append_all(&batch).await {
            stored?;
        }
    }
    let mut child = ledger(&whole, "replay").spawn()?;
    let mut out = BufReader::new(child.stdout.take().context("piped")?);
    let (read, peak) = tokio::task::block_in_place(|| read_and_watch(&mut out, child.id()))?;
    ensure!(child.wait()?.success() && read > 2_500 * 60_000, "{read} bytes were read");
    ensure!(peak < REPLAY_KBYTES_MAX, "{read} bytes took {peak} KiB of memory");

    let mut child = ledger(&whole, "replay").spawn()?;
    let mut out = BufReader::new(child.stdout.take().context("piped")?);
    out.read_line(&mut String::new())?;
    drop(out);
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    whole.replay_and_stop().await
}

/// Returns the number of bytes read, and the highest memory of the process meanwhile, in KiB.
fn read_and_watch(out: &mut impl Read, process: u32) -> Result<(usize, u64)> {
    let (mut buffer, mut read, mut peak) = (vec![0; 1 << 20], 0, 0);
    loop {
        let count = out.read(&mut buffer)?;
        if count == 0 {
            return Ok((read, peak));
        }
        read += count;
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kbytes =
            resident.and_then(|text| text.split_whitespace().next()).and_then(|text| text.parse().ok());
        peak = kbytes.unwrap_or(peak);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_made_on_the_command_line_opens_what_its_role_may_see() -> Result<()> {
    let whole = Whole::start().await?;
    open_and_use(&whole, "acme", 0).await?;
    let admin = output(&whole, "key create --role admin --account acme --name first").await?;
    let secret = String::from_utf8(admin.stdout)?;
    ensure!(admin.status.success() && secret.lines().count() == 1, "the secret alone: {secret}");
    let admin = whole.caller(Some(secret.trim()));
    admin.get("/v1/accounts/acme/balance").await?.expect(200)?;
    admin.get("/v1/accounts/beta/balance").await?.expect_problem(403, "forbidden")?;
    let keys = whole.operator().get("/v1/keys").await?;
    let key = &keys.expect(200)?.body["items"][0];
    ensure!(key["created_by"] == "cli" && key["name"] == "first" && key["role"] == "admin", "{key}");

    let refused = output(&whole, "key create --role producer").await?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(!refused.status.success() && said.contains("accounts") && refused.stdout.is_empty(), "{said}");
    whole.replay_and_stop().await
}
