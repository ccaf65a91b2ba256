//! Checkpoint: a log's origin, size and root, as the text of a signed note.

use std::fmt;
use std::str::FromStr;

use crate::decimal;
use crate::hash::Hash;
use crate::key::{Kind, SignerKey, VerifierKey};
use crate::name::KeyName;
use crate::note::{self, Note, Untrusted};
use crate::tree::Head;

/// What a log says of itself. Displayed as the note's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub origin: KeyName,
    pub head: Head,
}

/// The text is not three lines: origin, size, root. Logs of this kind have no extension lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a checkpoint has three lines: its origin, its size and its root in base64")]
pub struct Malformed;

/// Why a note is not a log's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Note(#[from] note::Malformed),
    #[error(transparent)]
    Text(#[from] Malformed),
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error("no known key of the log {0} has signed its checkpoint")]
    NotByLog(KeyName),
}

impl Checkpoint {
    /// Signs the checkpoint. The same checkpoint and keys give the same note.
    pub fn sign(&self, signers: &[SignerKey]) -> Note {
        let mut note = Note::new(self.to_string()).expect("a checkpoint has no control characters");
        for signer in signers {
            note.add(signer.sign(note.text()));
        }
        note
    }

    /// Reads a note that a known key of the log has signed, and that no other known key contradicts.
    pub fn open(note: &Note, keys: &[VerifierKey]) -> Result<Checkpoint, Refused> {
        let checkpoint: Checkpoint = note.text().parse()?;
        let verified = note.verify(keys)?;
        let is_log = |key: &VerifierKey| key.kind() == Kind::Ed25519 && *key.name() == checkpoint.origin;
        if verified.iter().any(|signature| is_log(signature.key)) {
            Ok(checkpoint)
        } else {
            Err(Refused::NotByLog(checkpoint.origin))
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.head.size, self.head.root)
    }
}

impl FromStr for Checkpoint {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Checkpoint, Malformed> {
        parse(text).ok_or(Malformed)
    }
}

fn parse(text: &str) -> Option<Checkpoint> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
    if lines.next().is_some() {
        return None;
    }
    let head = Head { size: decimal::parse(size)?, root: Hash::from_base64(root)? };
    Some(Checkpoint { origin: origin.parse().ok()?, head })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    const TEXT: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    fn signer(name: &str) -> SignerKey {
        SignerKey::new(name.parse().unwrap(), &[1; 32])
    }

    #[test]
    fn a_checkpoint_is_read_and_written_the_same() {
        let checkpoint: Checkpoint = TEXT.parse().unwrap();
        assert_eq!(checkpoint.origin.as_str(), "example.com/behind-the-sofa");
        assert_eq!(checkpoint.head.size, 20_852_163);
        assert_eq!(checkpoint.to_string(), TEXT);
    }

    #[test]
    fn any_other_text_is_no_checkpoint() {
        for text in [
            "",
            "\n",
            &TEXT[..TEXT.len() - 1],
            &format!("{TEXT}extension\n"),
            &format!("{TEXT}\n"),
            &format!("\n{TEXT}"),
            &TEXT.replace("example.com/behind-the-sofa", ""),
            &TEXT.replace("20852163", "020852163"),
            &TEXT.replace("20852163", "+20852163"),
            &TEXT.replace("20852163", "20852163 "),
            &TEXT.replace("20852163", "0x13e2d03"),
            &TEXT.replace("20852163", "99999999999999999999"),
            &TEXT.replace("q2I=", "q2J="),
            &TEXT.replace("q2I=", "q2I"),
            &TEXT.replace("CsUY", ""),
            &TEXT.replace('\n', "\r\n"),
        ] {
            assert_eq!(text.parse::<Checkpoint>(), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn only_the_log_itself_makes_a_checkpoint() {
        let checkpoint: Checkpoint = TEXT.parse().unwrap();
        let (log, other) = (signer("example.com/behind-the-sofa"), signer("example.com/other"));
        let keys =
            [log.verifier(Kind::Ed25519), other.verifier(Kind::Ed25519), log.verifier(Kind::Cosignature)];
        let note = checkpoint.sign(&[log]);
        assert_eq!(Checkpoint::open(&note, &keys), Ok(checkpoint.clone()));
        let by_other = checkpoint.sign(&[other]);
        assert_eq!(Checkpoint::open(&by_other, &keys), Err(Refused::NotByLog(checkpoint.origin.clone())));
        // A witness of the same name is no log.
        let mut witnessed = Note::new(checkpoint.to_string()).unwrap();
        witnessed.add(signer("example.com/behind-the-sofa").cosign(witnessed.text(), 1));
        assert_eq!(Checkpoint::open(&witnessed, &keys), Err(Refused::NotByLog(checkpoint.origin)));
    }

    #[test]
    fn the_same_checkpoint_gives_the_same_note_with_all_keys() {
        let checkpoint: Checkpoint = TEXT.parse().unwrap();
        let signers = || [1, 2].map(|seed| SignerKey::new(checkpoint.origin.clone(), &[seed; 32]));
        let note = checkpoint.sign(&signers());
        assert_eq!(note.signatures().len(), 2);
        assert_eq!(note, checkpoint.sign(&signers()));
    }
}
