"""TLS, users and tokens over TCP: the file in Prometheus' format, what it refuses, and that a change holds at once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from jobtrail.adapters.http import passwords, web_file
from jobtrail.adapters.http.access import Bucket, is_loopback
from jobtrail.adapters.http.passwords import Passwords
from jobtrail.adapters.http.refusals import Refused
from jobtrail.adapters.http.tls import make_context
from jobtrail.adapters.http.web_config import RateLimit, parse
from jobtrail.adapters.http.web_file import WebFile
from jobtrail.domain.errors import ConfigError
from tests.certificates import Authority
from tests.served_api import Answer, Served, hang_up, parse_answer, read_all, request_bytes, served

PASSWORD = "correct horse battery"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
TOKEN = "t" * 43
SHA = hashlib.sha256(TOKEN.encode()).hexdigest()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> tuple[Path, Path]:
    return authority.server()


def web_config(directory: Path, pair: tuple[Path, Path], *lines: str) -> Path:
    path = directory / "web.yaml"
    tls = f"tls_server_config:\n  cert_file: {pair[0]}\n  key_file: {pair[1]}\n"
    path.write_text(tls + "".join(f"{line}\n" for line in lines))
    path.chmod(0o600)
    return path


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def trusting(authority: Authority, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if client is not None:
        context.load_cert_chain(*client)
    return context


async def ask(
    api: Served, context: ssl.SSLContext, path: str = "/metrics", headers: dict[str, str] | None = None
) -> Answer:
    """One request over TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.addresses.port, ssl=context)
    try:
        writer.write(request_bytes("GET", path, b"", {"Connection": "close", **(headers or {})}))
        return parse_answer(await asyncio.wait_for(read_all(reader), 10))
    finally:
        await hang_up(writer)


@asynccontextmanager
async def beyond(directory: Path, path: Path, **settings: Any) -> AsyncIterator[Served]:
    """A daemon that listens where other machines reach it."""
    async with served(directory, host="0.0.0.0", web_config_file=str(path), **settings) as api:
        yield api


async def test_users_and_tokens_get_in_and_nobody_else(
    tmp_path: Path, authority: Authority, pair: tuple[Path, Path]
) -> None:
    token = tmp_path / "tokens"
    token.write_text(f"# who\ngrafana read sha256:{SHA}\nroot read,admin sha256:{'0' * 64}\n")
    token.chmod(0o600)
    path = web_config(tmp_path, pair, "basic_auth_users:", f"  alice: {HASH}")
    async with beyond(tmp_path, path, tokens_file=str(token)) as api:
        assert api.addresses.url.startswith("https://")
        context = trusting(authority)
        found = {
            "nobody": await ask(api, context),
            "alice": await ask(api, context, headers=basic("alice", PASSWORD)),
            "wrong": await ask(api, context, headers=basic("alice", PASSWORD + "x")),
            "bob": await ask(api, context, headers=basic("bob", PASSWORD)),
            "broken": await ask(api, context, headers={"Authorization": "Basic ???"}),
            "token": await ask(api, context, headers={"Authorization": f"Bearer {TOKEN}"}),
            "other": await ask(api, context, headers={"Authorization": f"Bearer {TOKEN}x"}),
            "alive": await ask(api, context, "/healthz"),
        }
        assert {name: answer.status for name, answer in found.items()} == {
            "nobody": 401, "alice": 200, "wrong": 401, "bob": 401, "broken": 401, "token": 200, "other": 403,
            "alive": 200,
        }  # fmt: skip
        assert found["nobody"].headers["www-authenticate"].startswith("Basic")
        # Reading needs the scope, and who has it is told what else is missing: there is no database.
        for headers, status in (
            (basic("alice", PASSWORD), 503),
            ({"Authorization": f"Bearer {TOKEN}"}, 503),
            ({}, 401),
        ):
            assert (await ask(api, context, "/v1/jobs", headers)).status == status
        denied = await ask(api, context, "/v1/security/events", {"Authorization": f"Bearer {TOKEN}"})
        assert (denied.status, "grafana" in denied.json()["message"]) == (403, True)
        assert [PASSWORD in str(answer.body) or TOKEN in str(answer.body) for answer in found.values()] == [False] * 8


async def test_a_password_where_no_users_are_set_is_told_as_such(
    tmp_path: Path, authority: Authority, pair: tuple[Path, Path]
) -> None:
    token = tmp_path / "tokens"
    token.write_text(f"grafana read sha256:{SHA}\n")
    token.chmod(0o600)
    async with beyond(tmp_path, web_config(tmp_path, pair), tokens_file=str(token)) as api:
        answer = await ask(api, trusting(authority), headers=basic("alice", PASSWORD))
        assert (answer.status, answer.json()["message"]) == (403, "no user is known here (basic_auth_users)")


@pytest.mark.parametrize(
    ("settings", "lines", "missing"),
    [
        ({}, None, "TLS .* and a way to know who asks"),
        ({}, (), "a way to know who asks"),
        ({"read_token_file": "here"}, None, "TLS"),
    ],
)
async def test_beyond_loopback_it_starts_only_with_both(
    tmp_path: Path, pair: tuple[Path, Path], settings: dict[str, str], lines: tuple[str, ...] | None, missing: str
) -> None:
    token = tmp_path / "here"
    token.write_text(TOKEN)
    token.chmod(0o600)
    named = {key: str(tmp_path / value) for key, value in settings.items()}
    if lines is not None:
        named["web_config_file"] = str(web_config(tmp_path, pair, *lines))
    with pytest.raises(ConfigError, match=f"missing there is {missing}.*http.insecure: true") as refused:
        async with served(tmp_path, host="0.0.0.0", **named):
            pass
    assert refused.value.where == "http.host"
    async with served(tmp_path, host="0.0.0.0", insecure=True, **named) as api:
        assert "http.insecure" in (await api.request("GET", "/health")).json()["warnings"][0]
    async with served(tmp_path, host="127.0.0.1", **named) as api:
        assert (await api.request("GET", "/health")).json()["warnings"] == []


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("node7", False), ("", False), ("localhost.", False),
    ],
)  # fmt: skip
def test_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tls_server_config: {cert_file: a, key_file: b, frobnicate: 1}", "tls_server_config`: .*frobnicate"),
        ("frobnicate: 1", "frobnicate"),
        ("http_server_config: {headers: {X-Mine: a}}", "headers.X-Mine` is not known; there are"),
        ("tls_server_config: {cert_file: a}", "key_file` is missing"),
        (
            "tls_server_config: {cert_file: a, key_file: b, min_version: TLS10}",
            "min_version` must be one of TLS12, TLS13",
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, min_version: TLS13, max_version: TLS12}",
            "is above max_version",
        ),
        ("tls_server_config: {cert_file: a, cert: x, key_file: b}", "both given"),
        ("tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAnyClientCert}", "believes any"),
        ("tls_server_config: {cert_file: a, key_file: b, client_auth_type: Never}", "must be one of NoClientCert"),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerifyClientCert}",
            "client_ca_file",
        ),
        ("tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}", "has no effect without client_auth_type"),
        ("tls_server_config: {cert_file: a, key_file: b, client_allowed_sans: [n]}", "client_allowed_sans` needs"),
        (
            "tls_server_config: {cert_file: a, key_file: b, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}",
            "RC4_128_SHA is not",
        ),
        ("tls_server_config: {cert_file: a, key_file: b, curve_preferences: [CurveP256, X25519]}", "a single one"),
        ("basic_auth_users: {alice: secret-in-clear}", "basic_auth_users.alice` must be a bcrypt hash"),
        ("basic_auth_users: {alice: '$2b$31$" + "a" * 53 + "'}", "with a cost of 4 to 16"),
        ("basic_auth_users: {'a:b': '" + HASH + "'}", "no user name"),
        ("rate_limit: {interval: soon}", "rate_limit"),
        ("basic_auth_users: {alice: secret-in-clear: x", "is not YAML: line 1"),
        ("- a", "Expected"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_without_secrets(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        parse(text.encode(), Path("/etc/web.yaml"))
    assert refused.value.where == "http.web_config_file"
    assert "secret-in-clear" not in str(refused.value)


async def test_a_change_holds_at_once_and_a_broken_one_not_at_all(
    tmp_path: Path, authority: Authority, pair: tuple[Path, Path]
) -> None:
    path = web_config(tmp_path, pair, "basic_auth_users:", f"  alice: {HASH}")
    async with beyond(tmp_path, path, header_timeout_seconds=60.0) as api:  # the first connection idles for a while
        context = trusting(authority)
        reader, writer = await asyncio.open_connection("127.0.0.1", api.addresses.port, ssl=context)
        writer.write(request_bytes("GET", "/healthz", b"", {}))
        assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")
        fresh = authority.server("fresh")
        web_config(
            tmp_path,
            fresh,
            "basic_auth_users:",
            f"  bob: {HASH}",
            "http_server_config:",
            "  headers:",
            "    X-Frame-Options: deny",
        )
        assert [(await ask(api, context, headers=basic(name, PASSWORD))).status for name in ("alice", "bob")] == [
            401,
            200,
        ]
        assert (await ask(api, context, headers=basic("bob", PASSWORD))).headers["x-frame-options"] == "deny"
        assert await serial_of(api, context) == serial(fresh[0])
        writer.write(request_bytes("GET", "/healthz", b"", {}))  # the connection from before goes on
        assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")
        await hang_up(writer)
        for broken in ("basic_auth_users: {bob: x}\n", "tls_server_config: [\n", "basic_auth_users:\n  bob: " + HASH):
            path.write_text(broken)
            assert (await ask(api, context, headers=basic("bob", PASSWORD))).status == 200
            health = (await ask(api, context, "/health", basic("bob", PASSWORD))).json()
            assert "the web configuration before goes on" in health["warnings"][0]
        web_config(tmp_path, pair, "basic_auth_users:", f"  alice: {HASH}")
        answer = await ask(api, context, "/health", basic("alice", PASSWORD))
        assert (answer.status, answer.json()["warnings"]) == (200, [])


def test_what_changes_while_it_is_read_is_read_again(
    tmp_path: Path, authority: Authority, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that is put in its place just after the one before was read must not wait for the next change."""
    used = (tmp_path / "server.pem", tmp_path / "server.key")
    fresh, made = authority.server("fresh-while-read"), []

    def put(files: tuple[Path, Path]) -> None:
        for file, name in zip(files, used, strict=True):
            name.write_bytes(file.read_bytes())
            name.chmod(0o600)

    def make(*arguments: Any, **named: Any) -> ssl.SSLContext:
        made.append(make_context(*arguments, **named))
        if len(made) in (1, 3):
            put(fresh if len(made) == 1 else pair)
        return made[-1]

    monkeypatch.setattr(web_file, "make_context", make)
    put(pair)
    file = WebFile(str(web_config(tmp_path, used)))
    file.load()
    assert file.now().context is made[-1]
    assert len(made) == 2
    web_config(tmp_path, used, "basic_auth_users:", f"  alice: {HASH}")
    for _ in range(2):
        assert file.now().context is made[-1]
    assert len(made) == 4


def serial(path: Path) -> str:
    return str(ssl._ssl._test_decode_cert(str(path))["serialNumber"])  # type: ignore[attr-defined]


async def serial_of(api: Served, context: ssl.SSLContext) -> str:
    _, writer = await asyncio.open_connection("127.0.0.1", api.addresses.port, ssl=context)
    found = str(writer.get_extra_info("peercert")["serialNumber"])
    await hang_up(writer)
    return found


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(
    tmp_path: Path, authority: Authority, pair: tuple[Path, Path]
) -> None:
    """TLS 1.3 lets a client send at once; many do, and none may be lost."""
    path = web_config(tmp_path, pair, "basic_auth_users:", f"  alice: {HASH}")
    async with beyond(tmp_path, path, max_connections=64) as api:
        context = trusting(authority)
        answers = await asyncio.gather(*(ask(api, context, "/healthz") for _ in range(40)))
        assert {answer.status for answer in answers} == {200}


async def test_handshakes_have_a_deadline_and_a_place(
    tmp_path: Path, authority: Authority, pair: tuple[Path, Path]
) -> None:
    path = web_config(tmp_path, pair, "basic_auth_users:", f"  alice: {HASH}")
    context = trusting(authority)
    async with beyond(tmp_path, path, max_connections=2, header_timeout_seconds=60.0) as api:
        silent = [await asyncio.open_connection("127.0.0.1", api.addresses.port) for _ in range(2)]
        with pytest.raises(ConnectionError):
            await ask(api, context, "/healthz")
        assert "busy" in api.rejections
        for _, writer in silent:
            await hang_up(writer)
    async with beyond(tmp_path, path, max_connections=2, header_timeout_seconds=2.0) as api:
        silent = [await asyncio.open_connection("127.0.0.1", api.addresses.port) for _ in range(2)]
        for reader, writer in silent:
            assert await asyncio.wait_for(read_all(reader), 30) == b""
            await hang_up(writer)
        assert (await ask(api, context, "/healthz")).status == 200


async def test_a_password_is_remembered_and_a_wrong_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []
    really = passwords._matches
    monkeypatch.setattr(
        passwords, "_matches", lambda password, digest: hashed.append(password) or really(password, digest)
    )
    book, users = Passwords(), {"alice": HASH, "ali": HASH}
    assert [await book.good(users, "alice", PASSWORD.encode()) for _ in range(3)] == [True] * 3
    assert len(hashed) == 1
    assert [await book.good(users, "alice", b"wrong") for _ in range(2)] == [False] * 2
    assert len(hashed) == 3
    # What is remembered of one name opens no other, however name and password are cut.
    assert not await book.good(users, "ali", b"ce" + PASSWORD.encode())
    assert not await book.good(users, "nobody", PASSWORD.encode())
    assert len(hashed) == 5  # an unknown name costs as much
    assert book._mark(b"ab", b"c", b"d") != book._mark(b"a", b"bc", b"d") != book._mark(b"a", b"b", b"cd")
    assert not await book.good({"alice": HASH.replace(HASH[-5:], "aaaaa")}, "alice", PASSWORD.encode())
    assert not await book.good(users, "alice", b"with\0nul")
    assert not await book.good(users, "alice", b"x" * 100)


async def test_a_crowd_of_passwords_is_sent_away() -> None:
    book = Passwords()
    tries = [
        asyncio.create_task(book.good({"a": HASH}, "a", b"%d" % number)) for number in range(passwords.WAITING + 5)
    ]
    results = await asyncio.gather(*tries, return_exceptions=True)
    refused = [error for error in results if isinstance(error, Refused)]
    assert ([error.status for error in refused], results.count(False)) == ([503] * 5, passwords.WAITING)


def test_the_rate_limit_is_a_bucket() -> None:
    bucket, limit = Bucket(), RateLimit(interval="500ms", burst=2)
    assert [bucket.taken(limit, now) for now in (0.0, 0.0)] == [0.0, 0.0]
    assert bucket.taken(limit, 0.0) == pytest.approx(0.5)
    assert bucket.taken(limit, 0.5) == 0.0
    assert bucket.taken(limit, 0.6) == pytest.approx(0.4)
    assert [Bucket().taken(RateLimit(), 0.0)] == [0.0]
    assert RateLimit(interval="1m30s").seconds == 90.0


@pytest.mark.parametrize(
    "line", [f"grafana reed sha256:{SHA}", "grafana read", f"gra fana read sha256:{SHA}", f"grafana read {TOKEN}"]
)
async def test_a_line_of_tokens_that_is_none_is_named_without_the_token(tmp_path: Path, line: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"\n{line}\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="line 2 must be") as refused:
        async with served(tmp_path, tokens_file=str(path)):
            pass
    assert TOKEN not in str(refused.value)
