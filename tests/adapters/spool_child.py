"""A process that appends events as fast as it can and writes `ack <event id>` after each receipt.

Arguments: the spool's directory, how many senders at once, and how many events each sends. The acknowledgement leaves
with one write(2), so that what the parent has read was acknowledged, whatever happens to this process.
"""

import asyncio
import os
import sys
from pathlib import Path

from jobtrail.adapters.clock import SystemClock
from jobtrail.adapters.spool import SqliteSpool
from jobtrail.domain.errors import SpoolBroken
from tests.adapters.spools import MIB, add, event


async def send(spool: SqliteSpool, sender: int, count: int) -> None:
    for number in range(count):
        receipt = await add(spool, event(job=sender * 1_000_000 + number, note="x" * 600))
        os.write(1, f"ack {receipt.event_id}\n".encode())


async def main(directory: Path, senders: int, count: int) -> None:
    async with SqliteSpool.opened(
        directory, node="n1", max_bytes=48 * MIB, keep_forwarded_us=10**12, clock=SystemClock()
    ) as spool:
        os.write(1, b"ready\n")
        try:
            await asyncio.gather(*(send(spool, sender, count) for sender in range(senders)))
        except SpoolBroken as error:
            os.write(1, f"broken {error}\n".encode())
            sys.exit(3)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
