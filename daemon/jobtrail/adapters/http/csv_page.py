"""Rows as CSV (RFC 4180), for spreadsheets, which would take text that begins like a formula for one."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from jobtrail.adapters.http import query
from jobtrail.adapters.http.wishes import prefers

TYPE = "text/csv"
FORMATS = ("json", "csv")
# With the full-width signs, which some take for the plain ones: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def wants_csv(request: web.Request) -> bool:
    """Whether the answer is to be CSV: by `format`, else by Accept. Raises Refused for another format."""
    named = request.query.get("format")
    if named is not None:
        if named not in FORMATS:
            raise query.invalid("format", f"must be {' or '.join(FORMATS)}, not {named[:32]!r}")
        return named == "csv"
    return prefers(request, TYPE)


def csv_answer(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, name: str, total: int | None = None
) -> web.Response:
    """The rows as a file `name` with a heading, which is `columns` where there is no row."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    if total is not None:
        headers["Jobtrail-Total"] = str(total)
    return web.Response(text=as_csv(rows, columns), content_type=TYPE, charset="utf-8", headers=headers)


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A heading and a line a row; the heading is the first row's keys, and without a row it is `columns`."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([_cell(name) for name in (rows[0] if rows else columns)])
    for row in rows:
        writer.writerow([_cell(value) for value in row.values()])
    return out.getvalue()


def _cell(value: Any) -> str:
    """A value as text; what is unknown is empty. Numbers are as they are, also negative ones."""
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return msgspec.json.encode(value).decode()
    text = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode().strip('"')
    return f"'{text}" if text.startswith(_FORMULA) else text
