"""Which form of an answer the client would rather have (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from aiohttp import web


def prefers(request: web.Request, kind: str) -> bool:
    """Whether Accept names `kind`, and with more weight than JSON, which is what there is without a wish."""
    wishes = dict(_wish(part) for part in ",".join(request.headers.getall("Accept", [])).split(","))
    return wishes.get(kind, 0.0) > wishes.get("application/json", 0.0)


def _wish(part: str) -> tuple[str, float]:
    """A media type and how much it is wanted."""
    kind, _, parameters = part.partition(";")
    _, found, text = parameters.replace(" ", "").partition("q=")
    try:
        weight = float(text.partition(";")[0]) if found else 1.0
    except ValueError:
        weight = 0.0
    return kind.strip().lower(), weight
