//! Policy: which logs and witnesses are trusted, and how many of them must have signed a checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::{Checkpoint, Refused};
use crate::decimal;
use crate::key::{BadKey, Kind, VerifierKey};
use crate::note::{Note, Verified};

/// The largest policy that is read. A ledger has a log for each partition.
pub const POLICY_BYTES_MAX: usize = 1 << 20;

/// The name that stands for no witness at all.
const NONE: &[u8] = b"none";

/// A trust policy as `tlog-policy` writes it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<Log>,
    witnesses: Vec<VerifierKey>,
    quorum: Quorum,
    /// The keys of logs and witnesses, as signatures are verified with them.
    keys: Vec<VerifierKey>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub key: VerifierKey,
    pub url: Option<String>,
}

/// What must have been witnessed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Quorum {
    None,
    Witness(VerifierKey),
    /// At least so many of the members.
    Group {
        threshold: usize,
        members: Vec<Quorum>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    #[error("a policy has at most {POLICY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("line {0} of the policy: {1}")]
    Line(usize, BadLine),
    #[error("the policy has no quorum line")]
    NoQuorum,
}

/// What is wrong with one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    #[error("only tabs and newlines are allowed as control characters")]
    Characters,
    #[error(
        "it is none of: log VKEY [URL], witness NAME VKEY [URL], group NAME any|all|NUMBER NAME..., quorum NAME"
    )]
    Form,
    #[error(transparent)]
    Key(#[from] BadKey),
    #[error("a log signs with an Ed25519 key (0x01), a witness with one for cosignatures (0x04)")]
    Kind,
    #[error("its key stands in an earlier line")]
    DuplicateKey,
    #[error("its name stands in an earlier line, or is none")]
    DuplicateName,
    #[error("no earlier line defines {0}")]
    Unknown(String),
    #[error("{0} is a member of a group already")]
    MemberTwice(String),
    #[error("a group needs at least one of its members, and at most all of them")]
    Threshold,
    #[error("there is an earlier quorum line")]
    SecondQuorum,
}

/// Why a note is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrusted {
    #[error(transparent)]
    Checkpoint(#[from] Refused),
    #[error("too few witnesses have signed the checkpoint of {0}")]
    Quorum(Box<Checkpoint>),
}

impl Policy {
    pub fn parse(policy: &[u8]) -> Result<Policy, BadPolicy> {
        if policy.len() > POLICY_BYTES_MAX {
            return Err(BadPolicy::TooLarge);
        }
        let mut reader = Reader::default();
        for (at, line) in policy.split(|byte| *byte == b'\n').enumerate() {
            reader.line(line).map_err(|why| BadPolicy::Line(at + 1, why))?;
        }
        let quorum = reader.quorum.ok_or(BadPolicy::NoQuorum)?;
        let of_logs = reader.logs.iter().map(|log| log.key.clone());
        let keys = of_logs.chain(reader.witnesses.iter().cloned()).collect();
        Ok(Policy { logs: reader.logs, witnesses: reader.witnesses, quorum, keys })
    }

    pub fn logs(&self) -> &[Log] {
        &self.logs
    }

    pub fn witnesses(&self) -> &[VerifierKey] {
        &self.witnesses
    }

    /// Opens a checkpoint that a log of the policy has signed, and enough of its witnesses.
    pub fn open(&self, note: &Note) -> Result<Checkpoint, Distrusted> {
        let checkpoint = Checkpoint::open(note, &self.keys)?;
        let verified = note.verify(&self.keys).map_err(Refused::Untrusted)?;
        if self.quorum.is_met(&verified) {
            Ok(checkpoint)
        } else {
            Err(Distrusted::Quorum(Box::new(checkpoint)))
        }
    }
}

impl Quorum {
    fn is_met(&self, verified: &[Verified<'_>]) -> bool {
        match self {
            Quorum::None => true,
            Quorum::Witness(key) => verified.iter().any(|signature| signature.key == key),
            Quorum::Group { threshold, members } => {
                members.iter().filter(|member| member.is_met(verified)).count() >= *threshold
            }
        }
    }
}

/// A policy while its lines are read. Names are octets: nothing is known of their characters.
#[derive(Default)]
struct Reader {
    logs: Vec<Log>,
    witnesses: Vec<VerifierKey>,
    names: BTreeMap<Vec<u8>, Quorum>,
    members: BTreeSet<Vec<u8>>,
    quorum: Option<Quorum>,
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), BadLine> {
        if line.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Err(BadLine::Characters);
        }
        let words: Vec<&[u8]> =
            line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", vkey] => self.log(vkey, None),
            [b"log", vkey, url] => self.log(vkey, Some(url)),
            [b"witness", name, vkey] | [b"witness", name, vkey, _] => self.witness(name, vkey),
            [b"group", name, threshold, members @ ..] => self.group(name, threshold, members),
            [b"quorum", name] => self.quorum(name),
            _ => Err(BadLine::Form),
        }
    }

    fn log(&mut self, vkey: &[u8], url: Option<&&[u8]>) -> Result<(), BadLine> {
        let key = key(vkey, Kind::Ed25519)?;
        if self.logs.iter().any(|log| log.key.public_key() == key.public_key()) {
            return Err(BadLine::DuplicateKey);
        }
        let url = url.map(|url| String::from_utf8_lossy(url).into_owned());
        self.logs.push(Log { key, url });
        Ok(())
    }

    fn witness(&mut self, name: &[u8], vkey: &[u8]) -> Result<(), BadLine> {
        let key = key(vkey, Kind::Cosignature)?;
        if self.witnesses.iter().any(|witness| witness.public_key() == key.public_key()) {
            return Err(BadLine::DuplicateKey);
        }
        self.define(name, Quorum::Witness(key.clone()))?;
        self.witnesses.push(key);
        Ok(())
    }

    fn group(&mut self, name: &[u8], threshold: &[u8], members: &[&[u8]]) -> Result<(), BadLine> {
        let found = members.iter().map(|member| self.member(member)).collect::<Result<Vec<_>, _>>()?;
        let threshold = match threshold {
            b"any" => 1,
            b"all" => found.len(),
            number => number_of(number).ok_or(BadLine::Form)?,
        };
        if !(1..=found.len()).contains(&threshold) {
            return Err(BadLine::Threshold);
        }
        self.define(name, Quorum::Group { threshold, members: found })
    }

    /// Returns what a member stands for, and lets no other group have it: each witness counts in one way only.
    fn member(&mut self, name: &[u8]) -> Result<Quorum, BadLine> {
        let found = self.names.get(name).ok_or_else(|| BadLine::Unknown(shown(name)))?;
        if self.members.insert(name.to_vec()) {
            Ok(found.clone())
        } else {
            Err(BadLine::MemberTwice(shown(name)))
        }
    }

    fn quorum(&mut self, name: &[u8]) -> Result<(), BadLine> {
        if self.quorum.is_some() {
            return Err(BadLine::SecondQuorum);
        }
        let defined = if name == NONE { Some(&Quorum::None) } else { self.names.get(name) };
        self.quorum = Some(defined.ok_or_else(|| BadLine::Unknown(shown(name)))?.clone());
        Ok(())
    }

    fn define(&mut self, name: &[u8], what: Quorum) -> Result<(), BadLine> {
        if name == NONE || self.names.insert(name.to_vec(), what).is_some() {
            return Err(BadLine::DuplicateName);
        }
        Ok(())
    }
}

fn key(vkey: &[u8], kind: Kind) -> Result<VerifierKey, BadLine> {
    let vkey = str::from_utf8(vkey).map_err(|_| BadKey::Malformed)?;
    let key: VerifierKey = vkey.parse()?;
    if key.kind() == kind { Ok(key) } else { Err(BadLine::Kind) }
}

fn number_of(number: &[u8]) -> Option<usize> {
    decimal::parse(str::from_utf8(number).ok()?)?.try_into().ok()
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Hash;
    use crate::key::SignerKey;
    use crate::tree::Head;

    const LOG: &str = "ledger.local/v1/audit/log/a/0";

    fn signer(name: &str, seed: u8) -> SignerKey {
        SignerKey::new(name.parse().unwrap(), &[seed; 32])
    }

    /// Writes a policy with real keys: `log` is the log's, `1` to `9` are those of witnesses.
    fn with_keys(policy: &str) -> String {
        let mut policy = policy.replace("{log}", &signer(LOG, 100).verifier(Kind::Ed25519).to_string());
        for witness in 1..=9 {
            let key = signer(&format!("witness.example/{witness}"), witness).verifier(Kind::Cosignature);
            policy = policy.replace(&format!("{{{witness}}}"), &key.to_string());
        }
        policy
    }

    fn parse(policy: &str) -> Result<Policy, BadPolicy> {
        Policy::parse(with_keys(policy).as_bytes())
    }

    /// Whether a checkpoint that these witnesses have signed is trusted.
    fn is_trusted(policy: &Policy, witnesses: &[u8]) -> bool {
        let head = Head { size: 5, root: Hash::ZERO };
        let checkpoint = Checkpoint { origin: LOG.parse().unwrap(), head };
        let mut note = checkpoint.sign(&[signer(LOG, 100)]);
        for witness in witnesses {
            let name = format!("witness.example/{witness}");
            let signature = signer(&name, *witness).cosign(note.text(), 1_700_000_000);
            note.add(signature);
        }
        match policy.open(&note) {
            Ok(opened) => opened == checkpoint,
            Err(Distrusted::Quorum(_)) => false,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_example_of_the_specification_asks_for_two_and_one() {
        let policy = parse(
            "# an example\nlog {log}\n\nwitness X1 {1}\nwitness X2 {2}\n\t witness  X3\t{3} \n\
             group X-witnesses 2 X1 X2 X3\n  # a comment\nwitness Y1 {4}\nwitness Y2 {5} https://witness.example/\n\
             witness Y3 {6}\ngroup Y-witnesses any Y1 Y2 Y3\ngroup X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n",
        )
        .unwrap();
        assert_eq!((policy.logs().len(), policy.witnesses().len()), (1, 6));
        for (witnesses, trusted) in [
            (&[1, 2, 4][..], true),
            (&[2, 3, 6], true),
            (&[1, 2, 3, 4, 5, 6], true),
            (&[1, 4], false),
            (&[1, 2, 3], false),
            (&[4, 5, 6], false),
            (&[1, 7, 8, 4], false),
            (&[], false),
        ] {
            assert_eq!(is_trusted(&policy, witnesses), trusted, "{witnesses:?}");
        }
    }

    #[test]
    fn a_quorum_may_be_one_witness_or_none() {
        let one = parse("witness w {1}\nwitness v {2}\nlog {log} https://ledger.local/\nquorum w").unwrap();
        assert_eq!(one.logs()[0].url.as_deref(), Some("https://ledger.local/"));
        assert!(is_trusted(&one, &[1]) && !is_trusted(&one, &[2]) && !is_trusted(&one, &[]));
        let none = parse("log {log}\nquorum none").unwrap();
        assert!(is_trusted(&none, &[]) && is_trusted(&none, &[9]));
        // Nested quorums count groups, not witnesses.
        let nested =
            parse("log {log}\nwitness a {1}\nwitness b {2}\nwitness c {3}\ngroup g any a b\ngroup h all g c\nquorum h")
                .unwrap();
        assert!(is_trusted(&nested, &[2, 3]) && !is_trusted(&nested, &[1, 2]));
    }

    #[test]
    fn a_log_that_is_not_listed_is_not_trusted() {
        let policy = parse("witness w {1}\nquorum w").unwrap();
        let head = Head { size: 5, root: Hash::ZERO };
        let checkpoint = Checkpoint { origin: LOG.parse().unwrap(), head };
        let mut note = checkpoint.sign(&[signer(LOG, 100)]);
        note.add(signer("witness.example/1", 1).cosign(note.text(), 1));
        assert!(matches!(policy.open(&note), Err(Distrusted::Checkpoint(Refused::NotByLog(_)))));
    }

    fn refused(policy: &str, line: usize, why: BadLine) {
        assert_eq!(parse(policy), Err(BadPolicy::Line(line, why)), "{policy}");
    }

    #[test]
    fn a_line_that_is_off_is_refused_by_its_number() {
        for policy in
            ["logs {log}", "log", "log {log} url more", "witness {1}", "witness w {1} url more", "group g"]
        {
            refused(policy, 1, BadLine::Form);
        }
        refused("quorum", 1, BadLine::Form);
        refused("quorum none # a comment has a line of its own", 1, BadLine::Form);
        refused("Quorum none", 1, BadLine::Form);
        refused("quorum none\r\n", 1, BadLine::Characters);
        refused("\nlog {log}\u{7f}", 2, BadLine::Characters);
        refused("log nothing", 1, BadLine::Key(BadKey::Malformed));
        refused("log {1}", 1, BadLine::Kind);
        refused("witness w {log}", 1, BadLine::Kind);
        refused("log {log}\nlog {log}", 2, BadLine::DuplicateKey);
        refused("witness a {1}\nwitness b {1}", 2, BadLine::DuplicateKey);
        refused("witness a {1}\nwitness a {2}", 2, BadLine::DuplicateName);
        refused("witness none {1}", 1, BadLine::DuplicateName);
        refused("witness a {1}\ngroup a any a", 2, BadLine::DuplicateName);
    }

    #[test]
    fn groups_and_quorums_name_what_stands_above_them() {
        let unknown = |name: &str| BadLine::Unknown(name.to_owned());
        refused("quorum w\nwitness w {1}", 1, unknown("w"));
        refused("group g any w\nwitness w {1}", 1, unknown("w"));
        refused("group g any g", 1, unknown("g"));
        refused("group g any none", 1, unknown("none"));
        refused("quorum none\nquorum none", 2, BadLine::SecondQuorum);
        refused("witness a {1}\ngroup g 2 a a", 2, BadLine::MemberTwice("a".to_owned()));
        refused("witness a {1}\ngroup g any a\ngroup h any a", 3, BadLine::MemberTwice("a".to_owned()));
        for threshold in ["0", "2"] {
            refused(&format!("witness a {{1}}\ngroup g {threshold} a"), 2, BadLine::Threshold);
        }
        refused("group g all", 1, BadLine::Threshold);
        for threshold in ["01", "+1", "-1", "one", "ALL"] {
            refused(&format!("witness a {{1}}\ngroup g {threshold} a"), 2, BadLine::Form);
        }
        assert_eq!(parse("log {log}\n"), Err(BadPolicy::NoQuorum));
        assert_eq!(Policy::parse(&vec![b'\n'; POLICY_BYTES_MAX + 1]), Err(BadPolicy::TooLarge));
    }

    #[test]
    fn names_are_octets() {
        let mut policy = with_keys("witness ? {1}\nquorum ?").into_bytes();
        policy.iter_mut().filter(|byte| **byte == b'?').for_each(|byte| *byte = 0xff);
        assert!(Policy::parse(&policy).is_ok());
        assert!(matches!(
            parse("witness K {1}\nquorum \u{212a}"),
            Err(BadPolicy::Line(2, BadLine::Unknown(_)))
        ));
    }

    #[test]
    fn as_many_logs_and_witnesses_as_the_specification_asks_for_are_read() {
        let mut policy = String::new();
        for seed in 1..=100 {
            let key = signer("a", seed);
            let (log, witness) = (key.verifier(Kind::Ed25519), key.verifier(Kind::Cosignature));
            policy += &format!("log {log}\nwitness w{seed} {witness}\ngroup g{seed} any w{seed}\n");
        }
        assert!(parse(&(policy + "quorum none")).is_ok());
    }
}
