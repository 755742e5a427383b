"""What each measured job runs: uses a stated CPU time over its life, touches a stated memory, and prints its own truth.

The batch script becomes this process (exec), so getrusage(2) counts everything since slurmstepd started the task. Half
of the memory is touched at the start, the rest at nine tenths of the life, when most samplers look no more.
"""

import os
import resource
import sys
import time

PAGE = 4096
REST_SECONDS = 0.002


def used() -> float:
    """CPU seconds of this process and of its children it has waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def touch(held: bytearray, start: int, end: int) -> None:
    """Make pages the process's own: untouched ones take no memory."""
    for place in range(start, end, PAGE):
        held[place] = 1


def main() -> None:
    """Arguments: wall seconds, CPU seconds, MiB."""
    wall, cpu, size = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]) << 20
    began = time.monotonic()
    held = bytearray(size)
    touch(held, 0, size // 2)
    late = False
    while (age := time.monotonic() - began) < wall:
        if age >= 0.9 * wall and not late:
            late = True
            touch(held, size // 2, size)
        if used() >= cpu * min(1.0, age / wall):
            time.sleep(REST_SECONDS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    os.write(1, f"cpu_seconds {used():.6f} peak_bytes {peak}\n".encode())
    # Nothing is used after the truth was told: no interpreter is taken down.
    os._exit(0)


if __name__ == "__main__":
    main()
