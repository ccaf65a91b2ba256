//! Signed note: a text with the signatures of those who stand by it, known here or not.

use std::fmt;

use crate::key::VerifierKey;
use crate::name::KeyName;
use crate::signature::{self, Signature};

/// The largest note that is read. The specification asks for at least 16 signatures, of nearly 5 kB each.
pub const NOTE_BYTES_MAX: usize = 1 << 20;

/// The most signatures that are read.
pub const SIGNATURES_MAX: usize = 100;

/// A text with signatures. Displayed as the note's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a note has at most {NOTE_BYTES_MAX} bytes and {SIGNATURES_MAX} signatures")]
    TooLarge,
    #[error("a note is UTF-8 without control characters")]
    Characters,
    #[error("a note ends with an empty line and lines of signatures")]
    Signatures,
    #[error("a note's text ends with a newline")]
    Text,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    #[error("the signature by {0} is not of this note")]
    BadSignature(KeyName),
    #[error("no known key has signed the note")]
    NoKnownKey,
}

/// A signature that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified<'a> {
    pub key: &'a VerifierKey,
    /// When a witness has signed, in seconds since 1970.
    pub seconds: Option<u64>,
}

impl Note {
    /// Begins a note that nobody has signed yet.
    pub fn new(text: String) -> Result<Note, Malformed> {
        check_characters(&text)?;
        if !text.ends_with('\n') {
            return Err(Malformed::Text);
        }
        Ok(Note { text, signatures: Vec::new() })
    }

    pub fn parse(note: &[u8]) -> Result<Note, Malformed> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(Malformed::TooLarge);
        }
        let note = str::from_utf8(note).map_err(|_| Malformed::Characters)?;
        check_characters(note)?;
        // The text may have empty lines too; its own newline is the first of the two.
        let at = note.rfind("\n\n").ok_or(Malformed::Signatures)?;
        let (text, lines) = (&note[..=at], &note[at + 2..]);
        let signatures = signature::parse_lines(lines).map_err(|_| Malformed::Signatures)?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(Malformed::TooLarge);
        }
        Ok(Note { text: text.to_owned(), signatures })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds a signature, in the place of an earlier one by the same key.
    pub fn add(&mut self, signature: Signature) {
        match self.signatures.iter_mut().find(|earlier| earlier.is_by_key_of(&signature)) {
            Some(earlier) => *earlier = signature,
            None => self.signatures.push(signature),
        }
    }

    /// Verifies the signatures of known keys, at least one; the others say nothing. One key counts once.
    pub fn verify<'a>(&self, keys: &'a [VerifierKey]) -> Result<Vec<Verified<'a>>, Untrusted> {
        let mut verified: Vec<Verified<'a>> = Vec::new();
        for signature in &self.signatures {
            let Some(found) = self.verify_one(signature, keys)? else { continue };
            if verified.iter().all(|earlier| earlier.key != found.key) {
                verified.push(found);
            }
        }
        if verified.is_empty() { Err(Untrusted::NoKnownKey) } else { Ok(verified) }
    }

    /// Verifies one signature; `None` where its key is not known.
    fn verify_one<'a>(
        &self,
        signature: &Signature,
        keys: &'a [VerifierKey],
    ) -> Result<Option<Verified<'a>>, Untrusted> {
        // Key ids are short: two known keys may share a name and an id.
        let mut named = keys.iter().filter(|key| key.is_key_of(signature)).peekable();
        if named.peek().is_none() {
            return Ok(None);
        }
        let verify = |key: &'a VerifierKey| {
            key.verify(&self.text, signature).ok().map(|seconds| Verified { key, seconds })
        };
        match named.find_map(verify) {
            Some(verified) => Ok(Some(verified)),
            None => Err(Untrusted::BadSignature(signature.name.clone())),
        }
    }
}

fn check_characters(text: &str) -> Result<(), Malformed> {
    let is_ok = text.bytes().all(|byte| byte >= b' ' || byte == b'\n');
    if is_ok { Ok(()) } else { Err(Malformed::Characters) }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Kind, SignerKey};

    /// The example of the specification.
    const NOTE: &str = "This is an example message.\n\n\
        — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

    fn parse(note: &str) -> Result<Note, Malformed> {
        Note::parse(note.as_bytes())
    }

    fn signer(name: &str, seed: u8) -> SignerKey {
        SignerKey::new(name.parse().unwrap(), &[seed; 32])
    }

    #[test]
    fn the_example_of_the_specification_verifies() {
        let (note, keys) = (parse(NOTE).unwrap(), [VKEY.parse().unwrap()]);
        assert_eq!(note.text(), "This is an example message.\n");
        assert_eq!(note.verify(&keys).unwrap(), [Verified { key: &keys[0], seconds: None }]);
        assert_eq!(note.to_string(), NOTE);
    }

    #[test]
    fn any_other_text_does_not_verify() {
        let keys = [VKEY.parse().unwrap()];
        let other = parse(&NOTE.replace("message", "massage")).unwrap();
        assert_eq!(other.verify(&keys), Err(Untrusted::BadSignature("example.com/foo".parse().unwrap())));
    }

    #[test]
    fn malformed_notes_are_refused() {
        let line = NOTE.split_once("\n\n").unwrap().1;
        let many = format!("text\n\n{}", line.repeat(SIGNATURES_MAX + 1));
        let large = format!("{}\n\n{line}", "a".repeat(NOTE_BYTES_MAX));
        assert!(parse(&format!("text\n\n{}", line.repeat(SIGNATURES_MAX))).is_ok());
        for (note, why) in [
            ("", Malformed::Signatures),
            ("text\n", Malformed::Signatures),
            ("text\n\n", Malformed::Signatures),
            (line, Malformed::Signatures),
            (&NOTE[..NOTE.len() - 1], Malformed::Signatures),
            (&format!("{NOTE}\n"), Malformed::Signatures),
            (&format!("{NOTE}more\n"), Malformed::Signatures),
            (&NOTE.replace("\n\n", "\n"), Malformed::Signatures),
            (&NOTE.replace('\n', "\r\n"), Malformed::Characters),
            (&NOTE.replace("an example", "an\texample"), Malformed::Characters),
            (&many, Malformed::TooLarge),
            (&large, Malformed::TooLarge),
        ] {
            assert_eq!(parse(note), Err(why), "{note:.60}");
        }
        assert_eq!(
            Note::parse(&[&NOTE.as_bytes()[..4], &[0xff], NOTE.as_bytes()].concat()),
            Err(Malformed::Characters)
        );
        assert_eq!(Note::new("no newline".to_owned()), Err(Malformed::Text));
    }

    #[test]
    fn a_text_may_have_empty_lines() {
        let mut note = Note::new("one\n\nthree\n\n".to_owned()).unwrap();
        note.add(signer("a", 1).sign(note.text()));
        assert_eq!(parse(&note.to_string()).unwrap(), note);
    }

    #[test]
    fn unknown_signatures_are_kept_and_say_nothing() {
        let mut note = Note::new("text\n".to_owned()).unwrap();
        note.add(signer("a", 1).sign("text\n"));
        note.add(signer("b", 2).sign("another\n"));
        note.add("— c/post-quantum AAAAAAYGBgY=".parse().unwrap());
        let kept = parse(&note.to_string()).unwrap();
        assert_eq!(kept, note);
        let known = [signer("a", 1).verifier(Kind::Ed25519)];
        assert_eq!(kept.verify(&known).unwrap().len(), 1);
        // The same name with another key, and the same key with another name, are other keys.
        let others = [signer("a", 2).verifier(Kind::Ed25519), signer("d", 1).verifier(Kind::Ed25519)];
        assert_eq!(kept.verify(&others), Err(Untrusted::NoKnownKey));
        let with_b = [known[0].clone(), signer("b", 2).verifier(Kind::Ed25519)];
        assert_eq!(kept.verify(&with_b), Err(Untrusted::BadSignature("b".parse().unwrap())));
    }

    #[test]
    fn one_key_signs_a_note_once() {
        let (mut note, witness) = (Note::new("text\n".to_owned()).unwrap(), signer("w", 3));
        note.add(witness.cosign("text\n", 1));
        note.add(witness.cosign("text\n", 2));
        let keys = [witness.verifier(Kind::Cosignature)];
        assert_eq!(note.verify(&keys).unwrap(), [Verified { key: &keys[0], seconds: Some(2) }]);
        let twice = format!("{note}{}\n", witness.cosign("text\n", 1));
        assert_eq!(parse(&twice).unwrap().verify(&keys).unwrap().len(), 1);
    }
}
