"""The certificates of docs/security.md, made as it says."""

import re
import subprocess
from pathlib import Path

from tests.daemon_process import REPOSITORY
from tests.requirements import require_tool


def test_the_documented_commands_make_certificates_that_openssl_takes(tmp_path: Path) -> None:
    openssl = require_tool("openssl", "the documented commands stay untried")
    section = (REPOSITORY / "docs/security.md").read_text().split("### Certificates\n")[1].split("\n### ")[0]
    block = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0]
    subprocess.run(["sh", "-euc", block], cwd=tmp_path, check=True, capture_output=True)

    def verify(file: str, purpose: str, *name: str) -> str:
        argv = [openssl, "verify", "-x509_strict", "-CAfile", "ca.pem", "-purpose", purpose, *name, f"{file}.pem"]
        return subprocess.run(argv, cwd=tmp_path, check=False, capture_output=True, text=True).stdout

    assert verify("server", "sslserver", "-verify_hostname", "jobtrail.example.org") == "server.pem: OK\n"
    assert verify("n1", "sslclient", "-verify_hostname", "n1") == "n1.pem: OK\n"
    assert "OK" not in verify("n1", "sslclient", "-verify_hostname", "n2")
    assert {path.stat().st_mode & 0o077 for path in tmp_path.glob("*.key")} == {0}
