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
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import UUID

ZERO = "0" * 64  # in the place of a hash where there is nothing before
START = (0, ZERO, ZERO)  # a place in a chain: sequence, row hash, store hash
NOTE = ("changed_by", "source", "change_type", "cluster_name", "job_id", "run", "node", "correlation_id", "unapplied",
    "request_id")
REMOVALS = ("payload_erased", "payload_pruned", "trail_pruned")
COUNTED = ("rows", "rows_not_covered_yet", "checkpoints", "payloads_removed_by_order", "signatures_checked")
NAMED = re.compile("the chain before this one: chain ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) up to sequence "
    "([0-9]{1,18}) with hash ([0-9a-f]{64}); ([0-9]{1,18}) of its events")
KEY = re.compile("-----BEGIN PUBLIC KEY-----([^-]+)-----END PUBLIC KEY-----")

def packed(part):
    """A part of the bytes that docs/audit.md says are hashed; texts are hexadecimal, as all bytes in an export are."""
    if isinstance(part, int):
        return part.to_bytes(8, "big", signed=part < 0)
    return bytes.fromhex(part) if isinstance(part, str) else part.bytes if isinstance(part, UUID) else part

def sha(*parts):
    return hashlib.sha256(b"".join(map(packed, parts))).hexdigest()

def fields(row, *names):
    """Texts within a hash: of each its length and bytes; another mark for what is not there."""
    texts = [None if row[name] is None else str(row[name]).encode() for name in names]
    return b"".join(b"\xff\xff\xff\xff" if text is None else len(text).to_bytes(4, "big") + text for text in texts)

def row_hash(row):
    kind = row["kind"].encode()
    return len(kind) <= 0xFFFF and sha(b"jobtrail-audit-row-v1\0", UUID(row["chain_id"]), row["seq"], row["prev_hash"],
        row["time_us"], len(kind).to_bytes(2, "big"), kind, UUID(row["event_id"]), row["commitment"])

def store_hash(previous, row):
    return sha(b"jobtrail-audit-store-v1\0", previous, row["row_hash"], row["snapshot_commitment"], row["received_us"],
        row["stored_us"], fields(row, *NOTE))

def checkpoint_bytes(one):
    parts = [one[name] for name in ("number", "previous", "root", "leaf_count", "total_rows", "time_us")]
    return b"".join(map(packed, (b"jobtrail-audit-checkpoint-v1\0", *parts)))

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
    is_right = index >= split
    inner = root_by_path(leaf, index - split * is_right, count - split if is_right else split, path[:-1])
    is_path = inner and len(packed(path[-1])) == 32  # else two neighbours could stand for a leaf and its own
    return sha(b"\1", *((path[-1], inner) if is_right else (inner, path[-1]))) if is_path else None

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
        self.findings, self.count = [], dict.fromkeys(COUNTED, 0)
        self.before = (0, ZERO)  # number and digest of the checkpoint before
        self.checkpoints = {}  # number -> digest and root
        self.leaves = {}  # chain -> {sequence: (place, checkpoint)}
        self.removed = {}  # chain -> [(first, last)]: what is gone by order
        self.begins = {}  # chain -> the place behind what was pruned
        self.ends = {}  # chain -> the place where it ends here
        self.firsts = {}  # chain -> its first row here
        self.chain = None

    def expect(self, holds, code, chain=None, seq=None, checkpoint=None):
        if not holds:
            self.findings.append({"code": code, "chain_id": chain, "seq": seq, "checkpoint": checkpoint})

    def take_checkpoint(self, one):
        """A checkpoint with its leaves, or of evidence with some of them, each with the path to its root."""
        number, count, message, (last, previous) = one["number"], one["leaf_count"], checkpoint_bytes(one), self.before
        digest, follows = sha(message), number == last + 1
        self.before, self.checkpoints[number] = (number, digest), (digest, one["root"])
        self.expect(digest == one["digest"], "checkpoint_changed", checkpoint=number)
        self.expect(follows or self.is_evidence, "checkpoint_missing", checkpoint=last + 1)
        self.expect(not follows or one["previous"] == previous, "checkpoint_changed", checkpoint=number)
        if self.keys and one["signature"] is None:
            self.expect(not self.count["signatures_checked"], "signature_missing", checkpoint=number)
        elif self.keys:
            self.count["signatures_checked"] += 1
            key = self.keys.get(one["key_id"])
            self.expect(key and is_signed(message, one["signature"], key), "signature_wrong", checkpoint=number)
        leaves = [proof["leaf"] for proof in one["proofs"]] if self.is_evidence else one["leaves"]
        hashes = [sha(b"\0jobtrail-audit-leaf-v1\0", UUID(chain), *place) for chain, *place in leaves]
        if self.is_evidence:
            roots = {root_by_path(hashes[n], way["index"], count, way["path"]) for n, way in enumerate(one["proofs"])}
        else:
            chains = [UUID(chain).bytes for chain, *_ in leaves]
            is_whole = len(chains) == count and chains == sorted(set(chains))
            roots = {merkle_root(hashes) if is_whole else None}
        self.expect(roots <= {one["root"]}, "root_differs", checkpoint=number)
        for chain, *place in leaves:
            self.leaves.setdefault(chain, {})[place[0]] = (tuple(place), number)

    def begin_chain(self, chain):
        """A chain, or of evidence a stretch of one: from a leaf that is proved by its path, or from the end before."""
        self.end_chain()
        name, begin = chain["chain_id"], chain.get("begin")
        covered, end = self.leaves.get(name, {}), self.ends.get(name)
        if end and not (self.is_evidence and begin and begin[0] >= end[0]):
            raise ValueError(f"chain {name} is there twice")
        self.chain, self.uncovered, self.at = chain, 0, tuple(begin or self.begins.get(name, START))
        place, _ = covered.get(self.at[0], (end if begin else self.at, None))
        holds = place == self.at and (begin or self.at[0] <= max(covered, default=0))
        self.expect(holds, "leaf_differs", name, self.at[0])

    def take_row(self, row):
        chain, seq, (at_seq, at_hash, store) = row["chain_id"], row["seq"], self.at
        if self.chain is None or chain != self.chain["chain_id"]:
            raise ValueError(f"a row of chain {chain} stands where that chain's rows are not")
        follows, is_noted = seq == at_seq + 1, None not in (row["store_hash"], row["snapshot_commitment"])
        self.at = (seq, row["row_hash"], row["store_hash"] if is_noted else ZERO)
        self.firsts.setdefault(chain, row)
        self.count["rows"] += 1
        self.expect(follows, "row_missing", chain, at_seq + 1)
        self.expect(not follows or row["prev_hash"] == at_hash, "link_broken", chain, seq)
        self.expect(row_hash(row) == row["row_hash"], "row_changed", chain, seq)
        self.expect(is_noted or store == ZERO, "hash_missing", chain, seq)
        self.expect(not (is_noted and follows) or store_hash(store, row) == self.at[2], "columns_changed", chain, seq)
        self.take_payload(row)
        if (chain, str(seq)) in self.named:
            self.named[chain, str(seq)] = row["row_hash"]
        place, number = self.leaves.get(chain, {}).pop(seq, (None, None))
        self.uncovered = 0 if place else self.uncovered + 1
        self.expect(place in (None, self.at), "leaf_differs", chain, seq, number)

    def take_payload(self, row):
        chain, seq, said = row["chain_id"], row["seq"], row["snapshot_commitment"]
        if row["payload"] is not None:
            payload = sha(b"jobtrail-audit-payload-v1\0", row["salt"], row["payload"])
            snapshot = sha(b"jobtrail-audit-snapshot-v1\0", row["salt"], fields(row, "snapshot", "person", "sent_by"))
            self.expect(payload == row["commitment"] and len(packed(row["salt"])) == 32, "payload_changed", chain, seq)
            self.expect(said in (None, snapshot), "snapshot_changed", chain, seq)
            if self.chain["node"] == row["node"] == "@store" and row["kind"] in REMOVALS:
                try:
                    for name, first, last, *hashes in json.loads(packed(row["payload"]))["removal"]["ranges"]:
                        self.removed.setdefault(name, []).append((first, last))
                        if row["kind"] == "trail_pruned":
                            self.begins[name] = (last, *(packed(one).hex() for one in hashes))
                except (ValueError, KeyError, TypeError, AttributeError):
                    self.expect(False, "removal_unreadable", chain, seq)
        elif not (self.is_evidence and row.get("withheld")):
            by_order = any(first <= seq <= last for first, last in self.removed.get(chain, ()))
            by_order = by_order or bool(self.is_evidence and row.get("removed_under"))
            self.count["payloads_removed_by_order"] += by_order
            self.expect(by_order, "payload_missing", chain, seq)

    def end_chain(self):
        if self.chain is None:
            return
        name, head, seq = self.chain["chain_id"], self.chain["head_seq"], self.at[0]
        said, self.ends[name] = (head, self.chain["head_hash"], self.chain["store_hash"]), self.at
        self.count["rows_not_covered_yet"] += self.uncovered
        self.expect(head is not None, "chain_missing", name)
        self.expect(head is None or head <= seq, "tail_missing", name, seq + 1)
        self.expect(head is None or head > seq or said == self.at, "head_differs", name, seq)

    def check_beginnings(self):
        """A chain of a node that had one before is to say which, and rightly; those of imports follow none."""
        nodes = set()
        for row in sorted(self.firsts.values(), key=lambda row: (row["stored_us"], row["chain_id"])):
            chain, node, is_kept = row["chain_id"], row["node"] or "@", row["seq"] == 1 and row["payload"] is not None
            said = self.said.get(chain, "") if is_kept else ""
            if node.startswith("@") or "a chain of its own for an import" in said:
                continue
            named = NAMED.search(said)
            if named and chain not in self.accepted:
                before, seq, digest, carried = named.groups()
                number, end, held = int(seq), self.ends.get(before, START)[0], self.named.get((before, seq))
                least = end + int(carried) if end < number else self.begins.get(before, START)[0]
                self.expect(held == digest if held else number <= least, "chain_predecessor_differs", chain, 1)
            elif chain not in self.accepted:
                self.expect(node not in nodes or not is_kept, "chain_unexplained", chain, 1)
            nodes.add(node)

    def finish(self, anchors):
        self.end_chain()
        if not self.is_evidence:
            self.check_beginnings()
        for chain, left in self.leaves.items():
            lost = [seq for seq in left if seq > self.begins.get(chain, START)[0] and not self.is_evidence]
            self.expect(not lost, "tail_missing", chain, min(lost, default=0))
        for chain, begin in self.begins.items():  # the last row of a chain is never pruned
            self.expect(chain in self.ends, "chain_missing", chain, begin[0] + 1)
        unsigned = self.keys and self.checkpoints and not self.count["signatures_checked"]
        self.expect(not unsigned, "signature_missing", checkpoint=self.before[0])
        for number, digits, is_digest in anchors:
            held = self.checkpoints.get(number, ())
            agrees = any(one.startswith(digits) for one in (held[:1] if is_digest else held))
            self.expect(held or self.is_evidence, "anchor_missing", checkpoint=number)
            self.expect(agrees or not held, "anchor_differs", checkpoint=number)
        upto = max((number for number, *_ in anchors if number in self.checkpoints), default=0)
        return {**self.count, "checkpoints": len(self.checkpoints), "anchored_up_to": upto, "findings": self.findings}

def read_keys(paths):
    """Ed25519 keys in PEM by their ids; the last 32 bytes are the key itself (RFC 8410). A file may hold several."""
    found = [KEY.findall(Path(path).read_text(encoding="ascii")) for path in paths]
    if not all(found):
        raise ValueError("a file given as --public-key holds no public key in PEM")
    return {sha(der[-32:])[:16]: der for bodies in found for der in map(base64.b64decode, bodies)}

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

def verify(export, anchors, public_keys, accepted):
    with Path(export).open(encoding="utf-8") as file:
        rows = map(json.loads, (line for line in file if '"chain_started"' in line))
        said = {row["chain_id"]: packed(row["payload"] or "").decode(errors="replace") for row in rows
            if row.get("type") == "row" and row.get("kind") == "chain_started" and row["seq"] == 1}
        file.seek(0)
        if (head := json.loads(file.readline())).get("jobtrail_export") != 1:
            raise ValueError("is no export of this version")
        run = Verification(read_keys(public_keys), accepted, head["scope"] != "trail", said)
        take = {"checkpoint": run.take_checkpoint, "chain": run.begin_chain, "row": run.take_row}
        for one in map(json.loads, file):
            take[one["type"]](one)
    return run.finish([anchor for path in anchors for anchor in read_anchors(path)])

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
    except OSError as error:
        reason = f"{error.filename or 'a file'}: {error.strerror}"
    except (json.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        reason = f"it is not as `jobtrail audit export` and `jobtrail audit evidence` write it ({error!r})"
    except (ValueError, OverflowError) as error:
        reason = str(error)
    else:
        print(json.dumps(result)) if chosen.json else show(result, chosen.anchors)
        sys.exit(1 if result["findings"] else 0)
    parser.exit(2, f"verify_trail: {chosen.export} cannot be verified: {reason}\n")

if __name__ == "__main__":
    main()
