//! Tools of others read what this crate writes, and it reads what they write: Go's `sumdb` packages, and `aics-tlog`
//! and `aics-witness` of Python.
//!
//! Ignored by default: `.ci/run` runs them where Go and a Python of at least 3.12 can be had. The programs are in
//! `dev/interop`.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod kept;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kept::{Kept, entry};
use serde_json::{Value, json};
use transparency_log::appender::Appender;
use transparency_log::bundle;
use transparency_log::checkpoint::Checkpoint;
use transparency_log::hash::Hash;
use transparency_log::key::{Kind, SignerKey, VerifierKey};
use transparency_log::key_file::LogKey;
use transparency_log::name::KeyName;
use transparency_log::note::Note;
use transparency_log::policy::Policy;
use transparency_log::proof::{Outline, continues, includes};
use transparency_log::tile::{self, Tile};
use transparency_log::tree::{Head, Tree};
use transparency_log::witness::{Answer, Request, add_cosignature, judge};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// One full tile of level 1, and partial ones of the levels 0 to 2.
const SIZE: u64 = 70_000;

const SIZES: [u64; 14] = [1, 2, 3, 255, 256, 257, 511, 512, 1000, 65_535, 65_536, 65_537, 69_999, SIZE];

/// When the witness of the written log has signed.
const SECONDS: u64 = 1_700_000_000;

fn origin() -> KeyName {
    "ledger.local/v1/audit/log/6ba7b810-9dad-11d1-80b4-00c04fd430c8/0".parse().unwrap()
}

fn log_key() -> SignerKey {
    LogKey::from_seed([1; 32]).signer(&origin())
}

/// A program of `dev/interop`.
type Tool = fn(what: &str, folder: &Path) -> Command;

fn go(what: &str, folder: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(Path::new(ROOT).join("dev/interop/go")).args(["run", ".", what]).arg(folder);
    command
}

fn python(what: &str, folder: &Path) -> Command {
    let python = Path::new(ROOT).join("target/interop/bin/python");
    assert!(python.exists(), "{} is not installed: .ci/run does it", python.display());
    let mut command = Command::new(python);
    command.arg(Path::new(ROOT).join("dev/interop/python/interop.py")).arg(what).arg(folder);
    command
}

/// Runs a program; returns what it said if it failed.
fn run(mut command: Command) -> Result<(), String> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

fn write(folder: &Path, path: &str, bytes: impl AsRef<[u8]>) {
    let file = folder.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, bytes).unwrap();
}

/// Writes a log with its checkpoint, keys and proofs.
fn write_log(folder: &Path) {
    let (mut appender, mut filled) = (Appender::new(), Vec::new());
    for offset in 0..SIZE {
        appender.append(&entry(offset), &mut filled);
    }
    filled.extend(appender.unfinished());
    for data in filled {
        write(folder, &data.tile.to_string(), data.bytes);
    }
    let checkpoint = Checkpoint { origin: origin(), head: appender.head() };
    let witness = SignerKey::new("witness.example/rust".parse().unwrap(), &[2; 32]);
    let mut note = checkpoint.sign(&[log_key()]);
    note.add(witness.cosign(note.text(), SECONDS));
    note.add("— witness.example/newer AAAAAAYGBgY=".parse().unwrap());
    write(folder, "checkpoint", note.to_string());
    write(folder, "log.vkey", log_key().verifier(Kind::Ed25519).to_string());
    write(folder, "witness.vkey", witness.verifier(Kind::Cosignature).to_string());
    write(folder, "proofs.json", proofs(&Kept::of(SIZE)).to_string());
}

fn proofs(log: &Kept) -> Value {
    let shown = |outline: Outline| -> Vec<String> {
        outline.hashes(log).unwrap().iter().map(Hash::to_string).collect()
    };
    let pairs =
        || SIZES.iter().flat_map(|to| SIZES.iter().map(|from| (*from, *to))).filter(|(from, to)| from <= to);
    let inclusion = pairs().map(|(from, size)| {
        let (leaf, hash) = (from - 1, entry(from - 1).leaf_hash().to_string());
        json!({"leaf": leaf, "size": size, "leaf_hash": hash, "hashes": shown(Outline::inclusion(leaf, size).unwrap())})
    });
    let consistency = pairs().map(|(from, to)| {
        json!({"from": from, "to": to, "hashes": shown(Outline::consistency(from, to).unwrap())})
    });
    let heads = SIZES.map(|size| json!({"size": size, "root": log.head(size).root.to_string()}));
    json!({
        "heads": heads,
        "inclusion": inclusion.collect::<Vec<_>>(),
        "consistency": consistency.collect::<Vec<_>>(),
    })
}

/// A tool checks a log that this crate wrote, and finds whatever is changed in it.
fn checks_a_log(tool: Tool) {
    let folder = tempfile::tempdir().unwrap();
    write_log(folder.path());
    assert_eq!(run(tool("check", folder.path())), Ok(()));
    for path in ["tile/0/100", "tile/1/001.p/17", "tile/entries/100", "checkpoint", "proofs.json"] {
        let file = folder.path().join(path);
        let good = fs::read(&file).unwrap();
        let mut bad = good.clone();
        // Within the root of the checkpoint, and within a hash of the proofs.
        let at = if path == "checkpoint" { 90 } else { 200 };
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        fs::write(&file, bad).unwrap();
        assert!(run(tool("check", folder.path())).is_err(), "a change of {path} was not found");
        fs::write(&file, good).unwrap();
    }
}

/// A log that another tool wrote.
struct Theirs(PathBuf);

impl Theirs {
    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn key(&self, path: &str) -> VerifierKey {
        self.text(path).trim().parse().unwrap()
    }

    fn note(&self) -> Note {
        Note::parse(&fs::read(self.0.join("checkpoint")).unwrap()).unwrap()
    }

    /// Opens the checkpoint by its keys and by a policy that asks for both.
    fn checkpoint(&self) -> Checkpoint {
        let (note, keys) = (self.note(), [self.key("log.vkey"), self.key("witness.vkey")]);
        assert_eq!(note.signatures().len(), 3);
        let verified = note.verify(&keys).unwrap();
        assert_eq!(verified.len(), 2);
        let signed_at: u64 = self.text("signed_at").trim().parse().unwrap();
        assert!(signed_at.abs_diff(verified[1].seconds.unwrap()) <= 60);
        let policy = format!("log {}\nwitness w {}\nquorum w\n", keys[0], keys[1]);
        let checkpoint = Policy::parse(policy.as_bytes()).unwrap().open(&note).unwrap();
        assert_eq!(Checkpoint::open(&note, &keys).unwrap(), checkpoint);
        assert_eq!(note.to_string().as_bytes(), fs::read(self.0.join("checkpoint")).unwrap());
        checkpoint
    }

    /// Reads all tiles that a tree of the size has, under the paths that they must have.
    fn tiles(&self, size: u64) -> Kept {
        let mut log = Kept { size, ..Kept::default() };
        let kinds = (0..tile::LEVELS).map(|level| tile::Kind::Hashes { level }).chain([tile::Kind::Entries]);
        for kind in kinds {
            for tile in (0..).map_while(|index| Tile::at(kind, index, size)) {
                let bytes = fs::read(self.0.join(tile.to_string())).unwrap_or_else(|_| panic!("{tile}"));
                assert_eq!(tile.cut(&bytes), Some(bytes.as_slice()), "{tile}");
                match kind {
                    tile::Kind::Hashes { level } => log.hashes.insert((level, tile.index), bytes),
                    tile::Kind::Entries => log.bundles.insert(tile.index, bytes),
                };
            }
        }
        log
    }
}

fn hash(value: &Value) -> Hash {
    Hash::from_base64(value.as_str().unwrap()).unwrap()
}

fn read_log(folder: &Path) {
    let theirs = Theirs(folder.to_owned());
    let checkpoint = theirs.checkpoint();
    let log = theirs.tiles(checkpoint.head.size);
    assert_eq!(log.head(log.size), checkpoint.head);

    // The tree of their entries has all of their tiles.
    let (mut tree, mut filled) = (Tree::new(), Vec::new());
    for entries in log.bundles.values() {
        let entries = bundle::entries(entries).unwrap();
        entries.iter().for_each(|entry| tree.append(Hash::of_leaf(entry), &mut filled));
    }
    assert_eq!(tree.head(), checkpoint.head);
    for data in filled.into_iter().chain(tree.unfinished()) {
        assert_eq!(fs::read(folder.join(data.tile.to_string())).unwrap(), data.bytes, "{}", data.tile);
    }
    compare_proofs(&log, &serde_json::from_str(&theirs.text("proofs.json")).unwrap());
}

fn compare_proofs(log: &Kept, written: &Value) {
    let items = |name: &str| written[name].as_array().filter(|items| !items.is_empty()).unwrap();
    let number = |value: &Value| value.as_u64().unwrap();
    let hashes =
        |value: &Value| -> Vec<Hash> { value["hashes"].as_array().unwrap().iter().map(hash).collect() };
    for head in items("heads") {
        let head = Head { size: number(&head["size"]), root: hash(&head["root"]) };
        assert_eq!(log.head(head.size), head);
    }
    for proof in items("inclusion") {
        let (leaf, size) = (number(&proof["leaf"]), number(&proof["size"]));
        assert_eq!(Outline::inclusion(leaf, size).unwrap().hashes(log), Ok(hashes(proof)));
        assert!(includes(&log.head(size), leaf, hash(&proof["leaf_hash"]), &hashes(proof)), "{proof}");
    }
    for proof in items("consistency") {
        let (from, to) = (number(&proof["from"]), number(&proof["to"]));
        assert_eq!(Outline::consistency(from, to).unwrap().hashes(log), Ok(hashes(proof)));
        assert!(continues(&log.head(from), &log.head(to), &hashes(proof)), "{proof}");
    }
}

#[test]
#[ignore = "needs Go; `.ci/run` runs it"]
fn go_checks_a_log() {
    checks_a_log(go);
}

#[test]
#[ignore = "needs Go; `.ci/run` runs it"]
fn a_log_of_go_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(go("make", folder.path())), Ok(()));
    read_log(folder.path());
    // The third signature is of a kind that is newer than this crate.
    let newer = Theirs(folder.path().to_owned()).text("newer.vkey").trim().parse::<VerifierKey>();
    assert!(newer.unwrap_err().to_string().contains("is of type 0x06"));
}

#[test]
#[ignore = "needs Python with aics-tlog; `.ci/run` runs it"]
fn python_checks_a_log() {
    checks_a_log(python);
}

#[test]
#[ignore = "needs Python with aics-tlog; `.ci/run` runs it"]
fn a_log_of_python_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(python("make", folder.path())), Ok(()));
    read_log(folder.path());
}

#[test]
#[ignore = "needs Python with aics-witness; `.ci/run` runs it"]
fn a_witness_of_python_signs_what_continues_and_answers_as_this_crate_decides() {
    let folder = tempfile::tempdir().unwrap();
    let log = Kept::of(1000);
    let request = |old_size: u64, proved_from: u64, head: Head| {
        let proof = Outline::consistency(proved_from, head.size).unwrap().hashes(&log).unwrap();
        let checkpoint = Checkpoint { origin: origin(), head }.sign(&[log_key()]);
        Request { old_size, proof, checkpoint }
    };
    let forked = Head { root: Hash::ZERO, ..log.head(1000) };
    let requests = [
        (request(0, 0, log.head(300)), 200),
        (request(0, 0, log.head(700)), 409),
        (request(300, 300, log.head(700)), 200),
        (request(700, 700, log.head(700)), 200),
        (request(700, 300, log.head(1000)), 422),
        (request(700, 700, forked), 422),
        (request(700, 700, Head { root: Hash::ZERO, ..log.head(700) }), 422),
        (request(1000, 1000, log.head(1000)), 409),
        (Request { old_size: 1001, ..request(700, 700, log.head(1000)) }, 400),
        (
            Request { checkpoint: Note::new("text\n".to_owned()).unwrap(), ..request(0, 0, log.head(300)) },
            400,
        ),
        (request(700, 700, log.head(1000)), 200),
    ];
    for (number, (request, _)) in requests.iter().enumerate() {
        write(folder.path(), &format!("request.{number}"), request.to_string());
    }
    write(folder.path(), "log.vkey", log_key().verifier(Kind::Ed25519).to_string());
    assert_eq!(run(python("witness", folder.path())), Ok(()));

    let theirs = Theirs(folder.path().to_owned());
    let (witness, keys) = (theirs.key("witness.vkey"), [log_key().verifier(Kind::Ed25519)]);
    let mut latest = None;
    for (number, (request, expected)) in requests.into_iter().enumerate() {
        let answer = theirs.text(&format!("answer.{number}"));
        let (status, body) = answer.split_once('\n').unwrap();
        assert_eq!(status, expected.to_string(), "{number}: {body}");
        let judged = judge(&request, &keys, latest);
        assert_eq!(judged.as_ref().map_or_else(|refusal| refusal.status(), |_| 200), expected, "{number}");
        match Answer::read(expected, body.as_bytes()) {
            Answer::Cosigned(signatures) => {
                let mut note = request.checkpoint;
                add_cosignature(&mut note, &witness, &signatures).unwrap();
                let both = [keys[0].clone(), witness.clone()];
                assert_eq!(note.verify(&both).unwrap().len(), 2);
                latest = Some(judged.unwrap().head);
            }
            Answer::KnowsSize(size) => assert_eq!(Some(size), latest.map(|head| head.size)),
            Answer::Refused { .. } => assert!(expected == 400 || expected == 422),
        }
    }
}
