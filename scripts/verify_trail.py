#!/usr/bin/env python3
"""Verifies an export of Jobtrail's audit trail against anchors, without Jobtrail and without its database.

    verify_trail.py EXPORT [--anchors FILE]... [--public-key FILE]... [--accept-chain ID]... [--json]

EXPORT is what `jobtrail audit export` or `jobtrail audit evidence` wrote: lines of JSON. An anchors file holds
checkpoints as a server's `audit.anchor_file` or a node's `checkpoints.jsonl` has them, or `number<TAB>digits`: the
first digits of digest or root, from /metrics. Signatures are checked with openssl(1). Needs Python 3.9 or newer.

Prints a line for each thing that is wrong: what, in which chain and row or checkpoint. Exit code: 0 nothing is wrong,
1 something is, 2 the files cannot be used.
"""

# fmt: off
import argparse
import base64
import hashlib
import json
import re
import struct
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

ZERO = bytes(32)
NOTE = ("changed_by", "source", "change_type", "cluster_name", "job_id", "run", "node", "correlation_id", "unapplied",
    "request_id")
REMOVALS = ("payload_erased", "payload_pruned", "trail_pruned")
NAMED = re.compile("the chain before this one: chain ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) up to sequence "
    "([0-9]{1,18}) with hash ([0-9a-f]{64}); ([0-9]{1,18}) of its events")

def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()

def field(value):
    """A text within a hash: length and bytes; another mark for what is not there."""
    if value is None:
        return b"\xff\xff\xff\xff"
    raw = str(value).encode()
    return struct.pack(">I", len(raw)) + raw

def row_hash(row):
    kind = row["kind"].encode()
    return sha(b"jobtrail-audit-row-v1\0", uuid.UUID(row["chain_id"]).bytes, struct.pack(">Q", row["seq"]),
        bytes.fromhex(row["prev_hash"]), struct.pack(">QH", row["time_us"], len(kind)), kind,
        uuid.UUID(row["event_id"]).bytes, bytes.fromhex(row["commitment"]))

def snapshot_commitment(row, salt):
    said = (field(row[name]) for name in ("snapshot", "person", "sent_by"))
    return sha(b"jobtrail-audit-snapshot-v1\0", salt, *said)

def store_hash(previous, row):
    return sha(b"jobtrail-audit-store-v1\0", previous, bytes.fromhex(row["row_hash"]),
        bytes.fromhex(row["snapshot_commitment"]), struct.pack(">qq", row["received_us"], row["stored_us"]),
        *(field(row[name]) for name in NOTE))

def leaf_hash(chain, seq, head, store):
    return sha(b"\0", b"jobtrail-audit-leaf-v1\0", uuid.UUID(chain).bytes, struct.pack(">Q", seq),
        bytes.fromhex(head), bytes.fromhex(store))

def merkle_root(hashes):
    """RFC 9162, section 2.1.1."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha()
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return sha(b"\1", merkle_root(hashes[:split]), merkle_root(hashes[split:]))

def root_by_path(value, index, count, path):
    """The root that a path leads to (RFC 9162, section 2.1.3.2); None for a path that cannot be."""
    here, last = index, count - 1
    for neighbour in map(bytes.fromhex, path):
        if last == 0:
            return None
        if here % 2 or here == last:
            value = sha(b"\1", neighbour, value)
            while here and here % 2 == 0:
                here, last = here >> 1, last >> 1
        else:
            value = sha(b"\1", value, neighbour)
        here, last = here >> 1, last >> 1
    return value if last == 0 else None

def read_keys(paths):
    """Ed25519 keys in PEM by their ids; the last 32 bytes are the key itself (RFC 8410). A file may hold several."""
    texts = [(path, Path(path).read_text(encoding="ascii")) for path in paths]
    found = [re.findall("-----BEGIN PUBLIC KEY-----([^-]+)-----END PUBLIC KEY-----", text) for _, text in texts]
    if not all(found):
        raise ValueError("a file given as --public-key holds no public key in PEM")
    ders = [base64.b64decode(body) for bodies in found for body in bodies]
    return {sha(der[-32:]).hex()[:16]: der for der in ders}

def checkpoint_bytes(one):
    return b"".join(( b"jobtrail-audit-checkpoint-v1\0", struct.pack(">Q", one["number"]),
        bytes.fromhex(one["previous"]), bytes.fromhex(one["root"]),
        struct.pack(">QQQ", one["leaf_count"], one["total_rows"], one["time_us"]), ))

class Verification:
    def __init__(self, keys, accepted=()):
        self.accepted = accepted
        self.firsts = []  # of each chain: when its first row was stored, chain, node, what that row says
        self.ends = {}  # chain -> its last sequence
        self.named = {}  # chain and sequence -> hash, of rows that the first row of a later chain names
        self.findings = []
        self.rows = self.removed = self.checkpoints = self.signed = self.uncovered = self.rows_uncovered = 0
        self.keys = keys
        self.removed_ranges = []  # chain, first, last
        self.begins = {}  # chain -> where it begins behind what was pruned
        self.leaves = {}  # chain -> {seq: (hash, store hash, checkpoint)}
        self.seen = set()
        self.digests = {}
        self.roots = {}
        self.before = None  # the checkpoint before
        self.chain = None
        self.is_evidence = False

    def find(self, code, detail, chain=None, seq=None, checkpoint=None):
        self.findings.append({"code": code, "detail": detail, "chain_id": chain, "seq": seq, "checkpoint": checkpoint})

    def take_checkpoint(self, one):
        number, message, before = one["number"], checkpoint_bytes(one), self.before
        self.checkpoints += 1
        digest = sha(message)
        self.digests[number], self.roots[number] = digest, one["root"]
        if digest.hex() != one["digest"]:
            self.find("checkpoint_changed", "its hash is not that of what it says", checkpoint=number)
        expected = 1 if before is None else before[0] + 1
        if not self.is_evidence and number != expected:
            self.find("checkpoint_missing", f"those up to {number - 1} are not there", checkpoint=expected)
        elif number == expected and one["previous"] != (before[1] if before else ZERO).hex():
            self.find("checkpoint_changed", "it does not follow the checkpoint before", checkpoint=number)
        self.before = (number, digest)
        self.take_proofs(one) if self.is_evidence else self.take_leaves(one)
        self.check_signature(one, message)

    def take_leaves(self, one):
        chains = [uuid.UUID(leaf[0]).bytes for leaf in one["leaves"]]
        root = merkle_root([leaf_hash(*leaf) for leaf in one["leaves"]]).hex()
        if len(chains) != one["leaf_count"] or chains != sorted(set(chains)) or root != one["root"]:
            self.find("root_differs", "its leaves do not give its root", checkpoint=one["number"])
        for leaf in one["leaves"]:
            self.leaves.setdefault(leaf[0], {})[leaf[1]] = (leaf[2], leaf[3], one["number"])

    def take_proofs(self, one):
        for proof in one["proofs"]:
            leaf, number = proof["leaf"], one["number"]
            root = root_by_path(leaf_hash(*leaf), proof["index"], one["leaf_count"], proof["path"])
            if root is None or root.hex() != one["root"]:
                self.find("root_differs", "the path does not lead to its root", leaf[0], leaf[1], number)
            self.leaves.setdefault(leaf[0], {})[leaf[1]] = (leaf[2], leaf[3], number)

    def check_signature(self, one, message):
        if not self.keys or one["signature"] is None:
            if self.keys and self.signed:
                self.find("signature_missing", "it is not signed, and one before it is", checkpoint=one["number"])
            return
        self.signed += 1
        wrong = one["key_id"] not in self.keys
        if not wrong:
            with tempfile.TemporaryDirectory() as at:
                key, signature = self.keys[one["key_id"]], bytes.fromhex(one["signature"])
                command = ["openssl", "pkeyutl", "-verify", "-pubin", "-rawin", "-keyform", "DER"]
                for option, content in (("-inkey", key), ("-sigfile", signature), ("-in", message)):
                    Path(at, option).write_bytes(content)
                    command += [option, str(Path(at, option))]
                wrong = subprocess.run(command, capture_output=True, check=False).returncode != 0
        if wrong:
            self.find("signature_wrong", "its signature is of no key that is believed", checkpoint=one["number"])

    def begin_chain(self, chain):
        self.end_chain()
        if chain["chain_id"] in self.seen:
            raise ValueError(f"chain {chain['chain_id']} is there twice")
        self.seen.add(chain["chain_id"])
        start = self.begins.get(chain["chain_id"], (0, ZERO, ZERO))
        covered = self.leaves.get(chain["chain_id"], {})
        said = (start[1].hex(), start[2].hex())
        if start[0] and (max(covered, default=0) < start[0] or covered.get(start[0], said)[:2] != said):
            self.find("leaf_differs", "no checkpoint covers it as it was up to where it is said to be pruned",
                chain["chain_id"], start[0])
        if chain.get("begin"):  # of evidence: a leaf that is proved by its own path
            seq, head, store = chain["begin"]
            if covered.get(seq, ())[:2] != (head, store):
                self.find("leaf_differs", "no checkpoint covers where it begins", chain["chain_id"], seq)
            start = (seq, bytes.fromhex(head), bytes.fromhex(store))
        self.chain, self.at, self.uncovered = chain, start, 0

    def take_row(self, row):
        chain, seq = row["chain_id"], row["seq"]
        at_seq, at_hash, at_store = self.at
        self.rows += 1
        if self.chain is None or chain != self.chain["chain_id"]:
            raise ValueError(f"a row of chain {chain} stands where that chain's rows are not")
        if seq != at_seq + 1:
            gap = f"rows {at_seq + 1} to {seq - 1} are not there"
            self.find("row_missing", gap if seq > at_seq else f"row {seq} comes after row {at_seq}", chain, at_seq + 1)
        elif row["prev_hash"] != at_hash.hex():
            self.find("link_broken", "its previous hash is not the hash of the row before", chain, seq)
        if len(row["kind"].encode()) > 0xFFFF or row_hash(row).hex() != row["row_hash"]:
            self.find("row_changed", "its hash is not that of what it says", chain, seq)
        store = ZERO
        if row["store_hash"] is None or row["snapshot_commitment"] is None:
            if at_store != ZERO:
                self.find("hash_missing", "the store's hash is missing, and the row before has one", chain, seq)
        else:
            store = bytes.fromhex(row["store_hash"])
            if seq == at_seq + 1 and store_hash(at_store, row) != store:
                self.find("columns_changed", "what the store noted is not what it noted then", chain, seq)
        self.check_payload(row)
        if at_seq == self.begins.get(chain, (0,))[0] and not self.is_evidence:
            self.firsts.append((row["stored_us"], chain, row["node"] or "@", first_words(row)))
        if (chain, str(seq)) in self.named:
            self.named[chain, str(seq)] = row["row_hash"]
        self.at = (seq, bytes.fromhex(row["row_hash"]), store)
        leaf = self.leaves.get(chain, {}).pop(seq, None)
        self.uncovered = 0 if leaf else self.uncovered + 1
        if leaf and leaf[:2] != (row["row_hash"], store.hex()):
            self.find("leaf_differs", "the row is not the one that the checkpoint covers", chain, seq, leaf[2])

    def check_payload(self, row):
        chain, seq = row["chain_id"], row["seq"]
        if row.get("withheld") and self.is_evidence:
            return
        if row["payload"] is None:
            by_order = any(one == chain and first <= seq <= last for one, first, last in self.removed_ranges)
            if by_order or (self.is_evidence and row.get("removed_under")):
                self.removed += 1
            else:
                self.find("payload_missing", "its payload is not there, and no row says why", chain, seq)
            return
        salt, payload = bytes.fromhex(row["salt"]), bytes.fromhex(row["payload"])
        if sha(b"jobtrail-audit-payload-v1\0", salt, payload).hex() != row["commitment"]:
            self.find("payload_changed", "its payload is not what was committed to", chain, seq)
        if row["snapshot_commitment"] and snapshot_commitment(row, salt).hex() != row["snapshot_commitment"]:
            self.find("snapshot_changed", "the copy of the job, or who spoke, is not what was committed to", chain, seq)
        if self.chain["node"] == row["node"] == "@store" and row["kind"] in REMOVALS:
            self.note_removal(row, payload)

    def note_removal(self, row, payload):
        try:
            for chain, first, last, *hashes in json.loads(payload)["removal"]["ranges"]:
                self.removed_ranges.append((chain, first, last))
                if row["kind"] == "trail_pruned":
                    self.begins[chain] = (last, *map(bytes.fromhex, hashes))
        except (ValueError, KeyError, TypeError):
            self.find("removal_unreadable", "a row about a removal cannot be read", row["chain_id"], row["seq"])

    def end_chain(self):
        if self.chain is None:
            return
        chain, (seq, head, store) = self.chain, self.at
        self.ends[chain["chain_id"]] = seq
        if chain["head_seq"] is None:
            self.find("chain_missing", "it is not in audit_chain", chain["chain_id"])
        elif chain["head_seq"] > seq:
            self.find("tail_missing", f"it is to end at {chain['head_seq']}", chain["chain_id"], seq + 1)
        elif (chain["head_seq"], chain["head_hash"], chain["store_hash"]) != (seq, head.hex(), store.hex()):
            self.find("head_differs", f"its rows end at {seq}, audit_chain says otherwise", chain["chain_id"], seq)
        self.rows_uncovered += self.uncovered
        self.chain = None

    def check_beginnings(self):
        """A chain of a node that had one before is to say which, and rightly; those of imports follow none."""
        nodes = set()
        for _, chain, node, said in sorted(self.firsts):
            if node.startswith("@") or "a chain of its own for an import" in (said or ""):
                continue
            named = NAMED.search(said or "")
            if named and chain not in self.accepted:
                before, seq, digest, carried = named.groups()
                number, end, held = int(seq), self.ends.get(before, 0), self.named.get((before, seq))
                least = end + int(carried) if end < number else self.begins.get(before, (0,))[0]
                if held != digest if held else number > least:
                    self.find("chain_predecessor_differs", f"row {seq} of {before} is another, or not there", chain, 1)
            elif node in nodes and said is not None and chain not in self.accepted:
                self.find("chain_unexplained", f"node {node} had a chain before, and it does not name it", chain, 1)
            nodes.add(node)

    def finish(self, anchors):
        self.end_chain()
        self.check_beginnings()
        for chain, left in self.leaves.items():
            begin = self.begins.get(chain, (0, ZERO, ZERO))
            lost = [] if self.is_evidence else [seq for seq in left if seq > begin[0]]
            if lost:
                self.find("tail_missing", f"a checkpoint covers it up to {max(lost)}", chain, min(lost))
        for chain, begin in self.begins.items():  # the last row of a chain is never pruned
            if chain not in self.seen:
                self.find("chain_missing", "what was not pruned of it is not there", chain, begin[0] + 1)
        if self.keys and self.checkpoints and not self.signed:
            self.find("signature_missing", "no checkpoint is signed, and a key is given", checkpoint=self.before[0])
        for number, digest, prefix in anchors:
            if number not in self.digests and not self.is_evidence:
                self.find("anchor_missing", "it is anchored and not there", checkpoint=number)
            held = self.digests.get(number, ZERO).hex()
            begins = held.startswith(prefix) or self.roots.get(number, "").startswith(prefix)
            if number in self.digests and (digest not in (None, held) or not begins):
                self.find("anchor_differs", "another one is anchored under this number", checkpoint=number)
        anchored = {number for number, _, _ in anchors} & set(self.digests)
        return {"rows": self.rows, "rows_not_covered_yet": self.rows_uncovered, "checkpoints": self.checkpoints,
            "payloads_removed_by_order": self.removed, "signatures_checked": self.signed,
            "anchored_up_to": max(anchored, default=0), "findings": self.findings}

def first_words(row):
    """What the first row of a chain says; None where it is not the first, or its payload is removed."""
    if row["seq"] != 1 or row["payload"] is None:
        return None
    return bytes.fromhex(row["payload"]).decode(errors="replace") if row["kind"] == "chain_started" else ""

def read_anchors(paths):
    for path in paths:
        count = 0
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        for line in filter(None, map(str.strip, text.splitlines())):
            try:
                if line.startswith("{"):
                    one = json.loads(line)
                    yield one["number"], sha(checkpoint_bytes(one)).hex(), ""
                else:
                    number, digits = line.split("\t")
                    yield int(number), None, digits if len(digits) > 7 else "too few digits"
                count += 1
            except (ValueError, KeyError, TypeError, struct.error):  # as where the power went while it was written
                print(f"verify_trail: {path}: no checkpoint: {line[:60]!r}", file=sys.stderr)
        if not count:
            raise ValueError(f"{path} holds no checkpoint")

def verify(export, anchors, public_keys, accepted):
    run = Verification(read_keys(public_keys), accepted)
    take = {"checkpoint": run.take_checkpoint, "chain": run.begin_chain, "row": run.take_row}
    with Path(export).open(encoding="utf-8") as file:
        said = [first_words(json.loads(line)) for line in file if '"chain_started"' in line]
        run.named = {named.group(1, 2): None for named in map(NAMED.search, filter(None, said)) if named}
        file.seek(0)
        head = json.loads(next(file))
        if head.get("jobtrail_export") != 1:
            raise ValueError("is no export of this version")
        run.is_evidence = head["scope"] != "trail"
        for line in file:
            one = json.loads(line)
            take[one["type"]](one)
    return run.finish(list(read_anchors(anchors)))

def reason(error):
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror}"
    if isinstance(error, (json.JSONDecodeError, StopIteration, KeyError, TypeError)):
        return f"it is not as `jobtrail audit export` and `jobtrail audit evidence` write it ({error!r})"
    return str(error)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", metavar="EXPORT", help="what is verified")
    parser.add_argument("--anchors", action="append", default=[], metavar="FILE", help="kept by a witness; repeatable")
    parser.add_argument("--public-key", action="append", default=[], metavar="FILE", help="of the servers' signing key")
    parser.add_argument("--accept-chain", action="append", default=[], type=str.lower, metavar="ID",
        help="somebody looked into its beginning; repeatable")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    chosen = parser.parse_args()
    try:
        result = verify(chosen.export, chosen.anchors, chosen.public_key, chosen.accept_chain)
    except (OSError, ValueError, KeyError, TypeError, StopIteration, struct.error) as error:
        print(f"verify_trail: {chosen.export} cannot be verified: {reason(error)}", file=sys.stderr)
        return 2
    if chosen.json:
        print(json.dumps(result))
    else:
        for one in result["findings"]:
            where = [f"{name} {one[name]}" for name in ("checkpoint", "chain_id", "seq") if one[name] is not None]
            print(f"{one['code']}: {' '.join(where)}: {one['detail']}")
        print(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in result.items() if name != "findings"))
        print("FINDINGS: " + str(len(result["findings"])) if result["findings"] else "nothing is wrong")
        if not chosen.anchors:
            print("without --anchors a trail that was recomputed as a whole looks right too")
    return 1 if result["findings"] else 0

if __name__ == "__main__":
    sys.exit(main())
