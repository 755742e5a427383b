"""Who was turned away on a node, sent to a server."""

from __future__ import annotations

from collections.abc import Sequence

from jobtrail.adapters.server_link.client import ServerLink
from jobtrail.core.access.ports import SecurityEvent
from jobtrail.core.link.protocol import SECURITY_PATH, SecurityEvents


class LinkSecurityEvents:
    """A SecurityStore at a server. Events whose answer was lost are sent again, and may then be held twice."""

    def __init__(self, link: ServerLink) -> None:
        self._link = link

    async def record(self, events: Sequence[SecurityEvent]) -> None:
        """Have them put on record, all or none. Raises StoreUnavailable, StoreRefused."""
        await self._link.ask("security_events", SECURITY_PATH, SecurityEvents(events=tuple(events)))
