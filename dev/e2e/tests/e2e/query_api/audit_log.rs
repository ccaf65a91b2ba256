//! The audit log over HTTP: tiles, checkpoints and proofs of the real journal, checked as an auditor does.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt;
use platform::http_client;
use platform::kafka::{self, Appender as JournalAppender, Record};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use transparency_log::appender::Appender;
use transparency_log::bundle;
use transparency_log::checkpoint::Checkpoint;
use transparency_log::entry::{Content, Entry, KeyHasher};
use transparency_log::hash::Hash;
use transparency_log::key::{SignerKey, VerifierKey};
use transparency_log::key_file::LogKey;
use transparency_log::name::OriginBase;
use transparency_log::note::Note;
use transparency_log::proof::{continues, includes};
use transparency_log::tile::{Kind, Tile};
use transparency_log::tree::{Head, Tree};
use uuid::Uuid;

use super::described::read;
use super::story::Story;
use e2e::{Caller, Whole};

const PRIVATE: &str = "private, max-age=31536000, immutable";
const PUBLIC: &str = "public, max-age=31536000, immutable";

/// What is answered to a request as it stands, without following a redirect.
struct Fetched {
    status: u16,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Fetched {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// One partition's log as an auditor computes it from the journal.
pub struct Log {
    pub partition: i32,
    id: String,
    origin: String,
    pub entries: Vec<Entry>,
    heads: Vec<Head>,
    /// Signs for tests that say when.
    signer: SignerKey,
}

impl Log {
    /// Reads the whole partition.
    pub async fn of(whole: &Whole, partition: i32) -> Result<Log> {
        let end = whole.ends().await?.into_iter().find(|end| end.partition == partition).context("an end")?;
        let records = kafka::read_partition(&whole.kafka, partition, 0, end.offset);
        let records: Vec<Record> = records.try_collect().await?;
        let genesis: Value = serde_json::from_slice(records[0].value.as_deref().unwrap_or_default())?;
        let id = genesis["log_id"].as_str().context("a log id")?.to_owned();
        let hasher = KeyHasher::new(&salt_of(&genesis)?);
        let entries: Vec<Entry> = records.iter().map(|record| entry_of(record, &hasher)).collect();
        let (mut appender, mut heads) = (Appender::new(), Vec::new());
        for entry in &entries {
            appender.append(entry, &mut Vec::new());
            heads.push(appender.head());
        }
        let origin = "ledger.local/v1/audit/log".parse::<OriginBase>()?.origin(&id, partition)?;
        let signer = LogKey::from_seed([7; 32]).signer(&origin);
        Ok(Log { partition, id, origin: origin.to_string(), entries, heads, signer })
    }

    fn head(&self, size: u64) -> Head {
        self.heads[usize::try_from(size).expect("small") - 1]
    }

    pub fn size(&self) -> u64 {
        self.heads.len() as u64
    }

    pub fn path(&self, rest: &str) -> String {
        format!("/v1/audit/log/{}/{}/{rest}", self.id, self.partition)
    }
}

/// Returns the salt of the key hashes: that of the genesis record, or the bytes of the log id.
fn salt_of(genesis: &Value) -> Result<Vec<u8>> {
    match genesis["salt"].as_str() {
        Some(salt) => Ok(STANDARD.decode(salt)?),
        None => Ok(genesis["log_id"].as_str().context("a log id")?.parse::<Uuid>()?.as_bytes().to_vec()),
    }
}

fn entry_of(record: &Record, hasher: &KeyHasher) -> Entry {
    let content = Content::Readable {
        key: record.key.as_deref().map(|key| hasher.hash(key)),
        value: record.value.as_deref().map(Hash::of),
    };
    let timestamp_ms = (record.appended_at.micros() / 1_000).unsigned_abs();
    Entry { offset: record.position.offset.unsigned_abs(), timestamp_ms, content }
}

/// Publishes the checkpoint of a size, as the signer does; returns its note.
async fn publish(whole: &Whole, log: &Log, size: u64) -> Result<String> {
    let note = Checkpoint { origin: log.origin.parse()?, head: log.head(size) }
        .sign(std::slice::from_ref(&log.signer));
    sqlx::query(
        "insert into control.log_checkpoint (partition, size, note, published_at) values ($1, $2, $3, now())",
    )
    .bind(log.partition)
    .bind(i64::try_from(size)?)
    .bind(note.to_string())
    .execute(&whole.pool)
    .await?;
    Ok(note.to_string())
}

async fn fetch(whole: &Whole, caller: &Caller, path: &str) -> Result<Fetched> {
    let client = http_client::plain();
    let mut request = client.get(format!("{}{path}", whole.console()));
    if !caller.key().is_empty() {
        request = request.bearer_auth(caller.key());
    }
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Fetched { status, headers, bytes: response.bytes().await?.to_vec() })
}

async fn ensure_status(whole: &Whole, caller: &Caller, path: &str, status: u16) -> Result<Fetched> {
    let fetched = fetch(whole, caller, path).await?;
    ensure!(fetched.status == status, "{path}: {}, not {status}", fetched.status);
    if status >= 400 {
        ensure!(fetched.header("cache-control") == "no-store", "{path}: {:?}", fetched.headers);
    }
    Ok(fetched)
}

/// Fetches every tile that a tree of the size has, and returns the hashes; the entries must be those of the journal.
async fn fetch_all(
    whole: &Whole,
    caller: &Caller,
    log: &Log,
    size: u64,
) -> Result<BTreeMap<(u8, u64), Vec<u8>>> {
    let mut hashes = BTreeMap::new();
    let mut entries = Vec::new();
    for kind in
        [Kind::Entries, Kind::Hashes { level: 0 }, Kind::Hashes { level: 1 }, Kind::Hashes { level: 2 }]
    {
        for tile in (0..).map_while(|index| Tile::at(kind, index, size)) {
            let path = log.path(&tile.to_string());
            let fetched = ensure_status(whole, caller, &path, 200).await?;
            let said = (fetched.header("content-type"), fetched.header("cache-control"));
            ensure!(said == ("application/octet-stream", PRIVATE), "{path}: {said:?}");
            ensure!(
                tile.cut(&fetched.bytes) == Some(fetched.bytes.as_slice()),
                "{path} has {} bytes",
                fetched.bytes.len()
            );
            match kind {
                Kind::Entries => {
                    for entry in bundle::entries(&fetched.bytes)? {
                        entries.push(Entry::decode(entry)?);
                    }
                }
                Kind::Hashes { level } => drop(hashes.insert((level, tile.index), fetched.bytes)),
            }
        }
    }
    ensure!(entries == log.entries[..usize::try_from(size)?], "the entries of {size}");
    let leaves: Vec<u8> = entries.iter().flat_map(|entry| entry.leaf_hash().0).collect();
    let found: Vec<u8> = hashes.range((0, 0)..(1, 0)).flat_map(|(_, hashes)| hashes.clone()).collect();
    ensure!(leaves == found, "the leaves of {size}");
    Ok(hashes)
}

/// Appends records to the partition of acme, after some usage.
pub async fn filled(whole: &Whole, records: usize) -> Result<Log> {
    let story = Story::monthly(whole, "acme", json!({"allowance": "5"})).await?;
    let used = story.usage("2026-01-06T00:00:00Z", "u1", json!({"credits": "1.5"})).await?.position()?;
    let topic = whole.kafka.topics().events;
    let appender = JournalAppender::new(&whole.kafka, &topic, whole.kafka.partitions)?;
    for stored in appender.append_all(&vec![("acme", "no event"); records]).await {
        stored?;
    }
    whole.all_projected().await?;
    let log = Log::of(whole, used.partition).await?;
    ensure!(log.entries.len() == records + 3, "{} entries", log.entries.len());
    Ok(log)
}

/// Starts a ledger that signs each log once at its start, and no more within a test's time; what it signed is forgotten.
async fn unsigned() -> Result<Whole> {
    let whole = Whole::start_with(&["--checkpoint-seconds", "3600"]).await?;
    forget_checkpoints(&whole).await?;
    Ok(whole)
}

async fn forget_checkpoints(whole: &Whole) -> Result<()> {
    for _ in 0..600 {
        let signed = "select count(distinct partition) from control.log_checkpoint";
        let signed: i64 = sqlx::query_scalar(signed).fetch_one(&whole.pool).await?;
        if signed == i64::from(whole.kafka.partitions) {
            sqlx::query("delete from control.log_checkpoint").execute(&whole.pool).await?;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("not every log is signed at its start")
}

/// Waits until the ledger's signer has covered the whole log; returns what the API lists of it.
pub async fn signed(whole: &Whole, log: &Log) -> Result<Value> {
    for _ in 0..600 {
        let listed = read(&whole.operator(), "/v1/audit/checkpoints").await?;
        let items = listed.body["items"].as_array().cloned().unwrap_or_default();
        let of_log = items.into_iter().find(|item| item["partition"] == log.partition);
        if let Some(item) = of_log.filter(|item| item["size"] == log.size()) {
            return Ok(item);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("no checkpoint of {} records", log.size())
}

/// Returns the keys that the ledger lists for a log, as they are listed.
pub async fn keys(whole: &Whole, log: &Log) -> Result<Vec<Value>> {
    let listed = read(&whole.operator(), "/v1/audit/log/keys").await?;
    let mut items = listed.expect(200)?.body["items"].as_array().cloned().unwrap_or_default();
    items.retain(|item| item["partition"] == log.partition);
    Ok(items)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_served_up_to_its_last_checkpoint_and_no_further() -> Result<()> {
    let whole = unsigned().await?;
    let log = filled(&whole, 600).await?;
    let auditor = whole.keyed("auditor", &[], None).await?;
    let nothing = ensure_status(&whole, &auditor, &log.path("checkpoint"), 404).await?;
    ensure!(String::from_utf8_lossy(&nothing.bytes).contains(r#""code":"no_checkpoint""#));
    ensure_status(&whole, &auditor, &log.path("tile/0/000.p/1"), 404).await?;
    for size in [1, 255, 256, 300, 600, log.size()] {
        let note = publish(&whole, &log, size).await?;
        let fetched = ensure_status(&whole, &auditor, &log.path("checkpoint"), 200).await?;
        ensure!(fetched.bytes == note.as_bytes(), "{}", String::from_utf8_lossy(&fetched.bytes));
        let said = (fetched.header("content-type"), fetched.header("cache-control"));
        ensure!(said == ("text/plain; charset=utf-8", "no-cache"), "{said:?}");
        let tiles = fetch_all(&whole, &auditor, &log, size).await?;
        ensure!(Tree::resume(size, &tiles)?.head() == log.head(size), "the root of {size}");
        for kind in [Kind::Entries, Kind::Hashes { level: 0 }, Kind::Hashes { level: 1 }] {
            // The next wider tile of each kind is there only with the next checkpoint.
            let wider = (size + 1..).find_map(|more| {
                let index = (more - 1) / if kind == (Kind::Hashes { level: 1 }) { 65_536 } else { 256 };
                Tile::at(kind, index, more).filter(|tile| !tile.is_within(size))
            });
            let path = log.path(&wider.context("a wider tile")?.to_string());
            ensure_status(&whole, &auditor, &path, 404).await?;
        }
    }
    // Partial tiles of earlier checkpoints stay.
    fetch_all(&whole, &auditor, &log, 300).await?;
    for path in
        ["tile/0/0", "tile/0/000.p/0", "tile/8/000", "tile/entries/003", "tile", "Checkpoint", "checkpoint/"]
    {
        ensure_status(&whole, &auditor, &log.path(path), 404).await?;
    }
    let elsewhere = format!("/v1/audit/log/{}/{}/checkpoint", Uuid::nil(), log.partition);
    ensure_status(&whole, &auditor, &elsewhere, 404).await?;
    let short = format!("/v1/audit/log/{}/tile/0/000", log.partition);
    let moved = ensure_status(&whole, &auditor, &short, 307).await?;
    ensure!(moved.header("location") == log.path("tile/0/000"), "{:?}", moved.headers);
    ensure_status(&whole, &auditor, "/v1/audit/log/3/checkpoint", 404).await?;
    whole.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_has_a_proof_and_every_size_continues_those_before_it() -> Result<()> {
    let whole = unsigned().await?;
    let log = filled(&whole, 300).await?;
    let auditor = whole.keyed("auditor", &[], None).await?;
    let ask = async |query: &str| {
        read(&auditor, &format!("/v1/audit/proofs?partition={}{query}", log.partition)).await
    };
    ask("&offset=0").await?.expect_problem(404, "not_in_the_log")?;
    publish(&whole, &log, 280).await?;
    let hash = |value: &Value| value.as_str().and_then(Hash::from_base64).context("a hash");
    let hashes = |value: &Value| -> Result<Vec<Hash>> {
        value.as_array().context("a list")?.iter().map(hash).collect()
    };
    for (leaf, entry) in log.entries.iter().enumerate().take(280).step_by(17) {
        for size in [leaf as u64 + 1, 256, 280] {
            let answer = ask(&format!("&offset={}&size={size}", entry.offset)).await?;
            if size <= leaf as u64 {
                answer.expect_problem(404, "not_in_the_log")?;
                continue;
            }
            let proof = &answer.expect(200)?.body;
            let said = (
                proof["partition"].as_i64(),
                proof["offset"].as_u64(),
                proof["leaf"].as_u64(),
                proof["size"].as_u64(),
            );
            ensure!(
                said == (Some(log.partition.into()), Some(entry.offset), Some(leaf as u64), Some(size)),
                "{proof}"
            );
            let head = Head { size, root: hash(&proof["root"])? };
            ensure!(head == log.head(size) && hash(&proof["leaf_hash"])? == entry.leaf_hash(), "{proof}");
            ensure!(includes(&head, leaf as u64, entry.leaf_hash(), &hashes(&proof["hashes"])?), "{proof}");
        }
    }
    ensure!(ask("&offset=1").await?.body["size"] == 280, "without a size, that of the last checkpoint");
    for (from, to) in [(1, 1), (1, 280), (255, 256), (256, 280), (279, 280), (100, 200)] {
        let proof = ask(&format!("&from={from}&to={to}")).await?.expect(200)?.body.clone();
        ensure!((proof["from"].as_u64(), proof["to"].as_u64()) == (Some(from), Some(to)), "{proof}");
        ensure!(continues(&log.head(from), &log.head(to), &hashes(&proof["hashes"])?), "{proof}");
    }
    for beyond in ["&offset=280", "&offset=1&size=281", "&from=1&to=281", "&offset=99999999999"] {
        ask(beyond).await?.expect_problem(404, "not_in_the_log")?;
    }
    let nowhere = read(&auditor, "/v1/audit/proofs?partition=3&offset=0").await?;
    nowhere.expect_problem(404, "not_in_the_log")?;
    ask("").await?.expect_fields(&["offset required"])?;
    ask("&offset=1&from=1&to=2").await?.expect_fields(&["offset not_allowed"])?;
    ask("&from=3&to=2").await?.expect_fields(&["from out_of_range"])?;
    ask("&from=0&to=2").await?.expect_fields(&["from out_of_range"])?;
    ask("&offset=-1").await?.expect_fields(&["offset wrong_type"])?;
    whole.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_is_signed_within_seconds_and_checked_by_the_listed_key() -> Result<()> {
    let whole = Whole::start_with(&["--checkpoint-seconds", "1"]).await?;
    let log = filled(&whole, 2).await?;
    let item = signed(&whole, &log).await?;
    let said = (item["origin"].as_str(), item["root"].as_str());
    ensure!(said == (Some(&log.origin), Some(&log.head(log.size()).root.to_string())), "{item}");
    let keys = keys(&whole, &log).await?;
    let [key] = keys.as_slice() else { anyhow::bail!("one key for each log: {keys:?}") };
    let known = key["origin"] == log.origin && key["since"].is_string() && key["until"].is_null();
    ensure!(known && key.as_object().map(serde_json::Map::len) == Some(5), "{key}");
    let vkey: VerifierKey = key["vkey"].as_str().context("a key")?.parse()?;
    let note = item["checkpoint"].as_str().context("a note")?;
    let opened = Checkpoint::open(&Note::parse(note.as_bytes())?, &[vkey])?;
    ensure!(opened.head == log.head(log.size()), "{note}");
    let served = ensure_status(&whole, &whole.operator(), &log.path("checkpoint"), 200).await?;
    ensure!(served.bytes == note.as_bytes(), "what is served is what is listed");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_checkpoint_there_is_none() -> Result<()> {
    let whole = unsigned().await?;
    read(&whole.operator(), "/v1/audit/checkpoints").await?.expect_problem(404, "no_checkpoint")?;
    whole.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_for_auditors_unless_it_is_public() -> Result<()> {
    let whole = unsigned().await?;
    let log = filled(&whole, 1).await?;
    publish(&whole, &log, 4).await?;
    let (tile, checkpoint) = (log.path("tile/0/000.p/4"), log.path("checkpoint"));
    let of_the_log = [tile.as_str(), &checkpoint, "/v1/audit/log/keys"];
    let others = [
        "/v1/audit/checkpoints".to_owned(),
        format!("/v1/audit/proofs?partition={}&offset=1", log.partition),
        format!("/v1/audit/events?partition={}", log.partition),
    ];
    for (caller, status) in [
        (whole.operator(), 200),
        (whole.keyed("auditor", &[], None).await?, 200),
        (whole.keyed("admin", &["*"], None).await?, 403),
        (whole.keyed("producer", &["acme"], None).await?, 403),
        (whole.keyed("member", &["acme"], Some("ana")).await?, 403),
        (whole.caller(None), 401),
    ] {
        for path in of_the_log.into_iter().chain(others.iter().map(String::as_str)) {
            ensure_status(&whole, &caller, path, status).await?;
        }
        // Nobody learns what there is without the right to read it.
        ensure_status(&whole, &caller, &log.path("tile/0/000"), if status == 200 { 404 } else { status })
            .await?;
        ensure_status(&whole, &caller, "/v1/audit/proofs", if status == 200 { 422 } else { status }).await?;
    }
    whole.stop().await?;

    let public = Whole::start_with(&["--audit-public", "--checkpoint-seconds", "3600"]).await?;
    forget_checkpoints(&public).await?;
    let log = filled(&public, 1).await?;
    publish(&public, &log, 4).await?;
    let anybody = public.caller(None);
    let fetched = ensure_status(&public, &anybody, &log.path("tile/0/000.p/4"), 200).await?;
    ensure!(fetched.header("cache-control") == PUBLIC, "{:?}", fetched.headers);
    ensure_status(&public, &anybody, &log.path("checkpoint"), 200).await?;
    ensure_status(&public, &anybody, "/v1/audit/log/keys", 200).await?;
    for path in
        ["/v1/audit/checkpoints", "/v1/audit/proofs?partition=0&offset=0", "/v1/audit/events?partition=0"]
    {
        ensure_status(&public, &anybody, path, 401).await?;
    }
    public.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_says_its_leaf_wherever_a_reader_begins_and_ends() -> Result<()> {
    let whole = unsigned().await?;
    let log = filled(&whole, 600).await?;
    let auditor = whole.keyed("auditor", &[], None).await?;
    let path = format!("/v1/audit/events?partition={}", log.partition);
    let all = read(&auditor, &path).await?.expect(200)?.text.clone();
    let lines: Vec<Value> = all.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for (leaf, (line, entry)) in lines.iter().zip(&log.entries).enumerate() {
        ensure!(line["leaf"] == leaf && line["offset"] == entry.offset, "{line}");
        let Content::Readable { value: Some(value), .. } = entry.content else { anyhow::bail!("{entry:?}") };
        ensure!(line["value_sha256"] == hex::encode(value.0), "{line}");
    }
    for (from, until) in [(0, 1), (1, 3), (255, 257), (256, 300), (500, 500), (601, 10_000), (10_000, 20_000)]
    {
        let some = read(&auditor, &format!("{path}&offset={from}&until={until}")).await?;
        let wanted: String = all.lines().take(until).skip(from).map(|line| format!("{line}\n")).collect();
        ensure!(some.expect(200)?.text == wanted, "{from} to {until}: {}", some.text);
        let end = format!("{}:{}", log.partition, until.min(lines.len()));
        ensure!(some.headers["ledger-end"] == *end, "{:?}", some.headers);
    }
    read(&auditor, &format!("{path}&until=x")).await?.expect_fields(&["until wrong_type"])?;
    // Where the log has not come so far yet, leaves are counted on from its end.
    sqlx::query("delete from read_model_1.log_tail").execute(&whole.pool).await?;
    let shorter = "update read_model_1.log_size set size = 512, next_offset = 512";
    sqlx::query(shorter).execute(&whole.pool).await?;
    let rest = read(&auditor, &format!("{path}&offset=590")).await?;
    let wanted: String = all.lines().skip(590).map(|line| format!("{line}\n")).collect();
    ensure!(rest.expect(200)?.text == wanted, "{}", rest.text);
    for (accepted, expected) in [("zstd", "zstd"), ("gzip", "gzip"), ("gzip;q=0.5, zstd", "zstd"), ("br", "")]
    {
        let request = auditor.request(reqwest::Method::GET, &path).header("accept-encoding", accepted);
        let response = request.send().await?;
        let encoding = response.headers().get("content-encoding").map_or("", |it| it.to_str().unwrap_or("?"));
        ensure!(encoding == expected, "{accepted}: {encoding}");
        let bytes = response.bytes().await?;
        ensure!(
            expected.is_empty() == (bytes == all.as_bytes())
                && (expected.is_empty() || bytes.len() < all.len() / 4)
        );
    }
    whole.stop().await
}

/// Runs `ledger verify` over HTTP, which must end with this code, and returns its result.
fn verify_against(whole: &Whole, caller: &Caller, code: i32, file: &Path) -> Result<Value> {
    let verified = Command::new(e2e::program())
        .args(["verify", "--json", "--against", whole.console(), "--checkpoint"])
        .arg(file)
        .env("LEDGER_KEY", caller.key())
        .env("RUST_LOG", "error")
        .output()?;
    let said = String::from_utf8_lossy(&[verified.stdout.clone(), verified.stderr].concat()).into_owned();
    ensure!(verified.status.code() == Some(code), "{}: {said}", verified.status);
    Ok(serde_json::from_slice(&verified.stdout).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_verifies_a_ledger_with_nothing_but_its_address_and_a_key() -> Result<()> {
    let whole = Whole::start_with(&["--checkpoint-seconds", "1"]).await?;
    let log = filled(&whole, 300).await?;
    let item = signed(&whole, &log).await?;
    let auditor = whole.keyed("auditor", &[], None).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("kept");
    std::fs::write(&file, item["checkpoint"].as_str().context("a note")?)?;
    let verified = verify_against(&whole, &auditor, 0, &file)?;
    let computed = json!({"partition": log.partition, "records": log.size(), "size": log.size(),
                          "root": log.head(log.size()).root.to_string()});
    let found = verified["partitions"].as_array().context("partitions")?;
    ensure!(found.len() == 3 && found.contains(&computed), "{verified}");
    ensure!(verified["result"] == "equal" && verified["findings"] == json!([]), "{verified}");
    // A checkpoint that nobody of this ledger has signed.
    let head = Head { root: Hash::ZERO, ..log.head(log.size()) };
    let forged = Checkpoint { origin: log.origin.parse()?, head }.sign(std::slice::from_ref(&log.signer));
    std::fs::write(&file, forged.to_string())?;
    let verified = verify_against(&whole, &auditor, 1, &file)?;
    ensure!(verified["findings"][0]["kind"] == "checkpoint_forged", "{verified}");
    verify_against(&whole, &whole.keyed("admin", &["*"], None).await?, 2, &file)?;
    whole.stop().await
}
