"""Certificates for tests, made by openssl: an authority, servers, clients, revocations."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.requirements import require_tool


class Authority:
    """A certificate authority in a directory of its own."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._openssl = require_tool("openssl", "TLS stays untested")
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate = directory / "ca.pem"
        self._key = directory / "ca.key"
        self._configuration = directory / "openssl.cnf"
        (directory / "index.txt").touch()
        (directory / "serial").write_text("1000\n")
        (directory / "crlnumber").write_text("01\n")
        self._configuration.write_text(
            f"[ca]\ndefault_ca=this\n[this]\ndir={directory}\ndatabase={directory}/index.txt\nserial={directory}/serial\n"
            f"crlnumber={directory}/crlnumber\nnew_certs_dir={directory}\ncertificate={self.certificate}\n"
            f"private_key={self._key}\ndefault_md=sha256\npolicy=any\ndefault_days=30\ndefault_crl_days=30\n"
            "unique_subject=no\ncopy_extensions=copy\n[any]\ncommonName=supplied\n[req]\ndistinguished_name=dn\n[dn]\n"
            "[authority]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
        )
        self._run(
            "req", "-x509", *_NEW_KEY, "-keyout", str(self._key), "-out", str(self.certificate), "-days", "30", "-subj",
            f"/CN={name}", "-config", str(self._configuration), "-extensions", "authority",
        )  # fmt: skip

    def issue(
        self, name: str, *, san: str = "", days: tuple[str, str] | None = None, usage: str = "clientAuth"
    ) -> tuple[Path, Path]:
        """A certificate and its key. `days`: from and to, as YYYYMMDDHHMMSSZ."""
        key, request, certificate = (self.directory / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        names = san or f"DNS:{name}"
        self._run(
            "req", "-new", *_NEW_KEY, "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}",
            "-config", str(self._configuration), "-addext", f"subjectAltName={names}",
            "-addext", f"extendedKeyUsage={usage}",
        )  # fmt: skip
        period = () if days is None else ("-startdate", days[0], "-enddate", days[1])
        self._run(
            "ca", "-batch", "-notext", "-config", str(self._configuration), "-in", str(request), "-out",
            str(certificate), *period,
        )  # fmt: skip
        key.chmod(0o600)
        return certificate, key

    def server(self, name: str = "server") -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 and localhost."""
        return self.issue(name, san="DNS:localhost,IP:127.0.0.1", usage="serverAuth")

    def revoke(self, certificate: Path) -> None:
        """Put a certificate on the list of the revoked."""
        self._run("ca", "-config", str(self._configuration), "-revoke", str(certificate))

    def revocations(self) -> Path:
        """The list as it is now."""
        path = self.directory / "crl.pem"
        self._run("ca", "-config", str(self._configuration), "-gencrl", "-out", str(path))
        return path

    def _run(self, *arguments: str) -> None:
        done = subprocess.run([self._openssl, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
