//! A checkpoint that a log and a witness have signed is trusted as it stands, and in no other form.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use transparency_log::checkpoint::Checkpoint;
use transparency_log::hash::Hash;
use transparency_log::key::{Kind, SignerKey, VerifierKey};
use transparency_log::key_file::LogKey;
use transparency_log::note::Note;
use transparency_log::policy::Policy;
use transparency_log::signature::Signature;
use transparency_log::tree::Head;
use transparency_log::witness::Request;

const ORIGIN: &str = "ledger.local/v1/audit/log/6ba7b810-9dad-11d1-80b4-00c04fd430c8/0";

fn log() -> SignerKey {
    LogKey::from_seed([1; 32]).signer(&ORIGIN.parse().unwrap())
}

fn witness() -> SignerKey {
    SignerKey::new("witness.example/w1".parse().unwrap(), &[2; 32])
}

fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint { origin: ORIGIN.parse().unwrap(), head: Head { size, root: Hash::of(&size.to_be_bytes()) } }
}

fn note(size: u64) -> Note {
    let mut note = checkpoint(size).sign(&[log()]);
    note.add(witness().cosign(note.text(), 1_700_000_000));
    note
}

fn policy() -> Policy {
    let (log, witness) = (log().verifier(Kind::Ed25519), witness().verifier(Kind::Cosignature));
    Policy::parse(format!("log {log}\nwitness w {witness}\nquorum w\n").as_bytes()).unwrap()
}

fn is_trusted(note: &[u8], policy: &Policy) -> bool {
    Note::parse(note).is_ok_and(|note| policy.open(&note).is_ok())
}

#[test]
fn a_note_of_which_one_byte_is_changed_is_not_trusted() {
    let (note, policy) = (note(70_000).to_string().into_bytes(), policy());
    assert!(is_trusted(&note, &policy));
    for at in 0..note.len() {
        for change in [1, 2, 0x20, 0xff] {
            let mut other = note.clone();
            other[at] ^= change;
            assert!(!is_trusted(&other, &policy), "byte {at} changed by {change:#x}");
        }
        let shorter = [&note[..at], &note[at + 1..]].concat();
        assert!(!is_trusted(&shorter, &policy), "without byte {at}");
    }
}

#[test]
fn signatures_of_one_checkpoint_are_none_of_another() {
    let (one, other) = (note(5), note(6));
    for signature in one.signatures() {
        let mut mixed = other.clone();
        mixed.add(signature.clone());
        assert!(!is_trusted(mixed.to_string().as_bytes(), &policy()));
    }
    let mut twice = note(5);
    twice.add(witness().cosign(twice.text(), 1_800_000_000));
    assert!(is_trusted(twice.to_string().as_bytes(), &policy()));
}

proptest! {
    #[test]
    fn whatever_is_read_is_written_the_same(text in "\\PC{0,80}") {
        if let Ok(key) = text.parse::<VerifierKey>() {
            prop_assert_eq!(key.to_string(), &*text);
        }
        if let Ok(signature) = text.parse::<Signature>() {
            prop_assert_eq!(signature.to_string(), &*text);
        }
    }

    #[test]
    fn a_note_of_any_text_and_any_unknown_signatures_is_read_and_written_the_same(
        text in "([^\\x00-\\x1f]{0,20}\n){1,6}",
        names in proptest::collection::vec("[a-z./]{1,20}", 1..5),
        bytes in proptest::collection::vec(any::<u8>(), 1..3000),
    ) {
        let mut note = Note::new(text).unwrap();
        for (key_id, name) in names.iter().enumerate() {
            let key_id = u32::try_from(key_id).unwrap();
            note.add(Signature { name: name.parse().unwrap(), key_id, bytes: bytes.clone() });
        }
        let written = note.to_string();
        prop_assert_eq!(&Note::parse(written.as_bytes()).unwrap(), &note);
        let request = Request { old_size: 7, proof: vec![Hash::ZERO; bytes.len() % 64], checkpoint: note };
        prop_assert_eq!(Request::parse(request.to_string().as_bytes()), Ok(request));
    }

    #[test]
    fn no_bytes_bring_a_reader_down(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = (Note::parse(&bytes), Request::parse(&bytes), Policy::parse(&bytes));
        let _ = (transparency_log::entry::Entry::decode(&bytes), transparency_log::bundle::entries(&bytes));
        let text = String::from_utf8_lossy(&bytes);
        let _ = (text.parse::<Checkpoint>(), text.parse::<transparency_log::tile::Tile>());
        let _ = transparency_log::key_file::parse(&text);
    }
}
