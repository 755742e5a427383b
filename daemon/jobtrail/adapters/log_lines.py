"""Log lines: JSON for machines or text for people, bounded, and with nothing in them that forges another."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, TextIO

import structlog

MAX_TEXT = 2_000  # characters of one value in a log line


def configure_logging(level: str, style: str, stream: TextIO | None = None) -> None:
    """Log to `stream`, by default standard error, one line an event: JSON, or text for people.

    `style` is json, console, or auto: console on a terminal. The standard library's loggers, which aiohttp and asyncpg
    use, go the same way.
    """
    stream = stream or sys.stderr
    console = style == "console" or (style == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *_rendering(console=console, colors=stream.isatty() and "NO_COLOR" not in os.environ),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # A line per request would say of each event what "event accepted" says of it.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _rendering(*, console: bool, colors: bool) -> list[Any]:
    if console:
        return [_shorten, _make_visible, structlog.dev.ConsoleRenderer(colors=colors)]
    return [_shorten, structlog.processors.JSONRenderer()]  # JSON escapes control characters itself


def _shorten(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    """Cut what somebody made very long."""
    for name, value in event.items():
        if isinstance(value, str) and len(value) > MAX_TEXT and name != "exception":
            event[name] = f"{value[:MAX_TEXT]}… ({len(value)} characters)"
    return event


def _make_visible(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    """Escape what is not printable: a job's name must not forge a line or command the terminal."""
    return {
        _visible(name): _visible(value, keep="\n" if name == "exception" else "") if isinstance(value, str) else value
        for name, value in event.items()
    }


def _visible(text: str, keep: str = "") -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)
