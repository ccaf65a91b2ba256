//! Trust: which checkpoints count: those that keys or a policy of the auditor's open, or else the ledger's own keys.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use platform::kafka::LogIdentity;
use transparency_log::checkpoint::Checkpoint;
use transparency_log::key::VerifierKey;
use transparency_log::note::Note;
use transparency_log::policy::{Distrusted, Policy};
use transparency_log::tree::Head;

use super::finding;

/// Whom the auditor trusts, and what they kept.
#[derive(Debug, Clone, Default, Args)]
pub struct TrustArguments {
    /// A public key of a partition's log that is trusted, as name+id+base64; repeatable
    #[arg(long)]
    pub vkey: Vec<VerifierKey>,
    /// A trust policy by C2SP's tlog-policy: logs, witnesses, quorum
    #[arg(long, conflicts_with = "vkey")]
    pub policy: Option<PathBuf>,
    /// A checkpoint that the auditor kept; repeatable
    #[arg(long)]
    pub checkpoint: Vec<PathBuf>,
}

/// By what checkpoints are opened.
#[derive(Debug)]
pub enum Trust {
    Keys(Vec<VerifierKey>),
    Policy(PathBuf, Box<Policy>),
    /// Nobody was named: the keys are those that the ledger itself lists.
    Nobody(Vec<VerifierKey>),
}

/// A checkpoint that a trusted key has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Where it is kept.
    pub file: String,
    pub partition: i32,
    pub origin: String,
    pub head: Head,
}

/// What a note turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Judged {
    Signed(Signed),
    Found(finding::Note),
    /// It is of this journal, and by keys or without witnesses that were named: it says nothing.
    Unknown,
}

/// Who kept a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    Auditor,
    Ledger,
}

impl Trust {
    /// Returns what the arguments name, or the ledger's own keys.
    pub fn of(arguments: &TrustArguments, listed: Vec<VerifierKey>) -> Result<Trust> {
        if let Some(file) = &arguments.policy {
            let text = fs::read(file).with_context(|| format!("{} can't be read", file.display()))?;
            let policy = Policy::parse(&text).with_context(|| file.display().to_string())?;
            return Ok(Trust::Policy(file.clone(), Box::new(policy)));
        }
        Ok(if arguments.vkey.is_empty() {
            Trust::Nobody(listed)
        } else {
            Trust::Keys(arguments.vkey.clone())
        })
    }

    fn open(&self, note: &Note) -> Result<Checkpoint, Distrusted> {
        match self {
            Trust::Keys(keys) | Trust::Nobody(keys) => Ok(Checkpoint::open(note, keys)?),
            Trust::Policy(_, policy) => policy.open(note),
        }
    }

    /// Whether a key of this log is trusted.
    fn knows(&self, checkpoint: &Checkpoint) -> bool {
        match self {
            Trust::Keys(keys) | Trust::Nobody(keys) => {
                keys.iter().any(|key| *key.name() == checkpoint.origin)
            }
            Trust::Policy(_, policy) => policy.logs().iter().any(|log| *log.key.name() == checkpoint.origin),
        }
    }

    /// Says by what the checkpoints were opened.
    pub fn says(&self) -> String {
        let shown =
            |keys: &[VerifierKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Trust::Keys(keys) => format!("keys: {}", shown(keys)),
            Trust::Policy(file, _) => format!("policy: {}", file.display()),
            Trust::Nobody(keys) if keys.is_empty() => "none: the ledger lists no key".to_owned(),
            Trust::Nobody(keys) => format!("none: the keys are those that the ledger lists, {}", shown(keys)),
        }
    }

    /// Judges a note that somebody kept.
    pub fn judge(&self, file: &str, keeper: Keeper, note: &[u8], identity: LogIdentity) -> Judged {
        let found = |kind, checkpoint: Option<&Checkpoint>| {
            Judged::Found(finding::Note {
                kind,
                file: file.to_owned(),
                origin: checkpoint.map(|checkpoint| checkpoint.origin.to_string()),
                size: checkpoint.map(|checkpoint| checkpoint.head.size),
            })
        };
        let Ok(note) = Note::parse(note) else { return found("checkpoint_forged", None) };
        let Ok(said) = note.text().parse::<Checkpoint>() else { return found("checkpoint_forged", None) };
        let Some(partition) = partition_of(said.origin.as_str(), identity) else {
            return found("checkpoint_of_another_log", Some(&said));
        };
        if keeper == Keeper::Ledger && !self.knows(&said) {
            return Judged::Unknown;
        }
        match self.open(&note) {
            Ok(Checkpoint { origin, head }) => {
                Judged::Signed(Signed { file: file.to_owned(), partition, origin: origin.to_string(), head })
            }
            // Cosignatures come later than the checkpoint.
            Err(Distrusted::Quorum(_)) if keeper == Keeper::Ledger => Judged::Unknown,
            Err(Distrusted::Quorum(_) | Distrusted::Checkpoint(_)) => found("checkpoint_forged", Some(&said)),
        }
    }
}

/// Returns the partition whose log has this origin, if it is one of this journal.
fn partition_of(origin: &str, identity: LogIdentity) -> Option<i32> {
    let (log, digits) = origin.rsplit_once('/')?;
    let is_ours = log.strip_suffix(&identity.log_id.to_string())?.ends_with('/');
    let partition: i32 = digits.parse().ok().filter(|partition: &i32| partition.to_string() == digits)?;
    (is_ours && (0..identity.partitions).contains(&partition)).then_some(partition)
}

#[cfg(test)]
mod tests {
    use transparency_log::hash::Hash;
    use transparency_log::key::{Kind, SignerKey};

    use super::*;

    const LOG: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

    fn identity() -> LogIdentity {
        LogIdentity { log_id: LOG.parse().expect("a log id"), partitions: 4 }
    }

    fn signer(origin: &str, seed: u8) -> SignerKey {
        SignerKey::new(origin.parse().expect("a name"), &[seed; 32])
    }

    fn note(origin: &str, seed: u8) -> String {
        let head = Head { size: 7, root: Hash::of(b"root") };
        let checkpoint = Checkpoint { origin: origin.parse().expect("a name"), head };
        checkpoint.sign(&[signer(origin, seed)]).to_string()
    }

    fn check(trust: &Trust, keeper: Keeper, note: &str, expected: &str) {
        let said = match trust.judge("a file", keeper, note.as_bytes(), identity()) {
            Judged::Signed(signed) => format!("signed {} {}", signed.partition, signed.head.size),
            Judged::Found(found) => format!("{} {:?}", found.kind, found.size),
            Judged::Unknown => "unknown".to_owned(),
        };
        assert_eq!(said, expected, "{keeper:?} {note}");
    }

    #[test]
    fn a_checkpoint_counts_if_a_trusted_key_of_this_journal_has_signed_it() {
        let [ours, second] = [0, 1].map(|partition| format!("ledger.local/v1/audit/log/{LOG}/{partition}"));
        let trust = Trust::Keys(vec![signer(&ours, 1).verifier(Kind::Ed25519)]);
        for keeper in [Keeper::Auditor, Keeper::Ledger] {
            check(&trust, keeper, &note(&ours, 1), "signed 0 7");
            check(&trust, keeper, &note(&ours, 2), "checkpoint_forged Some(7)");
            check(&trust, keeper, &note(&ours, 1).replace("\n7\n", "\n8\n"), "checkpoint_forged Some(8)");
            check(&trust, keeper, "nonsense", "checkpoint_forged None");
            for elsewhere in [
                format!("ledger.local/{LOG}/4"),
                format!("ledger.local/{LOG}/00"),
                format!("x{LOG}/0"),
                "b/0".to_owned(),
            ] {
                check(&trust, keeper, &note(&elsewhere, 1), "checkpoint_of_another_log Some(7)");
            }
        }
        // A ledger has a key for each partition; the auditor may have named some only.
        check(&trust, Keeper::Ledger, &note(&second, 1), "unknown");
        check(&trust, Keeper::Auditor, &note(&second, 1), "checkpoint_forged Some(7)");
    }

    #[test]
    fn a_policy_asks_for_its_witnesses() {
        let origin = format!("ledger.local/v1/audit/log/{LOG}/0");
        let (log, witness) = (signer(&origin, 1), signer("witness.example", 2));
        let keys = [log.verifier(Kind::Ed25519), witness.verifier(Kind::Cosignature)];
        let policy = format!("log {}\nwitness w {}\nquorum w\n", keys[0], keys[1]);
        let policy = Policy::parse(policy.as_bytes()).expect("a policy");
        let trust = Trust::Policy("policy.txt".into(), Box::new(policy));
        check(&trust, Keeper::Auditor, &note(&origin, 1), "checkpoint_forged Some(7)");
        check(&trust, Keeper::Ledger, &note(&origin, 1), "unknown");
        let mut witnessed = Note::parse(note(&origin, 1).as_bytes()).expect("a note");
        witnessed.add(witness.cosign(witnessed.text(), 1_700_000_000));
        check(&trust, Keeper::Auditor, &witnessed.to_string(), "signed 0 7");
    }
}
