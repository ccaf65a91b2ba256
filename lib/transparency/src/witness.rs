//! Witness: what a log asks a witness (`add-checkpoint`), and what it answers.

use std::fmt;
use std::str::FromStr;

use crate::checkpoint::{Checkpoint, Refused};
use crate::decimal;
use crate::hash::Hash;
use crate::key::{BadKey, Kind, VerifierKey};
use crate::name::KeyName;
use crate::note::Note;
use crate::proof;
use crate::signature::{self, Signature};
use crate::tree::Head;

/// The most hashes that a request's proof may have.
pub const PROOF_HASHES_MAX: usize = 63;

/// What a witness calls the body of a 409.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// A witness whom checkpoints are sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub key: VerifierKey,
    /// Its submission prefix, without a slash at the end.
    pub url: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    #[error("a witness is a verifier key, a space and a URL with http:// or https://, not {0:?}")]
    Form(String),
    #[error(transparent)]
    Key(#[from] BadKey),
    #[error("{0} has the key of a log; a witness has one for cosignatures (0x04)")]
    NoWitness(KeyName),
    #[error("the key of the witness {0} is listed twice")]
    Twice(KeyName),
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(address: &str) -> Result<Address, BadAddress> {
        let words: Vec<&str> = address.split_whitespace().collect();
        let [vkey, url] = words.as_slice() else { return Err(BadAddress::Form(address.to_owned())) };
        let key: VerifierKey = vkey.parse()?;
        if key.kind() != Kind::Cosignature {
            return Err(BadAddress::NoWitness(key.name().clone()));
        }
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(BadAddress::Form(address.to_owned()));
        }
        Ok(Address { key, url: url.trim_end_matches('/').to_owned() })
    }
}

impl Address {
    /// Reads a list of witnesses, one a line or divided by semicolons.
    pub fn parse_list(list: &str) -> Result<Vec<Address>, BadAddress> {
        let mut addresses: Vec<Address> = Vec::new();
        for address in list.split(['\n', ';']).filter(|address| !address.trim().is_empty()) {
            let address: Address = address.parse()?;
            if addresses.iter().any(|earlier| earlier.key.public_key() == address.key.public_key()) {
                return Err(BadAddress::Twice(address.key.name().clone()));
            }
            addresses.push(address);
        }
        Ok(addresses)
    }

    /// Returns where checkpoints are posted to.
    pub fn add_checkpoint_url(&self) -> String {
        format!("{}/add-checkpoint", self.url)
    }
}

/// The body of an `add-checkpoint` request. Displayed as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The size up to which the witness knows the log; 0 if it doesn't.
    pub old_size: u64,
    /// That the log up to this checkpoint continues the log up to `old_size`.
    pub proof: Vec<Hash>,
    pub checkpoint: Note,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an add-checkpoint request has a line with the old size, at most 63 hashes, an empty line and a signed note"
)]
pub struct Malformed;

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl Request {
    pub fn parse(body: &[u8]) -> Result<Request, Malformed> {
        parse(body).ok_or(Malformed)
    }
}

fn parse(body: &[u8]) -> Option<Request> {
    let (head, note) = str::from_utf8(body).ok()?.split_once("\n\n")?;
    let mut lines = head.split('\n');
    let old_size = decimal::parse(lines.next()?.strip_prefix("old ")?)?;
    let proof: Vec<Hash> = lines.map(Hash::from_base64).collect::<Option<_>>()?;
    let is_short = proof.len() <= PROOF_HASHES_MAX;
    is_short.then_some(Request { old_size, proof, checkpoint: Note::parse(note.as_bytes()).ok()? })
}

/// What a witness answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Signature lines, of which only the witness's own says anything.
    Cosigned(Vec<Signature>),
    /// It knows the log up to another size than the request said: the proof must be made anew from there.
    KnowsSize(u64),
    /// It doesn't sign, or doesn't say what the protocol says.
    Refused { status: u16, reason: String },
}

/// The longest reason that is kept of a refusal.
const REASON_CHARS_MAX: usize = 200;

impl Answer {
    /// Reads an answer by its status and body.
    pub fn read(status: u16, body: &[u8]) -> Answer {
        let text = str::from_utf8(body);
        let read = match (status, text) {
            (200, Ok(lines)) => signature::parse_lines(lines).ok().map(Answer::Cosigned),
            (409, Ok(size)) => size.strip_suffix('\n').and_then(decimal::parse).map(Answer::KnowsSize),
            _ => None,
        };
        read.unwrap_or_else(|| {
            let reason = String::from_utf8_lossy(body);
            let shown = reason.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
            Answer::Refused { status, reason: shown.take(REASON_CHARS_MAX).collect() }
        })
    }
}

/// The witness answered with lines of which none is its signature of this checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the witness's answer has no signature of hers that holds")]
pub struct NotCosigned;

/// Adds a witness's own signature to a note. What else her answer has is left out: nobody asked for it.
pub fn add_cosignature(
    note: &mut Note,
    witness: &VerifierKey,
    answered: &[Signature],
) -> Result<u64, NotCosigned> {
    let by_her = answered.iter().filter(|signature| witness.is_key_of(signature));
    let holds = |signature: &Signature| witness.verify(note.text(), signature).ok().flatten();
    let found = by_her.filter_map(|signature| holds(signature).map(|seconds| (signature, seconds))).next();
    let (signature, seconds) = found.filter(|(_, seconds)| *seconds > 0).ok_or(NotCosigned)?;
    note.add(signature.clone());
    Ok(seconds)
}

/// Why a witness doesn't sign a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the body is not a request with a checkpoint")]
    Malformed,
    #[error("the log is not known")]
    UnknownLog,
    #[error("no known key of the log has signed the checkpoint")]
    NotByLog,
    #[error("the old size is beyond the checkpoint")]
    OldSize,
    #[error("the log is known up to size {0}")]
    Conflict(u64),
    #[error("the checkpoint does not continue what is known of the log")]
    Inconsistent,
}

impl Refusal {
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed | Refusal::OldSize => 400,
            Refusal::UnknownLog => 404,
            Refusal::NotByLog => 403,
            Refusal::Conflict(_) => 409,
            Refusal::Inconsistent => 422,
        }
    }
}

/// Decides as a witness: whether a request's checkpoint continues the head that she has last signed for its log.
///
/// `keys` are those of the checkpoint's log; `latest` is `None` for a log that she has never signed for.
pub fn judge(request: &Request, keys: &[VerifierKey], latest: Option<Head>) -> Result<Checkpoint, Refusal> {
    let text = request.checkpoint.text();
    let checkpoint: Checkpoint = text.parse().map_err(|_| Refusal::Malformed)?;
    if keys.iter().all(|key| *key.name() != checkpoint.origin) {
        return Err(Refusal::UnknownLog);
    }
    let checkpoint = Checkpoint::open(&request.checkpoint, keys).map_err(|why| match why {
        Refused::Note(_) | Refused::Text(_) => Refusal::Malformed,
        Refused::Untrusted(_) | Refused::NotByLog(_) => Refusal::NotByLog,
    })?;
    if request.old_size > checkpoint.head.size {
        return Err(Refusal::OldSize);
    }
    let known = latest.unwrap_or(Head { size: 0, root: Hash::of_empty_tree() });
    if request.old_size != known.size {
        return Err(Refusal::Conflict(known.size));
    }
    if !proof::continues(&known, &checkpoint.head, &request.proof) {
        return Err(Refusal::Inconsistent);
    }
    Ok(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SignerKey;

    /// The example of the specification, with one of its log's signatures.
    const REQUEST: &str = "old 20852014\n\
        PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
        jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
        5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
        /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
        \n\
        example.com/behind-the-sofa\n\
        20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
        \n\
        — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
    const ORIGIN: &str = "ledger.local/v1/audit/log/a/0";

    fn log() -> SignerKey {
        SignerKey::new(ORIGIN.parse().unwrap(), &[1; 32])
    }

    fn witness() -> SignerKey {
        SignerKey::new("witness.example/w1".parse().unwrap(), &[2; 32])
    }

    fn head(leaves: u8) -> Head {
        let mut tree = crate::tree::Tree::new();
        (0..leaves).for_each(|leaf| tree.append(Hash::of_leaf(&[leaf]), &mut Vec::new()));
        tree.head()
    }

    /// Asks for a checkpoint of two leaves, of a log known with one.
    fn request() -> Request {
        let checkpoint = Checkpoint { origin: ORIGIN.parse().unwrap(), head: head(2) };
        Request { old_size: 1, proof: vec![Hash::of_leaf(&[1])], checkpoint: checkpoint.sign(&[log()]) }
    }

    #[test]
    fn a_request_is_read_and_written_the_same() {
        let request = Request::parse(REQUEST.as_bytes()).unwrap();
        assert_eq!((request.old_size, request.proof.len()), (20_852_014, 4));
        assert_eq!(request.checkpoint.text().lines().count(), 3);
        assert_eq!(request.to_string(), REQUEST);
        let first = Request { old_size: 0, proof: vec![], ..request };
        assert!(first.to_string().starts_with("old 0\n\nexample.com"));
        assert_eq!(Request::parse(first.to_string().as_bytes()), Ok(first));
    }

    #[test]
    fn malformed_requests_are_refused() {
        let line = "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n";
        let many = REQUEST.replace("old 20852014\n", &format!("old 20852014\n{}", line.repeat(60)));
        for body in [
            "",
            "old 5\n",
            "old 5\n\n",
            &REQUEST.replace("old 20852014", "20852014"),
            &REQUEST.replace("old 20852014", "old 020852014"),
            &REQUEST.replace("old 20852014", "old  20852014"),
            &REQUEST.replace("old 20852014", "new 20852014"),
            &REQUEST.replace("q2I=\n\n", "q2I=\n"),
            &REQUEST.replace("kaw=\n", "kaw\n"),
            &many,
        ] {
            assert_eq!(Request::parse(body.as_bytes()), Err(Malformed), "{body}");
        }
    }

    #[test]
    fn an_answer_is_signatures_or_a_size_or_a_refusal() {
        let lines = format!("{}\n— other/w AAAAAAYGBgY=\n", witness().cosign("text\n", 5));
        let Answer::Cosigned(signatures) = Answer::read(200, lines.as_bytes()) else { panic!() };
        assert_eq!(signatures.len(), 2);
        assert_eq!(Answer::read(409, b"20852014\n"), Answer::KnowsSize(20_852_014));
        for (status, body) in [
            (409, "20852014"),
            (409, "-1\n"),
            (409, "020\n"),
            (409, "conflict\n"),
            (200, ""),
            (200, "\n"),
            (200, "ok\n"),
            (200, "— other/w AAAAAAYGBgY="),
            (403, "20852014\n"),
            (500, "— other/w AAAAAAYGBgY=\n"),
        ] {
            let reason = body.trim().to_owned();
            assert_eq!(Answer::read(status, body.as_bytes()), Answer::Refused { status, reason });
        }
        let long = Answer::read(503, &[b'a', 0xff, b'\n', 0].repeat(1000));
        assert!(matches!(long, Answer::Refused { reason, .. } if reason.chars().count() == REASON_CHARS_MAX));
    }

    #[test]
    fn only_the_witness_s_own_signature_is_added() {
        let (mut note, key) = (request().checkpoint, witness().verifier(Kind::Cosignature));
        let (good, text) = (witness().cosign(note.text(), 5), note.text().to_owned());
        let other: Signature = "— other/w AAAAAAYGBgY=".parse().unwrap();
        for answered in [
            vec![],
            vec![other.clone()],
            vec![witness().cosign("text\n", 5)],
            vec![witness().cosign(&text, 0)],
        ] {
            assert_eq!(add_cosignature(&mut note, &key, &answered), Err(NotCosigned));
        }
        assert_eq!(note.signatures().len(), 1);
        assert_eq!(add_cosignature(&mut note, &key, &[other, good.clone()]), Ok(5));
        assert_eq!(note.signatures()[1..], [good]);
        assert_eq!(note.verify(&[key]).map(|verified| verified[0].seconds), Ok(Some(5)));
    }

    #[test]
    fn witnesses_are_listed_by_line_or_semicolon() {
        let vkey = |seed| SignerKey::new("w".parse().unwrap(), &[seed; 32]).verifier(Kind::Cosignature);
        let (a, b) = (vkey(1), vkey(2));
        for list in [
            format!("{a} https://witness.example/\n{b} http://localhost:1/x"),
            format!("\n {a}\thttps://witness.example ; {b} http://localhost:1/x;\n"),
        ] {
            let addresses = Address::parse_list(&list).unwrap();
            assert_eq!(addresses[0], Address { key: a.clone(), url: "https://witness.example".to_owned() });
            assert_eq!(addresses[1].add_checkpoint_url(), "http://localhost:1/x/add-checkpoint");
        }
        assert_eq!(Address::parse_list(" \n;"), Ok(vec![]));
        let twice = Address::parse_list(&format!("{a} http://a;{a} http://b"));
        assert_eq!(twice, Err(BadAddress::Twice(a.name().clone())));
        for list in [format!("{a}"), format!("{a} ftp://x"), format!("{a} http://x http://y")] {
            assert!(matches!(Address::parse_list(&list), Err(BadAddress::Form(_))), "{list}");
        }
        assert_eq!(Address::parse_list("x http://x"), Err(BadAddress::Key(BadKey::Malformed)));
    }

    #[test]
    fn a_witness_of_another_kind_is_refused_with_one_sentence() {
        let log = format!("{} https://witness.example", log().verifier(Kind::Ed25519));
        let refused = Address::parse_list(&log).unwrap_err();
        assert!(
            refused
                .to_string()
                .ends_with("/a/0 has the key of a log; a witness has one for cosignatures (0x04)")
        );
    }

    fn check(change: impl Fn(&mut Request), status: u16) {
        let mut request = request();
        change(&mut request);
        let judged = judge(&request, &[log().verifier(Kind::Ed25519)], Some(head(1)));
        assert_eq!(judged.map_or_else(|refusal| refusal.status(), |_| 200), status);
    }

    #[test]
    fn a_witness_signs_only_what_continues_the_log_that_she_knows() {
        let resign = |request: &mut Request, head: Head, origin: &str| {
            let checkpoint = Checkpoint { origin: origin.parse().unwrap(), head };
            request.checkpoint = checkpoint.sign(&[log()]);
        };
        check(|_| (), 200);
        check(|request| request.checkpoint = Note::new("text\n".to_owned()).unwrap(), 400);
        check(|request| request.old_size = 3, 400);
        check(|request| request.checkpoint.add("— other/w AAAAAAYGBgY=".parse().unwrap()), 200);
        check(|request| resign(request, head(2), "another/log"), 404);
        check(|request| request.checkpoint = Note::new(request.checkpoint.text().to_owned()).unwrap(), 403);
        check(|request| request.checkpoint.add(log().sign("another text\n")), 403);
        check(|request| request.old_size = 0, 409);
        check(|request| request.old_size = 2, 409);
        check(|request| request.proof.clear(), 422);
        check(|request| request.proof.push(Hash::ZERO), 422);
        check(|request| resign(request, Head { size: 2, root: Hash::ZERO }, ORIGIN), 422);
        check(|request| resign(request, Head { size: 1, root: Hash::ZERO }, ORIGIN), 422);
        check(|request| (request.proof.clear(), resign(request, head(1), ORIGIN)).1, 200);
    }

    #[test]
    fn a_log_that_she_does_not_know_begins_empty() {
        let keys = [log().verifier(Kind::Ed25519)];
        let first = Request { old_size: 0, proof: vec![], ..request() };
        assert!(judge(&first, &keys, None).is_ok());
        let proved = Request { proof: vec![Hash::ZERO], ..first };
        assert_eq!(judge(&proved, &keys, None), Err(Refusal::Inconsistent));
        let empty = Checkpoint { origin: ORIGIN.parse().unwrap(), head: Head { size: 0, root: Hash::ZERO } };
        let empty = Request { old_size: 0, proof: vec![], checkpoint: empty.sign(&[log()]) };
        assert_eq!(judge(&empty, &keys, None), Err(Refusal::Inconsistent));
        assert_eq!(judge(&request(), &keys, None), Err(Refusal::Conflict(0)));
    }
}
