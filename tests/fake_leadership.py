"""A Leadership in memory."""

from __future__ import annotations

from jobtrail.domain.errors import StoreUnavailable


class Council:
    """What several share: who holds which cluster, and whether they can ask at all."""

    def __init__(self) -> None:
        self.holders: dict[str, MemoryLeadership] = {}
        self.away = False


class MemoryLeadership:
    """One that competes in a council."""

    def __init__(self, council: Council, cluster: str) -> None:
        self._council = council
        self._cluster = cluster

    async def held(self) -> bool:
        if self._council.away:
            self._council.holders.clear()
            raise StoreUnavailable("the council is away")
        return self._council.holders.setdefault(self._cluster, self) is self

    async def release(self) -> None:
        if self._council.holders.get(self._cluster) is self:
            del self._council.holders[self._cluster]
