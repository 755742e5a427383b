#!/usr/bin/env python3
"""Verifies an export of Jobtrail's audit trail against anchors, without Jobtrail and without its database.

EXPORT is what `jobtrail audit export` or `jobtrail audit evidence` wrote: lines of JSON. An anchors file holds
checkpoints as a server's `audit.anchor_file` or a node's `checkpoints.jsonl` has them, or `number<TAB>digits`: the
first digits of digest or root, from /metrics. Signatures are checked with openssl(1). Needs Python 3.9 or newer.

Prints a line for each thing that is wrong: what (docs/audit.md says of each word what it means), and in which chain and
row or checkpoint. Exit code: 0 nothing is wrong, 1 something is, 2 the files cannot be used.
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
from collections import Counter
from pathlib import Path
from uuid import UUID

ZERO = "0" * 64  # in the place of a hash where there is nothing before
START = (0, ZERO, ZERO)  # a place in a chain: sequence, row hash, store hash
NOTE = ("changed_by", "source", "change_type", "cluster_name", "job_id", "run", "node", "correlation_id", "unapplied",
    "request_id")
REMOVALS = ("payload_erased", "payload_pruned", "trail_pruned")
NAMED = re.compile("the chain before this one: chain ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) up to sequence "
    "([0-9]{1,18}) with hash ([0-9a-f]{64}); ([0-9]{1,18}) of its events")
KEY = re.compile("-----BEGIN PUBLIC KEY-----([^-]+)-----END PUBLIC KEY-----")

# The bytes that are hashed are those of docs/audit.md. A hash is written in hexadecimal, as all bytes in an export are.

def packed(part):
    if isinstance(part, int):
        return part.to_bytes(8, "big", signed=part < 0)
    return bytes.fromhex(part) if isinstance(part, str) else part.bytes if isinstance(part, UUID) else part

def sha(*parts):
    return hashlib.sha256(b"".join(map(packed, parts))).hexdigest()

def field(value):
    """A text within a hash: length and bytes; another mark for what is not there."""
    text = str(value).encode()
    return b"\xff\xff\xff\xff" if value is None else struct.pack(">I", len(text)) + text

def row_hash(row):
    kind = row["kind"].encode()
    return sha(b"jobtrail-audit-row-v1\0", UUID(row["chain_id"]), row["seq"], row["prev_hash"], row["time_us"],
        struct.pack(">H", len(kind)), kind, UUID(row["event_id"]), row["commitment"])

def snapshot_commitment(row):
    said = [field(row[name]) for name in ("snapshot", "person", "sent_by")]
    return sha(b"jobtrail-audit-snapshot-v1\0", row["salt"], *said)

def store_hash(previous, row):
    return sha(b"jobtrail-audit-store-v1\0", previous, row["row_hash"], row["snapshot_commitment"], row["received_us"],
        row["stored_us"], *(field(row[name]) for name in NOTE))

def leaf_hash(chain, seq, head, store):
    return sha(b"\0jobtrail-audit-leaf-v1\0", UUID(chain), seq, head, store)

def checkpoint_bytes(one):
    numbers = (one["leaf_count"], one["total_rows"], one["time_us"])
    parts = (b"jobtrail-audit-checkpoint-v1\0", one["number"], one["previous"], one["root"], *numbers)
    return b"".join(map(packed, parts))

def merkle_root(hashes):
    """RFC 9162, section 2.1.1."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha()
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return sha(b"\1", merkle_root(hashes[:split]), merkle_root(hashes[split:]))

def root_by_path(leaf, index, count, path):
    """The root over `count` leaves, by the neighbours of one from below (RFC 9162, 2.1.3); None: it cannot be."""
    if count < 2 or not path:
        return leaf if (index, count, path) == (0, 1, []) else None
    split = 1 << (count - 1).bit_length() - 1
    if index < split:
        inner = root_by_path(leaf, index, split, path[:-1])
        return inner and sha(b"\1", inner, path[-1])
    inner = root_by_path(leaf, index - split, count - split, path[:-1])
    return inner and sha(b"\1", path[-1], inner)

def is_signed(message, signature, key):
    with tempfile.TemporaryDirectory() as at:
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-rawin", "-keyform", "DER"]
        for option, content in (("-inkey", key), ("-sigfile", packed(signature)), ("-in", message)):
            Path(at, option).write_bytes(content)
            command += [option, str(Path(at, option))]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

class Verification:
    def __init__(self, keys, accepted, is_evidence, said):
        self.keys, self.accepted, self.is_evidence = keys, accepted, is_evidence
        self.said = said  # chain -> what its first row says, where that row began it
        self.named = {one.group(1, 2): None for one in map(NAMED.search, said.values()) if one}  # rows -> hash
        self.findings, self.count = [], Counter()
        self.before = (0, ZERO)  # number and digest of the checkpoint before
        self.digests, self.roots = {}, {}
        self.leaves = {}  # chain -> {seq: (row hash, store hash, checkpoint)}
        self.removed = []  # chain, first, last: what is gone by order
        self.begins = {}  # chain -> the place behind what was pruned
        self.ends = {}  # chain -> its last sequence
        self.firsts = []  # of each chain: when its first row was stored, chain, node, what that row says
        self.chain = None

    def expect(self, holds, code, chain=None, seq=None, checkpoint=None):
        if not holds:
            self.findings.append({"code": code, "chain_id": chain, "seq": seq, "checkpoint": checkpoint})

    def take_checkpoint(self, one):
        number, message, (last, previous) = one["number"], checkpoint_bytes(one), self.before
        digest, follows = sha(message), number == last + 1
        self.before, self.digests[number], self.roots[number] = (number, digest), digest, one["root"]
        self.expect(digest == one["digest"], "checkpoint_changed", checkpoint=number)
        self.expect(follows or self.is_evidence, "checkpoint_missing", checkpoint=last + 1)
        self.expect(not follows or one["previous"] == previous, "checkpoint_changed", checkpoint=number)
        self.take_leaves(one)
        if self.keys and one["signature"] is None:
            self.expect(not self.count["signed"], "signature_missing", checkpoint=number)
        elif self.keys:
            self.count["signed"] += 1
            key = self.keys.get(one["key_id"])
            self.expect(key and is_signed(message, one["signature"], key), "signature_wrong", checkpoint=number)

    def take_leaves(self, one):
        """All of a checkpoint, or of evidence some of them, each with the path to its root."""
        if self.is_evidence:
            leaves, count = [proof["leaf"] for proof in one["proofs"]], one["leaf_count"]
            roots = [root_by_path(leaf_hash(*proof["leaf"]), proof["index"], count, proof["path"])
                for proof in one["proofs"]]
            is_whole = True
        else:
            leaves, chains = one["leaves"], [UUID(leaf[0]).bytes for leaf in one["leaves"]]
            roots = [merkle_root([leaf_hash(*leaf) for leaf in leaves])]
            is_whole = len(chains) == one["leaf_count"] and chains == sorted(set(chains))
        self.expect(is_whole and {*roots} <= {one["root"]}, "root_differs", checkpoint=one["number"])
        for chain, seq, head, store in leaves:
            self.leaves.setdefault(chain, {})[seq] = (head, store, one["number"])

    def begin_chain(self, chain):
        self.end_chain()
        name = chain["chain_id"]
        if name in self.ends:
            raise ValueError(f"chain {name} is there twice")
        self.chain, self.uncovered, covered = chain, 0, self.leaves.get(name, {})
        begin = chain.get("begin")  # of evidence: a leaf that is proved by its own path
        self.at = seq, *hashes = begin or self.begins.get(name, START)
        is_covered = max(covered, default=0) >= seq and [*covered.get(seq, () if begin else hashes)][:2] == hashes
        self.expect(is_covered or not (begin or seq), "leaf_differs", name, seq)

    def take_row(self, row):
        chain, seq, (at_seq, at_hash, at_store) = row["chain_id"], row["seq"], self.at
        if self.chain is None or chain != self.chain["chain_id"]:
            raise ValueError(f"a row of chain {chain} stands where that chain's rows are not")
        follows, is_short = seq == at_seq + 1, len(row["kind"].encode()) <= 0xFFFF
        is_noted = row["store_hash"] is not None and row["snapshot_commitment"] is not None
        store = row["store_hash"] if is_noted else ZERO
        self.at = (seq, row["row_hash"], store)
        self.count["rows"] += 1
        self.expect(follows, "row_missing", chain, at_seq + 1)
        self.expect(not follows or row["prev_hash"] == at_hash, "link_broken", chain, seq)
        self.expect(is_short and row_hash(row) == row["row_hash"], "row_changed", chain, seq)
        self.expect(is_noted or at_store == ZERO, "hash_missing", chain, seq)
        if is_noted and follows:
            self.expect(store_hash(at_store, row) == store, "columns_changed", chain, seq)
        self.take_payload(row)
        if at_seq == self.begins.get(chain, START)[0] and not self.is_evidence:
            said = None if seq != 1 or row["payload"] is None else self.said.get(chain, "")
            self.firsts.append((row["stored_us"], chain, row["node"] or "@", said))
        if (chain, str(seq)) in self.named:
            self.named[chain, str(seq)] = row["row_hash"]
        leaf = self.leaves.get(chain, {}).pop(seq, None)
        self.uncovered = 0 if leaf else self.uncovered + 1
        if leaf:
            self.expect(leaf[:2] == (row["row_hash"], store), "leaf_differs", chain, seq, leaf[2])

    def take_payload(self, row):
        chain, seq, said = row["chain_id"], row["seq"], row["snapshot_commitment"]
        if row["payload"] is not None:
            holds = sha(b"jobtrail-audit-payload-v1\0", row["salt"], row["payload"]) == row["commitment"]
            self.expect(holds, "payload_changed", chain, seq)
            self.expect(not said or snapshot_commitment(row) == said, "snapshot_changed", chain, seq)
            if self.chain["node"] == row["node"] == "@store" and row["kind"] in REMOVALS:
                try:
                    for name, first, last, *hashes in json.loads(packed(row["payload"]))["removal"]["ranges"]:
                        self.removed.append((name, first, last))
                        if row["kind"] == "trail_pruned":
                            self.begins[name] = (last, *(packed(one).hex() for one in hashes))
                except (ValueError, KeyError, TypeError, AttributeError):
                    self.expect(False, "removal_unreadable", chain, seq)
        elif not (self.is_evidence and row.get("withheld")):
            by_order = any(one == chain and first <= seq <= last for one, first, last in self.removed)
            by_order = by_order or bool(self.is_evidence and row.get("removed_under"))
            self.count["removed"] += by_order
            self.expect(by_order, "payload_missing", chain, seq)

    def end_chain(self):
        if self.chain is None:
            return
        one, seq, self.chain = self.chain, self.at[0], None
        name, end, ends = one["chain_id"], one["head_seq"], (one["head_seq"], one["head_hash"], one["store_hash"])
        self.ends[name] = seq
        self.count["uncovered"] += self.uncovered
        self.expect(end is not None, "chain_missing", name)
        if end is not None:
            self.expect(end <= seq, "tail_missing", name, seq + 1)
            self.expect(end > seq or ends == tuple(self.at), "head_differs", name, seq)

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
                least = end + int(carried) if end < number else self.begins.get(before, START)[0]
                self.expect(held == digest if held else number <= least, "chain_predecessor_differs", chain, 1)
            elif chain not in self.accepted:
                self.expect(node not in nodes or said is None, "chain_unexplained", chain, 1)
            nodes.add(node)

    def finish(self, anchors):
        self.end_chain()
        self.check_beginnings()
        for chain, left in self.leaves.items():
            lost = [seq for seq in left if seq > self.begins.get(chain, START)[0] and not self.is_evidence]
            self.expect(not lost, "tail_missing", chain, min(lost, default=0))
        for chain, begin in self.begins.items():  # the last row of a chain is never pruned
            self.expect(chain in self.ends, "chain_missing", chain, begin[0] + 1)
        unsigned = self.keys and self.digests and not self.count["signed"]
        self.expect(not unsigned, "signature_missing", checkpoint=self.before[0])
        for number, digits, is_digest in anchors:
            held, root = self.digests.get(number), self.roots.get(number)
            self.expect(held or self.is_evidence, "anchor_missing", checkpoint=number)
            if held:
                agrees = held == digits or (not is_digest and (held.startswith(digits) or root.startswith(digits)))
                self.expect(agrees, "anchor_differs", checkpoint=number)
        anchored = {number for number, *_ in anchors} & set(self.digests)
        return {"rows": self.count["rows"], "rows_not_covered_yet": self.count["uncovered"],
            "checkpoints": len(self.digests), "payloads_removed_by_order": self.count["removed"],
            "signatures_checked": self.count["signed"], "anchored_up_to": max(anchored, default=0),
            "findings": self.findings}

def read_keys(paths):
    """Ed25519 keys in PEM by their ids; the last 32 bytes are the key itself (RFC 8410). A file may hold several."""
    found = [KEY.findall(Path(path).read_text(encoding="ascii")) for path in paths]
    if not all(found):
        raise ValueError("a file given as --public-key holds no public key in PEM")
    ders = [base64.b64decode(body) for bodies in found for body in bodies]
    return {sha(der[-32:])[:16]: der for der in ders}

def read_anchors(path):
    """Of each its number, what it says, and whether that is a whole digest or the beginning of digest or root."""
    found = []
    for line in filter(None, map(str.strip, Path(path).read_text(encoding="utf-8", errors="replace").splitlines())):
        try:
            if line.startswith("{"):
                found.append((json.loads(line)["number"], sha(checkpoint_bytes(json.loads(line))), True))
            else:
                number, digits = line.split("\t")
                found.append((int(number), digits if len(digits) > 7 else "too few digits", False))
        except (ValueError, KeyError, TypeError, OverflowError):  # as where the power went while it was written
            print(f"verify_trail: {path}: no checkpoint: {line[:60]!r}", file=sys.stderr)
    if not found:
        raise ValueError(f"{path} holds no checkpoint")
    return found

def first_words(file):
    """Of each chain that is whole: chain, and what its first row says."""
    for row in (json.loads(line) for line in file if '"chain_started"' in line):
        if row.get("seq") == 1 and row["payload"] is not None and row["kind"] == "chain_started":
            yield row["chain_id"], packed(row["payload"]).decode(errors="replace")

def verify(export, anchors, public_keys, accepted):
    with Path(export).open(encoding="utf-8") as file:
        said = dict(first_words(file))
        file.seek(0)
        head = json.loads(next(file))
        if head.get("jobtrail_export") != 1:
            raise ValueError("is no export of this version")
        run = Verification(read_keys(public_keys), accepted, head["scope"] != "trail", said)
        take = {"checkpoint": run.take_checkpoint, "chain": run.begin_chain, "row": run.take_row}
        for one in map(json.loads, file):
            take[one["type"]](one)
    return run.finish([anchor for path in anchors for anchor in read_anchors(path)])

def reason(error):
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror}"
    if isinstance(error, (json.JSONDecodeError, StopIteration, LookupError, TypeError, AttributeError)):
        return f"it is not as `jobtrail audit export` and `jobtrail audit evidence` write it ({error!r})"
    return str(error)

def show(result, is_anchored):
    for one in result["findings"]:
        where = [f"{name} {one[name]}" for name in ("checkpoint", "chain_id", "seq") if one[name] is not None]
        print(f"{one['code']}: {' '.join(where)}")
    print(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in result.items() if name != "findings"))
    print(f"FINDINGS: {len(result['findings'])}" if result["findings"] else "nothing is wrong")
    if not is_anchored:
        print("without --anchors a trail that was recomputed as a whole looks right too")

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", metavar="EXPORT", help="what is verified")
    for option, what in (("--anchors", "FILE kept by a witness"), ("--public-key", "FILE of the servers' signing key"),
            ("--accept-chain", "ID of a chain into whose beginning somebody looked")):
        parser.add_argument(option, action="append", default=[], metavar=what.split()[0], help=f"{what}; repeatable")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    chosen = parser.parse_args()
    try:
        result = verify(chosen.export, chosen.anchors, chosen.public_key, list(map(str.lower, chosen.accept_chain)))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration, OverflowError) as error:
        print(f"verify_trail: {chosen.export} cannot be verified: {reason(error)}", file=sys.stderr)
        return 2
    print(json.dumps(result)) if chosen.json else show(result, chosen.anchors)
    return 1 if result["findings"] else 0

if __name__ == "__main__":
    sys.exit(main())
