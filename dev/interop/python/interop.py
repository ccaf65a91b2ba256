"""Checks a log that the ledger's crate wrote, writes one for the crate to check, and answers as a witness, with the packages
aics-tlog and aics-witness. lib/transparency/tests/interop.rs runs it.

    interop.py check FOLDER
    interop.py make FOLDER
    interop.py witness FOLDER
"""

import base64
import json
import sys
import time
from pathlib import Path

from aics_tlog import (
    Checkpoint,
    DirectoryTileStore,
    FileSystemTileReader,
    IncrementalTileWriter,
    MerkleTree,
    Note,
    WitnessPolicy,
    audit_tiles,
    consistency_proof_from_tiles,
    cosignature_vkey,
    format_vkey,
    inclusion_proof_from_tiles,
    parse_note,
    parse_vkey,
    sign_checkpoint,
    sign_cosignature,
    tree_root_from_tiles,
    verify_checkpoint,
    verify_consistency,
    verify_inclusion,
    vkey_from_ed25519,
)
from aics_witness.config import LogConfig
from aics_witness.service import Witness, WitnessError
from aics_witness.store import WitnessStore
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIZES = [1, 2, 3, 255, 256, 257, 511, 512, 1000, 1999, 2000]


def encode(hashes: list[bytes]) -> list[str]:
    return [base64.b64encode(value).decode() for value in hashes]


def decode(hashes: list[str]) -> list[bytes]:
    return [base64.b64decode(value, validate=True) for value in hashes]


def check(folder: Path) -> None:
    log_key = parse_vkey((folder / "log.vkey").read_text().strip())
    witness_key = parse_vkey((folder / "witness.vkey").read_text().strip())
    note = parse_note((folder / "checkpoint").read_bytes())
    policy = WitnessPolicy(quorum=1, witnesses=(witness_key,))
    opened = verify_checkpoint(note, log_key, expected_origin=log_key.name, policy=policy)
    assert opened.ok and opened.cosignature_count == 1, opened
    reader = FileSystemTileReader(folder)
    report = audit_tiles(reader, opened.size, opened.root)
    check_proofs(reader, json.loads((folder / "proofs.json").read_text()), opened.size)
    print(f"checked {report.tiles} tiles and {report.bundles} bundles")


def check_proofs(reader: FileSystemTileReader, written: dict, size: int) -> None:
    roots = {head["size"]: decode([head["root"]])[0] for head in written["heads"]}
    for at, root in roots.items():
        assert tree_root_from_tiles(reader, at, size) == root, at
    for proof in written["inclusion"]:
        hashes, leaf, at = decode(proof["hashes"]), proof["leaf"], proof["size"]
        assert inclusion_proof_from_tiles(reader, leaf, at, size) == hashes, proof
        leaf_hash = decode([proof["leaf_hash"]])[0]
        assert verify_inclusion(leaf_hash, leaf, at, hashes, roots[at]), proof
    for proof in written["consistency"]:
        hashes, old, new = decode(proof["hashes"]), proof["from"], proof["to"]
        assert consistency_proof_from_tiles(reader, old, new, size) == hashes, proof
        assert verify_consistency(old, new, roots[old], roots[new], hashes), proof
    assert written["inclusion"] and written["consistency"]


def make(folder: Path) -> None:
    entries = [number.to_bytes(8, "big") * (number % 17) for number in range(SIZES[-1])]
    writer = IncrementalTileWriter(DirectoryTileStore(folder, fsync=False))
    # In parts, so that partial tiles are replaced.
    writer.append(entries[:700])
    writer.append(entries[700:])
    tree = MerkleTree(entries)
    log_secret, witness_secret = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    origin, witness = "python.example/log", "witness.example/python"
    checkpoint = Checkpoint(origin=origin, size=tree.size, root=tree.root())
    note = sign_checkpoint(checkpoint, log_secret, origin)
    now = int(time.time())
    _, cosignature = sign_cosignature(witness_secret, witness, now, origin, tree.size, tree.root())
    unknown = parse_note("text\n\n— witness.example/newer AAAAAAYGBgY=\n").signatures
    note = Note(text=note.text, signatures=note.signatures + unknown + (cosignature,))
    (folder / "checkpoint").write_bytes(note.to_bytes())
    (folder / "log.vkey").write_text(format_vkey(vkey_from_ed25519(origin, log_secret.public_key())))
    (folder / "witness.vkey").write_text(format_vkey(cosignature_vkey(witness, witness_secret.public_key())))
    (folder / "signed_at").write_text(f"{now}\n")
    (folder / "proofs.json").write_text(json.dumps(proofs_of(tree)))


def proofs_of(tree: MerkleTree) -> dict:
    pairs = [(old, new) for new in SIZES for old in SIZES if old <= new]
    leaf_hash = lambda leaf: MerkleTree([tree.leaf_data(leaf)]).root()
    return {
        "heads": [{"size": size, "root": encode([tree.root(size)])[0]} for size in SIZES],
        "inclusion": [
            {
                "leaf": old - 1,
                "size": new,
                "leaf_hash": encode([leaf_hash(old - 1)])[0],
                "hashes": encode(tree.inclusion_proof(old - 1, new)),
            }
            for old, new in pairs
        ],
        "consistency": [
            {"from": old, "to": new, "hashes": encode(tree.consistency_proof(old, new))} for old, new in pairs
        ],
    }


def answer_as_witness(folder: Path) -> None:
    """Answers request.0, request.1 and so on, each with its status on the first line of answer.N."""
    log_key = (folder / "log.vkey").read_text().strip()
    log = LogConfig.from_strings(log_key.split("+")[0], [log_key])
    store = WitnessStore(folder / "witness.sqlite", create=True)
    witness = Witness("witness.example/python", Ed25519PrivateKey.generate(), store, [log])
    (folder / "witness.vkey").write_text(witness.vkey_text)
    number = 0
    while (request := folder / f"request.{number}").exists():
        try:
            status, body = 200, witness.add_checkpoint(request.read_bytes())
        except WitnessError as refusal:
            status, body = refusal.status, refusal.body
        (folder / f"answer.{number}").write_bytes(f"{status}\n".encode() + body)
        number += 1


if __name__ == "__main__":
    commands = {"check": check, "make": make, "witness": answer_as_witness}
    commands[sys.argv[1]](Path(sys.argv[2]))
