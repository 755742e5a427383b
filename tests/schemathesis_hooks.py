"""What makes odd requests learns here to send bodies of the node link, as the bytes they are."""

from typing import Any

import schemathesis

from jobtrail.core.link.protocol import MEDIA_TYPE


@schemathesis.serializer(MEDIA_TYPE)
def packed(_: Any, value: Any) -> bytes:
    """A body as it is sent. Made-up binary strings come as bytes or with them in `data`."""
    if isinstance(value, bytes):
        return value
    return bytes(value.data) if hasattr(value, "data") else str(value).encode("utf-8", "surrogatepass")
