//! Every line that the README and the tour say to paste works, and every command that a document names exists.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use local_stack::TestSpace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;
use tempfile::TempDir;

use super::examples::Examples;
use super::{documents, text};

/// The ledger's address in the documents.
const URL: &str = "http://127.0.0.1:8080";
/// The topic of usage in the documents.
const USAGE_TOPIC: &str = "ledger.usage";
/// The secret that signs webhooks in the documents.
const WEBHOOK_SECRET: &str = "whsec_trial";
/// Prints the answer and, on a line of its own, its status.
const CURL: &str = "curl() { command curl -sS --max-time 60 -w '\\n%{http_code}' \"$@\"; }";
/// Longest wait until usage from Kafka is projected.
const TAKEN_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A block of a document between fences.
#[derive(Debug)]
struct Block {
    language: String,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in document.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block { language: language.to_owned(), text: String::new() })
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    blocks
}

/// A running `ledger up`; its folder is the working directory of the reader.
struct Up {
    program: Child,
    url: String,
    folder: TempDir,
    space: TestSpace,
}

/// Most lines that a start logs at `info`.
const LOG_LINES_MAX: usize = 15;
/// Where the program's log goes, in its folder.
const LOG: &str = "up.log";

impl Up {
    async fn start() -> Result<Up> {
        let space = TestSpace::new().await?;
        let folder = tempfile::tempdir()?;
        let log = File::create(folder.path().join(LOG))?;
        let mut program = ledger_in(&space, folder.path())
            .args(["up", "--listen", "127.0.0.1:0"])
            .env("LEDGER_STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET)
            .env("RUST_LOG", "info")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let first = BufReader::new(program.stdout.take().context("piped")?).lines().next();
        let first = first.context("the program ended before it served")??;
        let url = first.strip_prefix("the ledger serves at ").context("an address")?.to_owned();
        Ok(Up { program, url, folder, space })
    }

    /// Checks that a start on an empty database fits on a screen: 15 lines of its log.
    fn ensure_short_log(&self) -> Result<()> {
        let log = std::fs::read_to_string(self.folder.path().join(LOG))?;
        let said: Vec<&str> = log.lines().filter(|line| line.contains(" INFO ")).collect();
        ensure!(said.len() <= LOG_LINES_MAX, "{} lines:\n{}", said.len(), said.join("\n"));
        Ok(())
    }

    /// Runs a block and returns its answer.
    fn paste(&self, setup: &str, block: &str) -> Result<(u16, String)> {
        let script = format!("{}\n{CURL}\n{block}", setup.replace(URL, &self.url));
        let output = Command::new("bash").args(["-c", &script]).current_dir(self.folder.path()).output()?;
        let said = String::from_utf8(output.stdout)?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{block}failed: {complaint}");
        let (answer, status) = said.rsplit_once('\n').context("curl prints a status")?;
        Ok((status.parse()?, answer.to_owned()))
    }

    /// Sends to Kafka what the tour sends by kcat, which few machines have installed.
    async fn produce(&self, block: &str) -> Result<()> {
        let record = block.split('\'').nth(1).context("a record between quotes")?;
        let (account, event) = record.split_once('|').context("a key and a value")?;
        ensure!(block.contains(USAGE_TOPIC), "the topic is named");
        let topic = format!("{}usage", self.space.topic_prefix);
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", &self.space.kafka_brokers).create()?;
        let record = FutureRecord::to(&topic).key(account).payload(event);
        producer.send(record, TAKEN_MAX).await.map_err(|(error, _)| error)?;
        Ok(())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Ok(id) = i32::try_from(self.program.id()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        let _ = self.program.wait();
    }
}

/// The program on a test's own database and topics, as started in `folder`.
pub(super) fn ledger_in(space: &TestSpace, folder: &Path) -> Command {
    let mut command = Command::new(e2e::program());
    command
        .current_dir(folder)
        .env("KAFKA_BROKERS", &space.kafka_brokers)
        .env("DATABASE_URL", &space.database_url)
        .env("LEDGER_TOPIC_PREFIX", &space.topic_prefix)
        .env("RUST_LOG", "warn")
        // A machine that stalls for seconds answers late, with the same content.
        .env("LEDGER_WAIT_MS", "20000")
        .env_remove("LEDGER_OPERATOR_KEY")
        .env_remove("LEDGER_DATA_DIR")
        .stdin(Stdio::null());
    command
}

fn require_curl() -> Result<()> {
    let found = Command::new("curl").arg("--version").stdout(Stdio::null()).status();
    ensure!(
        found.is_ok_and(|status| status.success()),
        "curl is not installed, and the documents are made of it"
    );
    Ok(())
}

/// The answer must contain everything that the document shows; it may contain more.
fn ensure_shown(shown: &Value, answer: &Value, place: &str) -> Result<()> {
    match (shown, answer) {
        (Value::Object(shown), Value::Object(answer)) => shown.iter().try_for_each(|(name, value)| {
            let found = answer.get(name).with_context(|| format!("{place}.{name} is not in the answer"))?;
            ensure_shown(value, found, &format!("{place}.{name}"))
        }),
        (Value::Array(shown), Value::Array(answer)) => {
            ensure!(shown.len() == answer.len(), "{place}: {} are shown of {}", shown.len(), answer.len());
            shown
                .iter()
                .zip(answer)
                .enumerate()
                .try_for_each(|(at, (shown, answer))| ensure_shown(shown, answer, &format!("{place}[{at}]")))
        }
        _ => {
            ensure!(shown == answer, "{place}: {shown} is shown, the ledger says {answer}");
            Ok(())
        }
    }
}

/// Pastes once; after a record through Kafka, repeatedly until it is projected.
fn paste(up: &Up, setup: &str, block: &str, produced: bool) -> Result<(u16, String)> {
    let deadline = Instant::now() + TAKEN_MAX;
    loop {
        let (status, answer) = up.paste(setup, block)?;
        if (200..300).contains(&status) {
            return Ok((status, answer));
        }
        if !produced || Instant::now() > deadline {
            bail!("{block}answered {status}: {answer}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What a document's blocks did.
struct Pasted {
    blocks: usize,
    /// Answers that were compared with the document's.
    compared: usize,
    examples: Examples,
}

/// Pastes every block of a document into a new ledger.
async fn paste_all(document: &str) -> Result<Pasted> {
    require_curl()?;
    let up = Up::start().await?;
    let (mut setup, mut answer) = (String::new(), String::new());
    let (mut pasted, mut compared, mut produced) = (0, 0, false);
    let mut examples = Examples::default();
    for Block { language, text } in blocks(document) {
        match language.as_str() {
            "sh" if setup.is_empty() => setup = text,
            // In `bash` blocks, lines may prepare the curl.
            "sh" | "bash" => {
                ensure!(language == "bash" || text.starts_with("curl "), "one curl a block: {text}");
                let status;
                (status, answer) = paste(&up, &setup, &text, produced)?;
                examples.add(&text, status, &answer)?;
                (pasted, produced) = (pasted + 1, false);
                if pasted == 1 {
                    up.ensure_short_log()?;
                }
            }
            "json" => {
                let shown = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
                let said = serde_json::from_str(&answer).with_context(|| format!("no JSON: {answer}"))?;
                ensure_shown(&shown, &said, "answer").with_context(|| format!("{text}after {answer}"))?;
                compared += 1;
            }
            _ if text.contains("kcat ") => {
                up.produce(&text).await?;
                produced = true;
            }
            _ => {}
        }
    }
    Ok(Pasted { blocks: pasted, compared, examples })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_readme_works_and_answers_as_shown() -> Result<()> {
    let Pasted { blocks, compared, .. } = paste_all(&text("README.md")).await?;
    ensure!(blocks == 5 && compared >= 3, "{blocks} pasted, {compared} compared");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_tour_works_and_answers_as_shown() -> Result<()> {
    let tour = text("docs/tour.md");
    let Pasted { blocks, compared, examples } = paste_all(&tour).await?;
    // A tour without blocks would prove nothing.
    ensure!(blocks >= 60 && compared >= 30, "{blocks} pasted, {compared} compared");
    ensure!(tour.contains(&format!("LEDGER_STRIPE_WEBHOOK_SECRET={WEBHOOK_SECRET}`")), "the secret is named");
    examples.settle()?;
    Ok(())
}

/// Returns the subcommands behind every `ledger …` and `cargo run -- …`, as words.
fn commands() -> BTreeSet<Vec<String>> {
    let mut commands = BTreeSet::new();
    for (_, document) in documents() {
        for start in ["`ledger ", "\nledger ", "cargo run -- ", "cargo run --release -- "] {
            for (at, _) in document.match_indices(start) {
                let rest =
                    document[at + start.len()..].split(['`', '\n', '|', '#']).next().unwrap_or_default();
                let words = rest.split_whitespace();
                let words =
                    words.take_while(|word| word.starts_with(|first: char| first.is_ascii_lowercase()));
                commands.insert(words.map(str::to_owned).collect());
            }
        }
    }
    commands
}

#[test]
fn every_command_named_is_there() -> Result<()> {
    let commands = commands();
    ensure!(commands.len() >= 8, "few commands are named: {commands:?}");
    for words in commands {
        let mut command = Command::new(e2e::program());
        let output = command.args(&words).arg("--help").output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ledger {}: {complaint}", words.join(" "));
    }
    Ok(())
}

#[test]
fn what_is_shown_must_be_in_the_answer() {
    let check = |shown: &str, answer: &str, fits: bool| {
        let value = |text: &str| serde_json::from_str(text).expect("JSON");
        let found = ensure_shown(&value(shown), &value(answer), "answer");
        assert_eq!(found.is_ok(), fits, "{shown} in {answer}: {found:?}");
    };
    check(r#"{"a":"1"}"#, r#"{"a":"1","b":"2"}"#, true);
    check(r#"{"a":"1"}"#, r#"{"a":"2"}"#, false);
    check(r#"{"a":"1"}"#, r#"{"b":"1"}"#, false);
    check(r#"{"a":[{"b":1}]}"#, r#"{"a":[{"b":1,"c":2}]}"#, true);
    check(r#"{"a":[{"b":1}]}"#, r#"{"a":[{"b":1},{"b":1}]}"#, false);
}
