"""How the commands of `bench` ask a daemon: which socket, how patiently, and what each answer ends them with."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import pytest
import typer

from jobtrail.cli import exit_codes, whom
from jobtrail.cli.bench import asking
from jobtrail.config import Config, Http


class Scripted(ThreadingMixIn, UnixStreamServer):
    """A daemon that gives the answers a test put there, the last one for ever."""

    daemon_threads = True
    answers: list[tuple[int, bytes]]
    asked: list[str]

    def get_request(self) -> tuple[Any, Any]:
        return super().get_request()[0], ("local", 0)


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        del format, args


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Scripted]:
    with Scripted(str(tmp_path / "poke.sock"), _Handler) as server:  # type: ignore[arg-type]
        server.answers, server.asked = [(200, b'{"runs": []}')], []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.delenv(whom.SOCKET_VARIABLE, raising=False)
    return Config(http=Http(socket=str(tmp_path / "hooks.sock")))


async def _not_asked(_: Any) -> Any:
    raise AssertionError("there is no database")


def ask(config: Config) -> dict[str, Any]:
    return asking.ask(whom.of_this_machine(config), "/runs", {"recipe": "a b", "limit": 5, "model": None}, _not_asked)


def test_what_is_not_given_is_not_asked(daemon: Scripted, config: Config) -> None:
    assert ask(config) == {"runs": []}
    assert daemon.asked == ["GET /v1/benchmarks/runs?recipe=a+b&limit=5"]


def test_a_question_waits_for_its_turn(daemon: Scripted, config: Config) -> None:
    daemon.answers = [(429, b"{}"), (429, b"{}"), (200, b'{"runs": [1]}')]
    assert ask(config) == {"runs": [1]}
    assert len(daemon.asked) == 3


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ((400, {"message": "sort: 'x' is unknown"}), exit_codes.USAGE, "sort: 'x' is unknown"),
        ((403, {"message": "of another user"}), exit_codes.FAILED, "of another user"),
        ((404, {"message": "no benchmark run x"}), exit_codes.NOT_FOUND, "no benchmark run x"),
        ((500, {}), exit_codes.FAILED, "no reason given"),
        ((503, {"message": "this daemon has no database"}), exit_codes.UNREACHABLE, "this daemon has no database"),
        ((200, None), exit_codes.UNREACHABLE, "is not Jobtrail"),
    ],
)
def test_each_refusal_has_its_exit_code(
    daemon: Scripted, config: Config, capsys: pytest.CaptureFixture[str], answer: tuple[int, Any], code: int, said: str
) -> None:
    status, body = answer
    daemon.answers = [(status, b"<html>" if body is None else json.dumps(body).encode())]
    for call in (
        lambda: ask(config),
        lambda: asking.tell(whom.of_this_machine(config), "/runs/x/decisions", {"decision": "pin"}),
    ):
        with pytest.raises(typer.Exit) as ended:
            call()
        assert ended.value.exit_code == code
        assert said in capsys.readouterr().err.replace("\n", " ")


def test_the_socket_that_is_named_is_the_only_one(
    daemon: Scripted, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [place.socket for place in whom.of_this_machine(config).places]
    assert paths == [str(tmp_path / "poke.sock"), str(tmp_path / "hooks.sock")]
    monkeypatch.setenv(whom.SOCKET_VARIABLE, str(tmp_path / "other.sock"))
    assert [place.socket for place in whom.of_this_machine(config).places] == [str(tmp_path / "other.sock")]
    with pytest.raises(typer.Exit) as ended:
        ask(config)
    assert (ended.value.exit_code, daemon.asked) == (exit_codes.UNREACHABLE, [])


def test_the_other_socket_is_tried_where_the_first_is_not_there(
    daemon: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(whom.SOCKET_VARIABLE, raising=False)
    elsewhere = Config(http=Http(socket=str(tmp_path / "poke.sock"), poke_socket=str(tmp_path / "gone.sock")))
    assert ask(elsewhere) == {"runs": []}
