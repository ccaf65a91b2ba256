//! Trees: computes each partition's tree from the journal, and holds it against the checkpoints that were signed and the
//! entries that the log kept.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use anyhow::{Context, Result};
use engine::tables::{log_size, log_tile};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde::Serialize;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::runtime::Handle;
use transparency_log::bundle;
use transparency_log::comparison::{self, compare};
use transparency_log::entry::Entry;
use transparency_log::hash::Hash;
use transparency_log::tile::{Kind, Tile, WIDTH};
use transparency_log::tree::Tree;

use platform::pg::{self, Schema};

use super::finding::{Finding, Note, Record};
use super::trust::Signed;

/// A partition's tree by the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Computed {
    pub partition: i32,
    pub records: u64,
    pub size: u64,
    /// In base64.
    pub root: String,
}

/// The entries of one side, in the order of their leaves.
pub(super) type Entries = Pin<Box<dyn Stream<Item = Result<Entry>> + Send>>;

/// What was found of one partition.
pub(super) struct Verified {
    pub computed: Computed,
    pub findings: Vec<Finding>,
    /// Records that differ beside those that are named.
    pub more: u64,
}

/// Verifies one partition: the entries of its journal against those that the log kept, and both against what was signed.
pub(super) async fn verify(
    partition: i32,
    journal: Entries,
    kept: Entries,
    signed: Vec<Signed>,
    mut seen: impl FnMut() + Send + 'static,
) -> Result<Verified> {
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || {
        let sizes: BTreeSet<u64> = signed.iter().map(|signed| signed.head.size).collect();
        let mut kept = Side::new(handle.clone(), kept, sizes.clone(), || {});
        let mut journal = Side::new(handle, journal, sizes, &mut seen);
        let compared = compare(&mut kept, &mut journal)?;
        journal.by_ref().try_for_each(|entry| entry.map(drop))?;
        let head = journal.tree.head();
        let (size, root) = (head.size, head.root.to_string());
        let more = compared.more;
        Ok(Verified {
            computed: Computed { partition, records: size, size, root },
            findings: findings(partition, &signed, &journal.into_heads(), &kept.into_heads(), &compared),
            more,
        })
    })
    .await
    .context("the comparison of the trees ended")?
}

/// The roots of a tree at the sizes that matter.
#[derive(Debug, Default)]
struct Heads {
    size: u64,
    roots: BTreeMap<u64, Hash>,
}

impl Heads {
    fn has(&self, signed: &Signed) -> bool {
        self.roots.get(&signed.head.size) == Some(&signed.head.root)
    }
}

/// Entries while their tree is computed.
struct Side<F> {
    handle: Handle,
    entries: Entries,
    tree: Tree,
    sizes: BTreeSet<u64>,
    roots: BTreeMap<u64, Hash>,
    seen: F,
}

impl<F: FnMut()> Side<F> {
    fn new(handle: Handle, entries: Entries, sizes: BTreeSet<u64>, seen: F) -> Self {
        Self { handle, entries, tree: Tree::new(), sizes, roots: BTreeMap::new(), seen }
    }

    fn into_heads(self) -> Heads {
        Heads { size: self.tree.size(), roots: self.roots }
    }
}

impl<F: FnMut()> Iterator for Side<F> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        let entry = self.handle.block_on(self.entries.next())?;
        if let Ok(entry) = &entry {
            self.tree.append(entry.leaf_hash(), &mut Vec::new());
            (self.seen)();
            if self.sizes.contains(&self.tree.size()) {
                self.roots.insert(self.tree.size(), self.tree.root());
            }
        }
        Some(entry)
    }
}

/// Says what is wrong, from what was signed, what the journal gives, and what the log kept.
fn findings(
    partition: i32,
    signed: &[Signed],
    journal: &Heads,
    kept: &Heads,
    compared: &comparison::Findings,
) -> Vec<Finding> {
    // Up to here the journal is proved by a signature: what the log kept otherwise is wrong, and named as a row.
    let proved = signed.iter().filter(|signed| journal.has(signed)).map(|signed| signed.head.size).max();
    let proved = proved.unwrap_or(0);
    let records = compared.named.iter().filter(|found| found.leaf >= proved);
    let mut findings: Vec<Finding> =
        records.map(|found| Finding::Record(Record::of(partition, *found))).collect();
    let mut is_placed = !findings.is_empty();
    let mut shrunk: BTreeMap<&str, &Signed> = BTreeMap::new();
    let mut by_size: Vec<&Signed> = signed.iter().collect();
    by_size.sort_by_key(|signed| signed.head.size);
    for signed in by_size {
        if signed.head.size > journal.size {
            // The greatest of each keeper says it all.
            shrunk.insert(keeper(&signed.file), signed);
        } else if !journal.has(signed) {
            if signed.head.size <= proved || (!kept.has(signed) && kept.size >= signed.head.size) {
                findings.push(note("checkpoint_fork", signed));
            } else if !is_placed {
                is_placed = true;
                let between = Some([proved, signed.head.size]);
                let kind = "record_altered";
                findings.push(Finding::Record(Record { kind, partition, offset: None, leaf: None, between }));
            }
        }
    }
    findings.extend(shrunk.into_values().map(|signed| note("log_shrunk", signed)));
    findings
}

/// Returns the file or table that a checkpoint is kept in, without its place there.
fn keeper(file: &str) -> &str {
    file.split_once(' ').map_or(file, |(keeper, _)| keeper)
}

fn note(kind: &'static str, signed: &Signed) -> Finding {
    let Signed { file, origin, head, .. } = signed;
    Finding::Note(Note { kind, file: file.clone(), origin: Some(origin.clone()), size: Some(head.size) })
}

/// Reads the entries that the log kept in the live generation, as one snapshot has them; up to the first bundle that can't
/// be read, which the comparison of rows names.
pub(super) async fn kept(pool: &PgPool, live: Schema, partition: i32) -> Result<(Entries, i64)> {
    let mut tx = pg::begin_read(pool, live).await?;
    let log = log_size::read(&mut tx, &[partition]).await?.into_iter().next();
    let Some(log) = log else { return Ok((Box::pin(stream::empty()), 0)) };
    let size = u64::try_from(log.size).unwrap_or_default();
    let bundles = stream::try_unfold(Some((tx, 0)), move |state| next_bundle(state, partition, size));
    let entries = bundles.map_ok(|entries| stream::iter(entries.into_iter().map(anyhow::Ok))).try_flatten();
    Ok((Box::pin(entries), log.next_offset))
}

type Bundles = Option<(Transaction<'static, Postgres>, u64)>;

async fn next_bundle(state: Bundles, partition: i32, size: u64) -> Result<Option<(Vec<Entry>, Bundles)>> {
    let Some((mut tx, index)) = state else { return Ok(None) };
    let Some(tile) = Tile::at(Kind::Entries, index, size) else { return Ok(None) };
    let bytes = log_tile::read(&mut tx, partition, tile).await?;
    let entries = bytes.and_then(|bytes| {
        let entries = bundle::entries(&bytes).ok()?;
        entries.into_iter().map(|entry| Entry::decode(entry).ok()).collect::<Option<Vec<Entry>>>()
    });
    let goes_on = tile.width == WIDTH;
    Ok(entries.map(|entries| (entries, goes_on.then_some((tx, index + 1)))))
}

#[cfg(test)]
mod tests {
    use transparency_log::entry::Content;
    use transparency_log::tree::Head;

    use super::*;

    /// A record of one letter, at the offset of its place.
    fn entries(letters: &str) -> Vec<Entry> {
        let entry = |(offset, letter): (usize, char)| Entry {
            offset: offset as u64,
            timestamp_ms: 0,
            content: Content::Readable { key: None, value: Some(Hash::of(letter.to_string().as_bytes())) },
        };
        letters.chars().enumerate().map(entry).collect()
    }

    fn head(letters: &str) -> Head {
        let mut tree = Tree::new();
        entries(letters).iter().for_each(|entry| tree.append(entry.leaf_hash(), &mut Vec::new()));
        tree.head()
    }

    fn all(letters: &str) -> Entries {
        Box::pin(stream::iter(entries(letters).into_iter().map(Ok)))
    }

    /// Signs trees of these letters, and compares a journal with what the log kept.
    async fn check(signed: &[&str], kept: &str, journal: &str, expected: &str) {
        let of = |(at, letters): (usize, &&str)| Signed {
            file: format!("file{at}"),
            partition: 0,
            origin: "log/0".to_owned(),
            head: head(letters),
        };
        let signed = signed.iter().enumerate().map(of).collect();
        let verified = verify(0, all(journal), all(kept), signed, || {}).await.expect("verified");
        let size = journal.len() as u64;
        let computed = Computed { partition: 0, records: size, size, root: head(journal).root.to_string() };
        assert_eq!(verified.computed, computed);
        let said = |finding: &Finding| match finding {
            Finding::Record(Record { kind, leaf: Some(leaf), .. }) => format!("{kind} {leaf}"),
            Finding::Record(Record { kind, between, .. }) => format!("{kind} {between:?}"),
            Finding::Note(Note { kind, file, .. }) => format!("{kind} {file}"),
            Finding::Row(row) => panic!("{row:?}"),
        };
        let said: Vec<String> = verified.findings.iter().map(said).collect();
        assert_eq!(said.join(", "), expected, "{kept} {journal}");
    }

    #[tokio::test]
    async fn a_journal_that_is_what_was_signed_has_no_findings() {
        check(&[], "", "", "").await;
        check(&["ab", "abcd"], "abcdef", "abcdefgh", "").await;
        check(&["ab", "abcd"], "", "abcdefgh", "").await;
    }

    #[tokio::test]
    async fn a_changed_record_is_placed_where_its_entry_is_kept() {
        check(&["ab", "abcd"], "abcdef", "abXdefgh", "record_altered 2").await;
        check(&["ab", "abcd"], "abcdef", "abcdXfgh", "record_altered 4").await;
        check(
            &["abcd"],
            "abcdef",
            "abc",
            "record_missing 3, record_missing 4, record_missing 5, log_shrunk file0",
        )
        .await;
        check(&[], "abcdef", "Xbcdef", "record_altered 0").await;
    }

    #[tokio::test]
    async fn without_kept_entries_it_is_placed_between_two_checkpoints() {
        check(&["a", "ab", "abcd", "abcdef"], "", "abXdefgh", "record_altered Some([2, 4])").await;
        check(&["ab"], "", "aXcd", "record_altered Some([0, 2])").await;
    }

    #[tokio::test]
    async fn what_a_signature_proves_is_not_doubted_for_what_the_log_kept() {
        // Rows that somebody changed are found as rows.
        check(&["abcd"], "abXdef", "abcdef", "").await;
        check(&["abcd"], "abcdeX", "abcdef", "record_altered 5").await;
    }

    #[tokio::test]
    async fn a_second_history_is_a_fork_and_a_lost_end_is_named() {
        check(&["abcd", "abcX"], "abcdef", "abcdef", "checkpoint_fork file1").await;
        check(&["abcd", "abcX"], "", "abcdef", "checkpoint_fork file1").await;
        check(&["abcX"], "abcdef", "abcdef", "checkpoint_fork file0").await;
        check(&["ab", "abcdefgh"], "abc", "abcd", "log_shrunk file1").await;
    }
}
