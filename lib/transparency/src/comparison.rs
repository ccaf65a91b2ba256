//! Comparison: the entries that a log kept against those that its journal gives now, to say which records were changed.
//!
//! Both are aligned by what their records hold, not by their offsets: whoever takes a record out of a journal moves all
//! those behind it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::iter::Fuse;

use crate::entry::{Content, Entry};

/// How far ahead the same record is looked for on the other side. It bounds memory and time.
const AHEAD_MAX: usize = 1_024;

/// The most findings that are kept; the others are counted.
pub const FINDINGS_MAX: usize = 10_000;

/// What happened to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It holds something else now, or has another time or offset.
    Altered,
    Missing,
    Added,
    /// It stands at another place among the others.
    Reordered,
}

/// One record that is not as the log kept it, by its place there; an added one by its place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub leaf: u64,
    pub offset: u64,
    pub kind: Kind,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// In the order of their places.
    pub named: Vec<Finding>,
    /// How many there are beside those that are named.
    pub more: u64,
}

/// Compares kept entries with those of the journal, each from the first leaf on. What the journal has behind the kept
/// ones is new, and no finding.
pub fn compare<E>(
    kept: impl Iterator<Item = Result<Entry, E>>,
    found: impl Iterator<Item = Result<Entry, E>>,
) -> Result<Findings, E> {
    let mut comparison = Comparison {
        kept: Side::new(kept),
        found: Side::new(found),
        shift: 0,
        changes: Vec::new(),
        findings: Findings::default(),
    };
    while comparison.step()? {}
    Ok(comparison.findings())
}

/// An entry with its place.
#[derive(Debug, Clone, Copy)]
struct Leaf {
    leaf: u64,
    entry: Entry,
}

/// One of both sides, with some entries read ahead.
struct Side<I: Iterator> {
    entries: Fuse<I>,
    ahead: VecDeque<Leaf>,
    next_leaf: u64,
}

impl<E, I: Iterator<Item = Result<Entry, E>>> Side<I> {
    fn new(entries: I) -> Side<I> {
        Side { entries: entries.fuse(), ahead: VecDeque::new(), next_leaf: 0 }
    }

    /// Reads ahead, so that as many entries are at hand as there are.
    fn fill(&mut self, count: usize) -> Result<(), E> {
        while self.ahead.len() < count {
            let Some(entry) = self.entries.next().transpose()? else { return Ok(()) };
            self.ahead.push_back(Leaf { leaf: self.next_leaf, entry });
            self.next_leaf += 1;
        }
        Ok(())
    }
}

/// A record that one side lacks, or that both have differently.
#[derive(Debug, Clone, Copy)]
struct Change {
    kept: Option<Leaf>,
    found: Option<Leaf>,
}

struct Comparison<K: Iterator, F: Iterator> {
    kept: Side<K>,
    found: Side<F>,
    /// How much farther behind a record stands in the journal than in the log, for what was found already.
    shift: i128,
    changes: Vec<Change>,
    findings: Findings,
}

impl<E, K, F> Comparison<K, F>
where
    K: Iterator<Item = Result<Entry, E>>,
    F: Iterator<Item = Result<Entry, E>>,
{
    /// Compares the next record of both; false once all kept ones are compared.
    fn step(&mut self) -> Result<bool, E> {
        self.kept.fill(1)?;
        self.found.fill(1)?;
        let Some(kept) = self.kept.ahead.front().copied() else { return Ok(false) };
        match self.found.ahead.front().copied() {
            Some(found) if found.entry.content == kept.entry.content => self.compare_aligned(kept, found),
            _ => self.align()?,
        }
        Ok(true)
    }

    /// Compares a record that holds the same on both sides: its time and offset may be others.
    fn compare_aligned(&mut self, kept: Leaf, found: Leaf) {
        self.kept.ahead.pop_front();
        self.found.ahead.pop_front();
        let shift = i128::from(found.entry.offset) - i128::from(kept.entry.offset);
        if shift != self.shift || found.entry.timestamp_ms != kept.entry.timestamp_ms {
            self.note(Change { kept: Some(kept), found: Some(found) });
        }
        self.shift = shift;
    }

    /// Finds the nearest record that both sides have, and takes what stands before it as changed.
    fn align(&mut self) -> Result<(), E> {
        self.kept.fill(AHEAD_MAX)?;
        self.found.fill(AHEAD_MAX)?;
        let (kept, found) = self.nearest();
        let mut kept = self.kept.ahead.drain(..kept).collect::<VecDeque<Leaf>>();
        let mut found = self.found.ahead.drain(..found).collect::<VecDeque<Leaf>>();
        while let Some(order) = self.order(kept.front(), found.front()) {
            let change = Change {
                kept: if order == Ordering::Greater { None } else { kept.pop_front() },
                found: if order == Ordering::Less { None } else { found.pop_front() },
            };
            self.note(change);
        }
        // Those behind are moved by what is missing or added here, which is no change of their own.
        if let (Some(kept), Some(found)) = (self.kept.ahead.front(), self.found.ahead.front()) {
            self.shift = i128::from(found.entry.offset) - i128::from(kept.entry.offset);
        }
        Ok(())
    }

    /// Returns which of two changed records stands first, if there are any; the same place is one record.
    fn order(&self, kept: Option<&Leaf>, found: Option<&Leaf>) -> Option<Ordering> {
        match (kept, found) {
            (None, None) => None,
            (Some(_), None) => Some(Ordering::Less),
            (None, Some(_)) => Some(Ordering::Greater),
            (Some(kept), Some(found)) => Some(self.place(kept).cmp(&i128::from(found.entry.offset))),
        }
    }

    /// Returns the offset at which a kept record is to stand in the journal.
    fn place(&self, kept: &Leaf) -> i128 {
        i128::from(kept.entry.offset) + self.shift
    }

    /// Returns how many records of both sides stand before the nearest that both have. If there is none, all kept ones
    /// do, with those that stand up to the place of the last: what stands behind it may be new.
    fn nearest(&self) -> (usize, usize) {
        let (kept, found) = (&self.kept.ahead, &self.found.ahead);
        let mut places: BTreeMap<[u8; Entry::BYTES], usize> = BTreeMap::new();
        for (at, leaf) in found.iter().enumerate() {
            places.entry(held(leaf.entry.content)).or_insert(at);
        }
        let both = kept.iter().enumerate().filter_map(|(at, leaf)| {
            let place = *places.get(&held(leaf.entry.content))?;
            Some((at + place, at.abs_diff(place), at, place))
        });
        let last = kept.back().map(|last| self.place(last));
        let up_to_last = |leaf: &Leaf| Some(i128::from(leaf.entry.offset)) <= last;
        both.min()
            .map_or_else(|| (kept.len(), found.partition_point(up_to_last)), |(_, _, at, place)| (at, place))
    }

    fn note(&mut self, change: Change) {
        if self.changes.len() < FINDINGS_MAX {
            self.changes.push(change);
        } else {
            self.findings.more += 1;
        }
    }

    /// Names what was found. A record that stands among the changed ones of the journal, elsewhere, was moved.
    fn findings(mut self) -> Findings {
        let mut elsewhere: Counts = BTreeMap::new();
        for found in self.changes.iter().filter_map(|change| change.found) {
            *elsewhere.entry(held(found.entry.content)).or_default() += 1;
        }
        let (mut moved, mut gone): (Counts, Vec<Change>) = Default::default();
        let mut named = Vec::new();
        for change in &self.changes {
            let Some(kept) = change.kept else { continue };
            let content = held(kept.entry.content);
            let stays = change.found.is_some_and(|found| held(found.entry.content) == content);
            if !stays && take(&mut elsewhere, &content) {
                *moved.entry(content).or_default() += 1;
                named.push(kept.finding(Kind::Reordered));
            } else {
                gone.push(*change);
            }
        }
        for Change { kept, found } in gone {
            // Where a moved record stands in its place, nothing says that it became that one.
            let became = found.filter(|found| !moved.contains_key(&held(found.entry.content)));
            let kind = if became.is_some() { Kind::Altered } else { Kind::Missing };
            named.extend(kept.map(|kept| kept.finding(kind)));
        }
        for change in self.changes.iter().filter(|change| change.kept.is_none()) {
            let Some(found) = change.found else { continue };
            if !take(&mut moved, &held(found.entry.content)) {
                named.push(found.finding(Kind::Added));
            }
        }
        named.sort_unstable();
        self.findings.named = named;
        self.findings
    }
}

/// How often records stand somewhere, by what they hold.
type Counts = BTreeMap<[u8; Entry::BYTES], u64>;

/// Takes one away; false if there is none.
fn take(counts: &mut Counts, content: &[u8; Entry::BYTES]) -> bool {
    let Some(count) = counts.get_mut(content).filter(|count| **count > 0) else { return false };
    *count -= 1;
    true
}

impl Leaf {
    fn finding(self, kind: Kind) -> Finding {
        Finding { leaf: self.leaf, offset: self.entry.offset, kind }
    }
}

/// Returns what a record holds, whatever its place and time.
fn held(content: Content) -> [u8; Entry::BYTES] {
    Entry { offset: 0, timestamp_ms: 0, content }.encode()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::hash::Hash;

    /// A log of records that are all different.
    fn log(size: u64) -> Vec<Entry> {
        (0..size).map(|offset| record(offset, offset)).collect()
    }

    fn record(offset: u64, value: u64) -> Entry {
        let content = Content::Readable { key: None, value: Some(Hash::of(&value.to_be_bytes())) };
        Entry { offset, timestamp_ms: 1_000 + offset, content }
    }

    fn compared(kept: &[Entry], found: &[Entry]) -> Vec<Finding> {
        let read = |entry: &Entry| Ok::<Entry, Infallible>(*entry);
        let findings =
            compare(kept.iter().map(read), found.iter().map(read)).unwrap_or_else(|never| match never {});
        assert_eq!(findings.more, 0);
        findings.named
    }

    fn check(found: &[Entry], expected: &[(Kind, u64)]) {
        let named: Vec<(Kind, u64)> =
            compared(&log(10), found).iter().map(|finding| (finding.kind, finding.offset)).collect();
        assert_eq!(named, expected);
    }

    /// Gives the records of a journal the offsets that they would have.
    fn renumbered(mut entries: Vec<Entry>) -> Vec<Entry> {
        (0..).zip(&mut entries).for_each(|(offset, entry)| entry.offset = offset);
        entries
    }

    #[test]
    fn a_log_that_is_as_it_was_has_no_findings() {
        check(&log(10), &[]);
        // What came later is new.
        check(&log(12), &[]);
    }

    #[test]
    fn a_record_that_holds_something_else_is_altered() {
        let mut found = log(10);
        found[4] = record(4, 99);
        check(&found, &[(Kind::Altered, 4)]);
        found[5] = record(5, 98);
        found[9] = record(9, 97);
        check(&found, &[(Kind::Altered, 4), (Kind::Altered, 5), (Kind::Altered, 9)]);
        let mut found = log(10);
        found[4].timestamp_ms += 1;
        check(&found, &[(Kind::Altered, 4)]);
        found[0].content = Content::Unreadable;
        check(&found, &[(Kind::Altered, 0), (Kind::Altered, 4)]);
    }

    #[test]
    fn what_came_behind_an_altered_record_is_new() {
        let mut found = log(600);
        found[9] = record(9, 999);
        check(&found, &[(Kind::Altered, 9)]);
        found[0] = record(0, 998);
        check(&found, &[(Kind::Altered, 0), (Kind::Altered, 9)]);
    }

    #[test]
    fn a_record_that_was_taken_out_is_missing() {
        let mut found = log(10);
        found.remove(4);
        check(&found, &[(Kind::Missing, 4)]);
        // Whoever makes the journal anew moves those behind it, which are no findings of their own.
        let moved = renumbered(found);
        check(&moved, &[(Kind::Missing, 4)]);
        check(&log(7), &[(Kind::Missing, 7), (Kind::Missing, 8), (Kind::Missing, 9)]);
        let mut found = log(12);
        found.remove(9);
        check(&found, &[(Kind::Missing, 9)]);
        found[2] = record(2, 99);
        found.remove(1);
        check(&found, &[(Kind::Missing, 1), (Kind::Altered, 2), (Kind::Missing, 9)]);
    }

    #[test]
    fn a_record_that_was_put_in_is_added() {
        let mut found = log(10);
        found.insert(4, record(4, 99));
        check(&renumbered(found.clone()), &[(Kind::Added, 4)]);
        found.insert(0, record(0, 98));
        check(&renumbered(found), &[(Kind::Added, 0), (Kind::Added, 5)]);
    }

    #[test]
    fn records_that_changed_places_are_reordered() {
        let swapped = |one: usize, other: usize| {
            let mut found = log(10);
            let content = found[one].content;
            found[one].content = found[other].content;
            found[other].content = content;
            found
        };
        check(&swapped(2, 7), &[(Kind::Reordered, 2), (Kind::Reordered, 7)]);
        // Of two neighbours one was moved behind the other.
        let found = compared(&log(10), &swapped(2, 3));
        assert!(
            found.iter().any(|finding| finding.kind == Kind::Reordered && (2..=3).contains(&finding.leaf))
        );
        assert!(found.iter().all(|finding| (2..=3).contains(&finding.offset)), "{found:?}");
    }

    #[test]
    fn a_journal_of_which_nothing_is_left_is_compared_in_bounded_time() {
        let (kept, found) = (log(30_000), (0..30_000).map(|offset| record(offset, offset + 50_000)));
        let entries = |entries: Vec<Entry>| entries.into_iter().map(Ok::<Entry, Infallible>);
        let findings =
            compare(entries(kept), entries(found.collect())).unwrap_or_else(|never| match never {});
        assert_eq!(findings.named.len(), FINDINGS_MAX);
        assert_eq!(findings.more, 20_000);
    }

    #[test]
    fn an_error_of_either_side_ends_the_comparison() {
        let entries = || log(3).into_iter().map(Ok).chain([Err("lost")]);
        let good = || log(5).into_iter().map(Ok);
        assert_eq!(compare(entries(), good()), Err("lost"));
        assert_eq!(compare(good(), entries()), Err("lost"));
    }

    proptest! {
        #[test]
        fn one_change_of_a_random_log_is_found_at_its_place(
            size in 2..3_000_u64, at in any::<Index>(), kind in 0..3_u8, moves in any::<bool>(),
            later in 0..50_u64,
        ) {
            let kept = log(size);
            let at = at.index(kept.len());
            let mut found = kept.clone();
            let expected = match kind {
                0 => { found[at].content = Content::Unreadable; Kind::Altered }
                1 => { found.remove(at); Kind::Missing }
                _ => { found.insert(at, record(at as u64, size + 1)); Kind::Added }
            };
            let mut found = if moves || expected == Kind::Added { renumbered(found) } else { found };
            let renewed = moves || expected == Kind::Added;
            let end = if renewed { found.len() as u64 - 1 } else { size - 1 };
            found.extend((1..=later).map(|more| record(end + more, size + 10 + more)));
            let place = at as u64;
            // A record at the place of the last looks like that one, altered.
            let is_replaced = expected == Kind::Missing && renewed && place == size - 1 && later > 0;
            let expected = if is_replaced { Kind::Altered } else { expected };
            prop_assert_eq!(compared(&kept, &found), vec![Finding { leaf: place, offset: place, kind: expected }]);
        }
    }
}
