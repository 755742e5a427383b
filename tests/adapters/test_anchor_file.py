"""Anchors in a file, keys in files."""

import os
import resource
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from jobtrail.adapters.anchor_file import AnchorFile, line, parse, read_all
from jobtrail.adapters.signing import FileSigner, PublicKeys, generate
from jobtrail.domain.checkpoints import Checkpoint, Sealed
from jobtrail.domain.errors import ConfigError
from tests.requirements import require_root, require_tool

CHECKPOINT = Checkpoint(number=1, previous=bytes(32), root=b"r" * 32, leaf_count=2, total_rows=9, time_us=5)


def sealed(number: int) -> Sealed:
    return Sealed(checkpoint=msgspec.structs.replace(CHECKPOINT, number=number), signature=b"s" * 64, key_id="k")


async def test_what_is_added_is_there_in_order_and_the_last_is_found(tmp_path: Path) -> None:
    log = AnchorFile(tmp_path / "anchors.jsonl")
    assert await log.last() is None
    for number in (1, 2, 3):
        await log.append(sealed(number))
    assert list(read_all(tmp_path / "anchors.jsonl")) == [sealed(1), sealed(2), sealed(3)]
    assert await AnchorFile(tmp_path / "anchors.jsonl").last() == sealed(3)
    assert (tmp_path / "anchors.jsonl").stat().st_mode & 0o027 == 0


async def test_a_line_that_a_power_cut_tore_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "anchors.jsonl"
    path.write_bytes(line(sealed(1)) + line(sealed(2))[:40])
    log = AnchorFile(path)
    assert await log.last() == sealed(1)
    await log.append(sealed(3))
    assert list(read_all(path)) == [sealed(1), sealed(3)]


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"7", line(sealed(1)).replace(b'"number":1', b'"number":2'), b'{"number":"x"}']
)
def test_what_is_no_anchor_is_none(text: bytes) -> None:
    assert parse(text) is None
    assert parse(line(sealed(1))) == sealed(1)


async def test_a_nodes_file_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jsonl"
    log = AnchorFile(path, keep_lines=5)
    for number in range(1, 40):
        await log.append(sealed(number))
    kept = [one.checkpoint.number for one in read_all(path)]
    assert kept[-1] == 39
    assert 5 <= len(kept) <= 10
    assert sorted(os.listdir(tmp_path)) == ["checkpoints.jsonl"]
    again = AnchorFile(path, keep_lines=5)
    await again.append(sealed(40))
    assert await again.last() == sealed(40)


async def test_a_line_for_which_there_is_half_the_room_is_no_anchor_and_told(tmp_path: Path) -> None:
    path = tmp_path / "anchors.jsonl"
    log = AnchorFile(path)
    await log.append(sealed(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            await log.append(sealed(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await log.append(sealed(2))
    assert list(read_all(path)) == [sealed(1), sealed(2)]


async def test_a_link_in_the_files_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "anchors.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        await AnchorFile(tmp_path / "anchors.jsonl").append(sealed(1))


def test_what_a_key_signs_is_right_for_openssl_and_for_nobody_else(tmp_path: Path) -> None:
    openssl = require_tool("openssl", "signatures are checked with it where there is no Jobtrail")
    signer = generate(tmp_path / "seal.key")
    (tmp_path / "message").write_bytes(CHECKPOINT.encoded())
    (tmp_path / "signature").write_bytes(signer.sign(CHECKPOINT.encoded()))
    command = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", str(tmp_path / "seal.key.pub"), "-rawin", "-in",
               str(tmp_path / "message"), "-sigfile", str(tmp_path / "signature")]  # fmt: skip
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    keys = PublicKeys.load([tmp_path / "seal.key.pub"])
    good = signer.sign(CHECKPOINT.encoded())
    assert keys.check(signer.key_id, good, CHECKPOINT.encoded()) is None
    assert (
        PublicKeys.of(FileSigner.load(tmp_path / "seal.key")).check(signer.key_id, good, CHECKPOINT.encoded()) is None
    )
    assert "is not that of key" in (keys.check(signer.key_id, good, b"other") or "")
    assert "none of those" in (keys.check("00", good, CHECKPOINT.encoded()) or "")
    assert "none of those" in (keys.check(None, good, CHECKPOINT.encoded()) or "")


def test_a_file_of_public_keys_may_hold_several(tmp_path: Path) -> None:
    """After a change of the key, and where each server has its own."""
    signers = [generate(tmp_path / name) for name in ("old.key", "new.key")]
    both = tmp_path / "keys.pem"
    both.write_bytes(b"".join(signer.public_pem() for signer in signers))
    keys = PublicKeys.load([both])
    for signer in signers:
        assert keys.check(signer.key_id, signer.sign(b"message"), b"message") is None


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    generate(tmp_path / "seal.key")
    held = (tmp_path / "seal.key").read_bytes()
    with pytest.raises(FileExistsError):
        generate(tmp_path / "seal.key")
    assert (tmp_path / "seal.key").read_bytes() == held


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602, 0o660])
def test_a_key_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    generate(tmp_path / "seal.key")
    (tmp_path / "seal.key").chmod(mode)
    with pytest.raises(ConfigError, match=rf"mode {mode:04o}.*0600 or 0640"):
        FileSigner.load(tmp_path / "seal.key")


def test_a_strangers_key_is_refused(tmp_path: Path) -> None:
    require_root("a file of another user")
    generate(tmp_path / "seal.key")
    os.chown(tmp_path / "seal.key", 65533, 0)
    with pytest.raises(ConfigError, match="belongs to uid 65533"):
        FileSigner.load(tmp_path / "seal.key")


def test_what_is_no_key_is_refused_with_the_settings_name(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    with pytest.raises(ConfigError, match=r"audit\.signing_key_file.*cannot be read"):
        FileSigner.load(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"audit\.signing_key_file.*not a regular file"):
        FileSigner.load(Path("/dev/null"))
    (tmp_path / "text").write_text("text")
    (tmp_path / "text").chmod(0o600)
    with pytest.raises(ConfigError, match="no private key"):
        FileSigner.load(tmp_path / "text")
    for name, problem in (("none", "cannot be read"), ("text", "no public key")):
        with pytest.raises(ConfigError, match=rf"audit\.public_key_file.*{problem}"):
            PublicKeys.load([tmp_path / name])
    if openssl is not None:
        subprocess.run([openssl, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(tmp_path / "ec")],
                       check=True)  # fmt: skip
        (tmp_path / "ec").chmod(0o600)
        with pytest.raises(ConfigError, match="must be Ed25519"):
            FileSigner.load(tmp_path / "ec")
