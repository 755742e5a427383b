"""An HTTP server on a Unix socket or a TCP port that records what a hook sends and answers as it is told, or never."""

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True)
class Request:
    """One request as it came over the socket; header names in lower case."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class SocketServer:
    """Serves `path` in a thread, or a free TCP port where that is None.

    Answers with `status`, or with None reads the request and never answers. A client may hang up whenever its time is
    over: only whole requests are recorded.
    """

    path: Path | None
    status: int | None = 201
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> "SocketServer":
        self._socket = socket.socket(socket.AF_INET if self.path is None else socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(("127.0.0.1", 0) if self.path is None else str(self.path))
        self._socket.listen(64)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    @property
    def url(self) -> str:
        """Where a server on TCP is found."""
        host, port = self._socket.getsockname()
        return f"http://{host}:{port}"

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # shutdown, unlike close, wakes a thread that is blocked in accept (accept(2) then fails with EINVAL).
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, suppress(ConnectionError):
                self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        self.requests.append(_read_request(client))
        if self.status is None:
            while client.recv(4096):
                continue
            return
        client.sendall(f"HTTP/1.1 {self.status} X\r\nContent-Length: 2\r\n\r\n{{}}".encode())


def _read_request(client: socket.socket) -> Request:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(client)
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in fields)}
    while len(body) < int(headers["content-length"]):
        body += _more(client)
    return Request(line, headers, body)


def _more(client: socket.socket) -> bytes:
    received = client.recv(65536)
    if not received:
        raise ConnectionError("the client hung up in the middle of its request")
    return received
