//! Measures on one core what a log costs per record, and how that compares with SHA-256 of the same bytes alone:
//!
//! ```text
//! cargo run --release -p transparency-log --example throughput
//! ```

// A program for the terminal.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use transparency_log::appender::Appender;
use transparency_log::entry::{Content, Entry, KeyHasher};
use transparency_log::hash::Hash;

const RECORDS: u64 = 1_000_000;

/// Each is measured so often, in turn; the least counts, because the machine may be shared.
const ROUNDS: usize = 5;

/// About what a usage has in the journal.
const VALUE_BYTES: usize = 450;

const KEY: &[u8] = b"0191f0c2-6f0e-7b7a-8d1e-1f2a3b4c5d6e";

/// Between two roots: a batch of the projector.
const BATCH_RECORDS: u64 = 1_000;

fn main() {
    let steps: [(&str, fn()); 4] = [
        ("SHA-256 of keys and values alone", bare_hashes),
        ("hashes of keys and values", hashes_of_records),
        ("tree, tiles and bundles alone", tree_alone),
        ("all that a log costs", whole_log),
    ];
    let mut least = [Duration::MAX; 4];
    for _ in 0..ROUNDS {
        for ((_, step), least) in steps.iter().zip(&mut least) {
            let began = Instant::now();
            step();
            *least = began.elapsed().min(*least);
        }
    }
    for ((what, _), took) in steps.iter().zip(least) {
        let seconds = took.as_secs_f64();
        let each = seconds * 1e9 / RECORDS as f64;
        let (rate, ratio) = (RECORDS as f64 / seconds, seconds / least[0].as_secs_f64());
        println!("{what:<36} {each:>6.0} ns a record {rate:>12.0} records/s {ratio:>6.2} x bare");
    }
}

/// Returns a value that no other record has.
fn value(offset: u64) -> [u8; VALUE_BYTES] {
    let mut value = [b'x'; VALUE_BYTES];
    value[..8].copy_from_slice(&offset.to_be_bytes());
    value
}

fn bare_hashes() {
    let mut record = [b'x'; VALUE_BYTES + KEY.len()];
    record[..KEY.len()].copy_from_slice(KEY);
    for offset in 0..RECORDS {
        record[KEY.len()..KEY.len() + 8].copy_from_slice(&offset.to_be_bytes());
        black_box(Hash::of(&record));
    }
}

fn entry(offset: u64, hasher: &KeyHasher) -> Entry {
    let content = Content::Readable { key: Some(hasher.hash(KEY)), value: Some(Hash::of(&value(offset))) };
    Entry { offset, timestamp_ms: offset, content }
}

fn hashes_of_records() {
    let hasher = KeyHasher::new(&[7; 32]);
    for offset in 0..RECORDS {
        black_box(entry(offset, &hasher));
    }
}

fn tree_alone() {
    let entry = |offset| Entry { offset, timestamp_ms: offset, content: Content::Unreadable };
    append(entry);
}

fn whole_log() {
    let hasher = KeyHasher::new(&[7; 32]);
    append(|offset| entry(offset, &hasher));
}

/// Appends in batches, with all that is kept after each.
fn append(entry: impl Fn(u64) -> Entry) {
    let mut log = Appender::new();
    for first in (0..RECORDS).step_by(usize::try_from(BATCH_RECORDS).expect("a small number")) {
        let mut tiles = Vec::new();
        for offset in first..first + BATCH_RECORDS {
            log.append(&entry(offset), &mut tiles);
        }
        tiles.extend(log.unfinished());
        black_box((tiles, log.head()));
    }
}
