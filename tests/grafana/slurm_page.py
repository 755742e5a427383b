"""A slurmrestd that knows the nodes of a captured answer, one of them busy; of jobs it knows none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_CAPTURES = Path(__file__).parents[1] / "fixtures/slurmrest/slurm-22.05"
_NODES = _CAPTURES / "22-node-dies-nodefail/end.rest-nodes-v0.0.38.json"


def _nodes() -> bytes:
    page = json.loads(_NODES.read_text(encoding="utf-8"))
    first = page["nodes"][0]
    first.update(state="mixed", alloc_cpus=1, alloc_memory=first["real_memory"] // 2, gres_used="gpu:1")
    return json.dumps(page).encode()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = {
            "/slurm/v0.0.38/ping": b'{"errors": [], "pings": [{"ping": "UP"}]}',
            "/slurm/v0.0.38/nodes": _nodes(),
            "/slurm/v0.0.38/jobs": b'{"errors": [], "jobs": []}',
        }
        body = known.get(self.path.partition("?")[0].rstrip("/"))
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        del format, args


@contextmanager
def slurmrestd() -> Iterator[int]:
    """Its port on 127.0.0.1."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)
