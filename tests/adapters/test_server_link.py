"""A node's way to its servers: deadlines, TLS, credentials that change, servers that go, and what stands between."""

import asyncio
import shutil
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.server_link import LinkEvents, LinkSettings, ServerLink, client, server_urls
from jobtrail.adapters.server_link.answers import retry_after
from jobtrail.core.facts import Fact, ServerAsked
from jobtrail.core.ports import StoreReport
from jobtrail.domain.audit import EMPTY_CHAIN
from jobtrail.domain.errors import ChainGap, ConfigError, StoreRefused, StoreUnavailable
from tests.adapters.test_node_link import Owners, SlowSink
from tests.certificates import Authority
from tests.chains import ChainWriter
from tests.served_api import hang_up
from tests.served_link import TOKEN, Site, in_postgres, site, write_token

HEAD = msgspec.json.encode(EMPTY_CHAIN)
CHAIN = str(uuid.uuid4())
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: bytes, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Word", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def listening(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The URL of a server that does what a test wants."""

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            await hang_up(writer)

    scheme = "http" if context is None else "https"
    async with await asyncio.start_server(handled, "127.0.0.1", 0, ssl=context) as server:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def saying(*answers: bytes) -> Handler:
    """Answers the same requests on every connection with the same answers, then hangs up."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for one in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(one)
            await writer.drain()

    return handler


@asynccontextmanager
async def linked(*urls: str, **settings: Any) -> AsyncIterator[tuple[LinkEvents, list[Fact]]]:
    facts: list[Fact] = []
    link = ServerLink(LinkSettings(urls=urls, node="n1", **settings), tell=facts.append)
    try:
        yield LinkEvents(link), facts
    finally:
        await link.close()


def outcomes(facts: list[Fact]) -> list[str]:
    return [fact.outcome for fact in facts if isinstance(fact, ServerAsked)]


# --- what is answered


@pytest.mark.parametrize(
    ("said", "outcome", "words"),
    [
        (answer(502, b"<html>Bad Gateway</html>"), "unavailable", "HTTP 502"),
        (answer(200, b"<html>welcome</html>"), "ok", "not understood"),
        (answer(302, b"", Location="https://elsewhere/"), "odd", "HTTP 302"),
        (answer(404, b"{}"), "odd", "HTTP 404"),
        (answer(415, b'{"error":"invalid_request","message":"v2 only"}'), "odd", "v2 only"),
        (
            answer(401, b'{"error":"unauthorized","message":"no token"}'),
            "denied",
            "does not let this node in: no token",
        ),
        (answer(403, b"nope"), "denied", "does not let this node in: HTTP 403"),
        (answer(409, b"a balancer's own"), "odd", "HTTP 409"),
        (answer(422, b"not ours"), "odd", "HTTP 422"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "odd", "does not answer as a server does"),
        (answer(200, b"x" * (client.MAX_ANSWER_BYTES + 1)), "odd", "an answer of more than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", "odd", "does not answer as a server does"),
    ],
    ids=lambda value: value[:24].decode() if isinstance(value, bytes) else "",
)
async def test_what_no_server_says_costs_no_event(said: bytes, outcome: str, words: str) -> None:
    """A balancer's pages, another program on the port: the node waits, and says what it met."""
    async with listening(saying(said)) as url, linked(url) as (events, facts):
        with pytest.raises(StoreUnavailable, match=words):
            await events.head(CHAIN)
    assert outcomes(facts) == [outcome]


async def test_no_answer_is_asked_for_packed() -> None:
    """Else what stands between may pack it, and a node that does not unpack would understand no answer for ever."""
    heads: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer(200, HEAD))
        await writer.drain()

    async with listening(handler) as url, linked(url) as (events, _):
        assert await events.head(CHAIN) == EMPTY_CHAIN
    assert [line.lower() for line in heads[0].splitlines() if line.lower().startswith(b"accept-encoding")] == [
        b"accept-encoding: identity"
    ]


async def test_the_servers_words_have_their_meaning() -> None:
    writer = ChainWriter()
    writer.begin()
    for said, error, words in (
        (answer(409, b'{"error":"conflict","details":{"head_seq":7}}'), ChainGap, "up to sequence 7"),
        (answer(422, b'{"error":"validation_error","message":"too odd"}'), StoreRefused, "too odd"),
        (answer(403, b'{"error":"forbidden","message":"of n9","details":{"seq":3}}'), StoreRefused, "of n9"),
        (answer(403, b'{"error":"forbidden","message":"of n9","details":{"row":3}}'), StoreRefused, "of n9"),
        (answer(413, b"<html>too large for this proxy</html>"), StoreRefused, "HTTP 413"),
    ):
        async with listening(saying(said)) as url, linked(url) as (events, _):
            with pytest.raises(error, match=words):
                await events.store(writer.rows, node="n1")


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [(503, "7", 7), (429, "90", 90), (503, "soon", None), (503, "-1", None), (403, "5", 5), (500, "", None)],
)
async def test_a_time_to_come_back_is_handed_on(status: int, header: str, seconds: float | None) -> None:
    said = answer(status, b"", **({"Retry_After": header} if header else {}))
    async with listening(saying(said)) as url, linked(url) as (events, _):
        with pytest.raises(StoreUnavailable) as caught:
            await events.head(CHAIN)
    assert caught.value.retry_after_seconds == seconds


def test_a_time_to_come_back_may_be_a_date() -> None:
    in_an_hour = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3600))
    assert 3500 < (retry_after({"Retry-After": in_an_hour}) or 0) <= 3600
    assert retry_after({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0
    assert retry_after({"Retry-After": "9" * 40}) is None


async def test_the_token_is_in_no_error_though_a_server_repeats_it(tmp_path: Path) -> None:
    said = answer(401, msgspec.json.encode({"error": "unauthorized", "message": f"what is {TOKEN}?"}))
    token_file = str(write_token(tmp_path / "token"))
    async with listening(saying(said)) as url, linked(url, token_file=token_file) as (events, facts):
        with pytest.raises(StoreUnavailable) as caught:
            await events.head(CHAIN)
    assert TOKEN not in f"{caught.value} {facts}"


# --- servers that come and go


async def test_one_server_is_down_and_the_next_is_asked_at_once() -> None:
    async with listening(saying(*[answer(200, HEAD)] * 9)) as url, linked("http://127.0.0.1:9", url) as (events, facts):
        for _ in range(4):
            assert await events.head(CHAIN) == EMPTY_CHAIN
    assert outcomes(facts).count("unreachable") <= 1
    assert outcomes(facts)[-3:] == ["ok"] * 3


async def test_a_connection_that_breaks_under_a_request_is_made_anew() -> None:
    """As when a server or a balancer is restarted: the batch is sent again at once, and no failure is told."""
    writer = ChainWriter()
    writer.begin()
    said = answer(200, msgspec.json.encode(StoreReport(head=writer.head, stored=1)))
    async with listening(saying(said, b"")) as url, linked(url) as (events, facts):
        for _ in range(3):
            assert (await events.store(writer.rows, node="n1")).head == writer.head
    assert outcomes(facts) == ["ok", "unreachable", "ok", "unreachable", "ok"]


async def test_a_server_that_is_busy_is_left_for_the_next() -> None:
    busy = answer(503, b'{"error":"unavailable","details":{"reason":"busy"}}', Retry_After="2")
    async with (
        listening(saying(*[busy] * 9)) as full,
        listening(saying(*[answer(200, HEAD)] * 9)) as free,
        linked(full, free) as (events, facts),
    ):
        for _ in range(3):
            try:
                await events.head(CHAIN)
            except StoreUnavailable as error:
                assert error.retry_after_seconds == 2  # noqa: PT017
    assert outcomes(facts).count("busy") <= 1
    assert outcomes(facts)[-1] == "ok"


@pytest.mark.parametrize("silent", ["handshake", "answer", "drip"])
async def test_a_server_that_freezes_is_given_up_in_time(tmp_path: Path, silent: str) -> None:
    """It takes connections and says nothing, or a byte now and then; and the link can still be closed at once."""
    let_go = asyncio.Event()

    async def frozen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if silent == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\nServer: ")
        while silent == "drip" and not let_go.is_set():
            writer.write(b"H")
            await asyncio.wait([asyncio.ensure_future(let_go.wait())], timeout=0.05)
        await let_go.wait()

    async with listening(frozen) as plain:
        url = plain.replace("http:", "https:") if silent == "handshake" else plain
        deadlines = {"connect_seconds": 0.4, "timeout_seconds": 0.8}
        async with linked(url, **deadlines) as (events, facts):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="did not answer in time"):
                await events.head(CHAIN)
            assert time.monotonic() - began < 10  # where a whole request may take 20 seconds by default
            began = time.monotonic()
        assert time.monotonic() - began < client.CLOSE_SECONDS + 10  # aiohttp waits 30 seconds for a goodbye in TLS
        let_go.set()
    assert outcomes(facts) == ["timeout"]


# --- TLS and credentials


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, in_postgres(None, events=SlowSink(), owners=Owners())) as one:
        yield one


async def problem_of(events: LinkEvents) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await events.head(CHAIN)
    return str(caught.value)


async def test_a_server_of_another_authority_or_name_is_not_believed(at: Site, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger", "stranger")
    assert "its certificate is not good" in await problem_of(LinkEvents(at.link(ca_file=str(stranger.certificate))))
    assert "its certificate is not good" in await problem_of(LinkEvents(at.link(ca_file="")))
    other_name = at.url.replace("127.0.0.1", "127.0.0.2")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*at.authority.issue("elsewhere", usage="serverAuth"))
    async with listening(saying(answer(200, HEAD)), context) as url:
        problem = await problem_of(LinkEvents(at.link(urls=(url,))))
    assert "its certificate is not good: IP address mismatch" in problem, other_name
    assert outcomes(at.asked) == ["tls"] * 3
    assert at.known.asked == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
async def test_old_tls_is_not_spoken(at: Site, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(*at.authority.server("old"))
    async with listening(saying(answer(200, HEAD)), context) as url:
        assert f"the server {url}" in await problem_of(LinkEvents(at.link(urls=(url,))))


async def test_a_server_that_speaks_no_tls_is_told(at: Site) -> None:
    async def impatient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer(400, b"this port speaks HTTP"))

    async with listening(impatient) as url:
        assert "no TLS with" in await problem_of(LinkEvents(at.link(urls=(url.replace("http:", "https:"),))))


async def test_credentials_are_read_anew_without_a_restart(at: Site, tmp_path: Path) -> None:
    """First no file, then a wrong one, then the right one; the token is changed at the server and here."""
    authority, token_file = tmp_path / "ca.pem", tmp_path / "own.token"
    events = LinkEvents(at.link(ca_file=str(authority), token_file=str(token_file)))
    assert f"link.token_file: {token_file} cannot be read" in await problem_of(events)
    write_token(token_file, "short")
    assert "must hold one line of 16 to 1024" in await problem_of(events)
    write_token(token_file, "f" * 32).chmod(0o644)
    assert "mode 0600 or 0640" in await problem_of(events)
    write_token(token_file, "f" * 32)
    assert f"link.ca_file: {authority} cannot be read" in await problem_of(events)
    authority.write_text("no certificate")
    assert f"link.ca_file: {authority} holds no certificates" in await problem_of(events)
    shutil.copy(at.authority.certificate, authority)
    assert "does not let this node in" in await problem_of(events)
    write_token(token_file)
    assert await events.head(CHAIN) == EMPTY_CHAIN
    write_token(at.token_file, "e" * 32)
    assert "does not let this node in" in await problem_of(events)
    write_token(token_file, "e" * 32)
    assert await events.head(CHAIN) == EMPTY_CHAIN
    assert outcomes(at.asked) == ["credentials"] * 5 + ["denied", "ok", "denied", "ok"]


async def test_a_client_certificate_is_shown_and_changed_while_connections_are_open(tmp_path: Path) -> None:
    """A renewed one is used for the next request; while only one of its two files is there, the old one is."""
    authority = Authority(tmp_path / "authority")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
    context.load_cert_chain(*authority.server())
    context.verify_mode = ssl.CERT_REQUIRED
    shown: list[str] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            shown.append(dict(writer.get_extra_info("peercert"))["subjectAltName"][0][1])
            writer.write(answer(200, HEAD))

    certificate, key = tmp_path / "node.pem", tmp_path / "node.key"
    files = {"certificate_file": str(certificate), "key_file": str(key), "ca_file": str(authority.certificate)}
    async with listening(handler, context) as url:
        async with linked(url, ca_file=files["ca_file"]) as (events, facts):
            await problem_of(events)
            assert outcomes(facts)[-1] in {"tls", "unreachable"}
        async with linked(url, **files) as (events, facts):
            assert "link.certificate_file" in await problem_of(events)
            first, renewed = authority.issue("n1"), authority.issue("n1-renewed")
            shutil.copy(first[0], certificate)
            shutil.copy(first[1], key)
            await events.head(CHAIN)
            shutil.copy(renewed[0], certificate)
            await events.head(CHAIN)
            shutil.copy(renewed[1], key)
            await events.head(CHAIN)
    assert shown == ["n1", "n1", "n1-renewed"]


# --- settings


@pytest.mark.parametrize(
    "text",
    ["http://server:8080", "https://", "https://user:word@server", "https://server?x=1", "https://[::1", "ftp://x",
     "https://a,http://b", "https://server:port", "https://a,,https://b", "http://10.0.0.1"],
)  # fmt: skip
def test_an_address_that_is_no_servers_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"database\.url") as caught:
        server_urls(text)
    assert "user:word" not in str(caught.value)


def test_servers_may_be_several_and_plain_http_stays_on_the_machine() -> None:
    assert server_urls("https://a:8443/, https://b") == ("https://a:8443", "https://b")
    assert server_urls("http://127.0.0.1:8080,http://[::1]:1,http://localhost") == (
        "http://127.0.0.1:8080", "http://[::1]:1", "http://localhost",
    )  # fmt: skip
