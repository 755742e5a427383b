"""Entity tags (RFC 9110, section 8.8.3): who asks the same again is told in a few bytes that nothing has changed."""

from __future__ import annotations

import hashlib

from aiohttp import ETag, web

# What one may read, another may not; and a copy is good only after asking.
KEPT = "private, no-cache"


def tagged(request: web.Request, answer: web.Response) -> web.Response:
    """The answer with the tag of its body; 304 without a body where If-None-Match names that tag, or any.

    The tag is of the bytes, so the question is worked out all the same: what is saved is the way back.
    """
    body = answer.body
    assert isinstance(body, bytes)
    tag = hashlib.sha256(body).hexdigest()[:32]
    held = request.if_none_match
    if held is not None and any(one.value in (tag, "*") for one in held):
        answer = web.Response(status=304)
    answer.etag = ETag(value=tag)
    answer.headers["Cache-Control"] = KEPT
    answer.headers["Vary"] = "Accept, Authorization"
    return answer
