"""Run as first process of a pid namespace: ends a job's process, gives its pid to a stranger, prints what was seen.

Half of the jobs were looked at before their process ended, half were not: their start time alone tells them apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from jobtrail.adapters.procfs.tree import ProcessTreeReader
from jobtrail.domain.samples import Miss, Missed, Reading
from tests.adapters.cgroup_trees import target

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
BUSY = "while :; do :; done"
TICKS_AFTER_NAME = 19  # field 22 of /proc/PID/stat, counted from the one after the command's name (proc_pid_stat(5))


def start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[TICKS_AFTER_NAME])


def main(rounds: int) -> int:
    reader = ProcessTreeReader()
    reused = attributed = 0
    for number in range(rounds):
        job = subprocess.Popen(["sleep", "60"])
        reader.attach(target("slurm-7", root_pid=job.pid, root_pid_start_ticks=start_ticks(job.pid)))
        if number % 2 == 0:
            assert isinstance(reader.read(["r"])["r"], Reading)
        before = start_ticks(job.pid)
        job.kill()
        job.wait()
        while True:  # until the boot clock's tick is another: within one, even the kernel could not tell them apart
            LAST_PID.write_text(str(job.pid - 1))
            stranger = subprocess.Popen(["sh", "-c", BUSY])
            if stranger.pid == job.pid and start_ticks(stranger.pid) != before:
                break
            stranger.kill()
            stranger.wait()
        reused += 1
        got = reader.read(["r"])["r"]
        attributed += not (isinstance(got, Missed) and got.miss is Miss.GONE)
        attributed += reader.cpu_totals(["r"]).by_ref.get("r", 0) > 0
        reader.detach("r")
        stranger.kill()
        stranger.wait()
    sys.stdout.write(json.dumps({"reused": reused, "attributed": attributed}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
