//! Against: verifies a ledger over HTTP, with an auditor's key and nothing else: its trees, its checkpoints, and the
//! auditor's own.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use futures::{TryStreamExt, stream};
use ledger_core::value::time::Time;
use platform::http_client;
use platform::kafka::{LogIdentity, genesis_of};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use transparency_log::bundle;
use transparency_log::entry::{Entry, KeyHasher};
use transparency_log::key::VerifierKey;
use transparency_log::tile::{Kind, Tile};

use super::entries::{entry, key_hasher};
use super::trees::Entries;

/// The longest line of the journal that is read: a record has at most 64 KiB, and some bytes are written as six.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Which ledger is asked instead of Kafka and Postgres.
#[derive(Debug, Clone, Default, Args)]
pub struct AgainstArguments {
    /// Verifies the ledger at this address over HTTP, without Kafka and Postgres: its trees, and no rows
    #[arg(long, value_name = "URL")]
    pub against: Option<String>,
    /// An auditor's key, with --against
    #[arg(long, env = "LEDGER_KEY", hide_env_values = true)]
    pub key: Option<String>,
}

/// A ledger that is asked over HTTP.
#[derive(Debug, Clone)]
pub struct Ledger {
    client: Client,
    url: String,
    key: Option<String>,
}

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

/// The last checkpoint of a partition.
#[derive(Debug, Clone, Deserialize)]
pub struct Checkpoint {
    pub partition: i32,
    pub size: u64,
    pub checkpoint: String,
}

#[derive(Deserialize)]
struct Key {
    vkey: String,
}

/// A record of the journal, as it is read over HTTP.
#[derive(Deserialize)]
struct Line<'a> {
    offset: u64,
    leaf: u64,
    timestamp: Time,
    key: Option<String>,
    key_base64: Option<String>,
    value_sha256: Option<String>,
    value_base64: Option<String>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
}

/// A record's parts as they are stored.
struct Stored {
    leaf: u64,
    offset: u64,
    timestamp_ms: u64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl Ledger {
    pub fn at(url: &str, key: Option<String>) -> Ledger {
        Ledger { client: http_client::plain(), url: url.trim_end_matches('/').to_owned(), key }
    }

    async fn get(&self, path: &str) -> Result<Option<Response>> {
        let mut request = self.client.get(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.with_context(|| format!("{} can't be reached", self.url))?;
        match response.status() {
            StatusCode::OK => Ok(Some(response)),
            StatusCode::NOT_FOUND => Ok(None),
            status => bail!("{path}: {status} {}", response.text().await.unwrap_or_default()),
        }
    }

    /// Returns the last checkpoints; none before the first.
    pub async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let Some(response) = self.get("/v1/audit/checkpoints").await? else { return Ok(Vec::new()) };
        let list: List<Checkpoint> = serde_json::from_slice(&response.bytes().await?)?;
        Ok(list.items)
    }

    /// Returns the keys that the ledger lists; those that can't be read open nothing.
    pub async fn keys(&self) -> Result<Vec<VerifierKey>> {
        let response = self.get("/v1/audit/log/keys").await?.context("the ledger has no audit log")?;
        let list: List<Key> = serde_json::from_slice(&response.bytes().await?)?;
        Ok(list.items.iter().filter_map(|key| key.vkey.parse().ok()).collect())
    }

    /// Returns which journal it is, by its first record.
    pub async fn identity(&self) -> Result<LogIdentity> {
        let response =
            self.get("/v1/audit/events?partition=0&until=1").await?.context("there is no journal")?;
        let line = response.bytes().await?;
        let first = stored(&line)?;
        let genesis = genesis_of(first.key.as_deref(), first.value.as_deref().unwrap_or_default());
        genesis.context("the journal does not begin with its first record")
    }

    /// Reads the entries of a partition's journal, from the records themselves.
    pub fn journal(&self, identity: LogIdentity, partition: i32) -> Entries {
        let reader = Reader { ledger: self.clone(), partition, response: None, buffer: VecDeque::new() };
        let (mut hasher, mut next) = (None::<KeyHasher>, 0);
        let lines = stream::try_unfold(reader, Reader::next_line);
        Box::pin(lines.and_then(move |line| {
            let entry = stored(&line).and_then(|record| {
                ensure!(
                    record.leaf == next,
                    "{partition}:{} has leaf {}, not {next}",
                    record.offset,
                    record.leaf
                );
                next += 1;
                let value = record.value.as_deref();
                let hasher =
                    hasher.get_or_insert_with(|| key_hasher(value.unwrap_or_default(), identity.log_id));
                Ok(entry(hasher, record.offset, record.timestamp_ms, record.key.as_deref(), value))
            });
            std::future::ready(entry)
        }))
    }

    /// Reads the entries that a partition's log has, up to a size.
    pub fn kept(&self, identity: LogIdentity, partition: i32, size: u64) -> Entries {
        let bundles = stream::try_unfold((self.clone(), 0), move |(ledger, index)| async move {
            let Some(tile) = Tile::at(Kind::Entries, index, size) else { return anyhow::Ok(None) };
            let path = format!("/v1/audit/log/{}/{partition}/{tile}", identity.log_id);
            let response = ledger.get(&path).await?.with_context(|| format!("{path} is missing"))?;
            let bytes = response.bytes().await?;
            let entries = bundle::entries(&bytes)?;
            let entries: Vec<Entry> =
                entries.into_iter().map(Entry::decode).collect::<Result<_, _>>().context(path)?;
            Ok(Some((entries, (ledger, index + 1))))
        });
        Box::pin(bundles.map_ok(|entries| stream::iter(entries.into_iter().map(Ok))).try_flatten())
    }
}

/// Reads the lines of one answer.
struct Reader {
    ledger: Ledger,
    partition: i32,
    response: Option<Response>,
    buffer: VecDeque<u8>,
}

impl Reader {
    async fn next_line(mut self) -> Result<Option<(Vec<u8>, Reader)>> {
        let mut response = match self.response.take() {
            Some(response) => response,
            None => {
                let path = format!("/v1/audit/events?partition={}", self.partition);
                self.ledger.get(&path).await?.context("there is no such partition")?
            }
        };
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.drain(..=end).collect();
                self.response = Some(response);
                return Ok(Some((line, self)));
            }
            ensure!(self.buffer.len() <= LINE_BYTES_MAX, "a line of the journal is too long");
            match response.chunk().await.context("the journal broke off")? {
                Some(chunk) => self.buffer.extend(chunk),
                None => {
                    ensure!(self.buffer.is_empty(), "the journal broke off within a line");
                    return Ok(None);
                }
            }
        }
    }
}

/// Reads a record's stored bytes from its line.
fn stored(line: &[u8]) -> Result<Stored> {
    let line: Line<'_> = serde_json::from_slice(line).context("a line of the journal can't be read")?;
    let of_base64 = |text: Option<String>| text.map(|text| STANDARD.decode(text)).transpose();
    let key = of_base64(line.key_base64)?.or(line.key.map(String::into_bytes));
    let exact = line.event.map(|event| event.get().as_bytes().to_vec());
    // No value looks like a stored null, which is in base64 then.
    let exact = exact.filter(|value| value != b"null");
    let value = of_base64(line.value_base64)?.or(exact);
    let hash = value.as_deref().map(|value| hex::encode(transparency_log::hash::Hash::of(value).0));
    ensure!(hash == line.value_sha256, "record {} is not what its value_sha256 says", line.offset);
    let timestamp_ms = (line.timestamp.micros() / 1_000).unsigned_abs();
    Ok(Stored { leaf: line.leaf, offset: line.offset, timestamp_ms, key, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a record's key and value.
    type Bytes<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

    fn check(key: &str, value: &str, expected: Option<Bytes<'_>>) {
        let line = format!(
            r#"{{"partition":0,"offset":7,"leaf":6,"timestamp":"2026-02-03T10:00:00.250Z",{key},{value}}}"#
        );
        let found = stored(line.as_bytes()).ok();
        if let Some(found) = &found {
            assert_eq!((found.offset, found.leaf, found.timestamp_ms % 1_000), (7, 6, 250));
        }
        let found = found.as_ref().map(|found| (found.key.as_deref(), found.value.as_deref()));
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn a_line_has_the_bytes_of_its_record() {
        let sha = |value: &[u8]| {
            format!(r#""value_sha256":"{}""#, hex::encode(transparency_log::hash::Hash::of(value).0))
        };
        let key = r#""key":"acme""#;
        let spaced = br#"{"a":  1}"#;
        check(key, &format!(r#"{},"event":{{"a":  1}}"#, sha(spaced)), Some((Some(b"acme"), Some(spaced))));
        check(
            r#""key":null,"key_base64":"/w==""#,
            &format!(r#"{},"value_base64":"AAE=","event":null"#, sha(b"\x00\x01")),
            Some((Some(b"\xff"), Some(b"\x00\x01"))),
        );
        check(r#""key":null"#, r#""value_sha256":null,"event":null"#, Some((None, None)));
        check(
            key,
            &format!(r#"{},"value_base64":"","event":null"#, sha(b"")),
            Some((Some(b"acme"), Some(b""))),
        );
        check(
            key,
            &format!(r#"{},"value_base64":"bnVsbA==","event":null"#, sha(b"null")),
            Some((Some(b"acme"), Some(b"null"))),
        );
        check(key, &format!(r#"{},"event":{{"a":2}}"#, sha(b"{\"a\":1}")), None);
    }
}
