//! Signature line of a signed note: who signed, with which key, and the signature's bytes.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::name::KeyName;

/// How many bytes of a signature name its key.
const KEY_ID_BYTES: usize = 4;

/// A signature of whatever kind; only its key knows what its bytes mean. Displayed without the newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub name: KeyName,
    pub key_id: u32,
    pub bytes: Vec<u8>,
}

impl Signature {
    /// Whether both are by the same key.
    pub fn is_by_key_of(&self, other: &Signature) -> bool {
        self.key_id == other.key_id && self.name == other.name
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.key_id.to_be_bytes()[..], &self.bytes].concat();
        write!(f, "— {} {}", self.name, STANDARD.encode(bytes))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a signature line")]
pub struct NoSignature;

impl FromStr for Signature {
    type Err = NoSignature;

    fn from_str(line: &str) -> Result<Signature, NoSignature> {
        parse(line).ok_or(NoSignature)
    }
}

fn parse(line: &str) -> Option<Signature> {
    let (name, base64) = line.strip_prefix("— ")?.split_once(' ')?;
    let bytes = STANDARD.decode(base64).ok()?;
    let (key_id, signature) = bytes.split_first_chunk::<KEY_ID_BYTES>()?;
    let is_there = !signature.is_empty();
    is_there.then_some(Signature {
        name: name.parse().ok()?,
        key_id: u32::from_be_bytes(*key_id),
        bytes: signature.to_vec(),
    })
}

/// Reads lines of signatures, each with its newline, at least one.
pub(crate) fn parse_lines(lines: &str) -> Result<Vec<Signature>, NoSignature> {
    lines.strip_suffix('\n').ok_or(NoSignature)?.split('\n').map(str::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_line_is_read_and_written_the_same() {
        let line = "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=";
        let signature: Signature = line.parse().unwrap();
        assert_eq!(signature.key_id, 0x530d_903a);
        assert_eq!(signature.bytes.len(), 64);
        assert_eq!(signature.to_string(), line);
    }

    #[test]
    fn anything_else_is_no_signature_line() {
        for line in [
            "",
            "— ",
            "— a",
            "— a ",
            "- a AAAAAAA=",
            "—a AAAAAAA=",
            "— a AAAAAA==",
            "— a AAAAAAA",
            "— a AAAAAAB=",
            "— a b AAAAAAA=",
            "— a  AAAAAAA=",
            "— a+b AAAAAAA=",
            "— a AAAAAAA= ",
            " — a AAAAAAA=",
            "— a AAAAAAA=\n",
        ] {
            assert_eq!(line.parse::<Signature>(), Err(NoSignature), "{line:?}");
        }
        assert!("— a AAAAAAA=".parse::<Signature>().is_ok());
    }
}
