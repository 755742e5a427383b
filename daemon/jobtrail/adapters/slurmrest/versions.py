"""Which data version to speak: the newest that both sides know."""

from __future__ import annotations

import asyncio

from jobtrail.adapters.slurmrest.exchange import Exchange
from jobtrail.domain.errors import SlurmUnavailable

KNOWN = tuple(f"v0.0.{number}" for number in range(43, 35, -1))  # newest first; 20.11 to 25.11 have one of them


class Versions:
    """The data version in use, found once by asking and forgotten when the server may have become another."""

    def __init__(self, exchange: Exchange, *, configured: str = "") -> None:
        self._exchange = exchange
        self._configured = configured
        self._found: str | None = None
        self._probing = asyncio.Lock()

    async def current(self) -> str:
        """The version to use. Raises SlurmUnavailable when there is none, and as Exchange.get does."""
        async with self._probing:
            if self._found is None:
                self._found = await self._probe()
            return self._found

    def forget(self) -> None:
        """Ask again next time."""
        self._found = None

    async def _probe(self) -> str:
        if self._configured:
            if await self._is_there(self._configured):
                return self._configured
            there = [version for version in KNOWN if await self._is_there(version)]
            raise SlurmUnavailable(
                f"slurmrestd at {self._exchange.where} does not know slurm.rest_version {self._configured}; "
                f"it knows {', '.join(there) or f'none of {KNOWN[-1]} to {KNOWN[0]}'}"
            )
        for version in KNOWN:
            if await self._is_there(version):
                return version
        raise SlurmUnavailable(
            f"slurmrestd at {self._exchange.where} knows no data version of {KNOWN[-1]} to {KNOWN[0]}; "
            "is it slurmrestd, and has it its openapi plugins?"
        )

    async def _is_there(self, version: str) -> bool:
        """Whether the server has a ping of this version; it answers 404 for one it does not know, whatever the token.

        Any other status is of a version that is there: while slurmctld is down, ping is 500.
        """
        reply = await self._exchange.get(f"/slurm/{version}/ping")
        return reply.status != 404
