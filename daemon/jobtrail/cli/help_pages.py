"""What `--help` says beside a command's own words: an example that works, and exit codes that scripts ask for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

EXAMPLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "serve": ("jobtrail --config /etc/jobtrail/jobtrail.yaml serve",),
        "demo": ("jobtrail demo --directory /tmp/jobtrail-demo",),
        "exec": ("jobtrail exec --name training -- python train.py --epochs 3",),
        "migrate": (
            "DATABASE_URL=postgresql://owner@db.example.org/jobtrail jobtrail migrate",
            "jobtrail migrate --sql --revision 0001:head",
        ),
        "import-sacct": ("jobtrail import-sacct --command", "jobtrail import-sacct --dry-run jobs.txt"),
        "jobs create": ("jobtrail jobs create --id manual-tuning --start-time 2h --cpus 8",),
        "jobs amend": ("jobtrail jobs amend manual-tuning --state completed --end-time 10m",),
        "jobs withdraw": ("jobtrail jobs withdraw manual-tuning",),
        "jobs list": (
            "jobtrail jobs list --state failed --since 7d",
            "jobtrail jobs list --url https://server:8080 --ca-file ca.pem",
        ),
        "jobs show": ("jobtrail jobs show 123",),
        "report": ("jobtrail report 123", "jobtrail report 123_7 --html job.html"),
        "top": ("jobtrail top --sort memory", "jobtrail top --url https://node7:8080"),
        "audit verify": ("jobtrail audit verify --full", "jobtrail audit verify --job 123"),
        "audit export": ("jobtrail audit export --output trail.jsonl",),
        "audit evidence": ("jobtrail audit evidence 123 --output slurm-123.jsonl",),
        "audit keygen": ("jobtrail audit keygen /etc/jobtrail/seal.key",),
        "audit erase": ('jobtrail audit erase --user ada --basis "GDPR article 17"',),
        "audit prune": ("jobtrail audit prune --before 2026-01-01",),
        "audit hold": ('jobtrail audit hold --reason "case 17"', 'jobtrail audit hold --lift --reason "case 17"'),
        "audit log": ("jobtrail audit log 123",),
        "audit rebuild": ("jobtrail audit rebuild --check",),
        "bench list": ("jobtrail bench list",),
        "bench show": ("jobtrail bench show vllm-serve-small --set num_prompts=50",),
        "bench run": ("jobtrail bench run vllm-serve-small --wait", "jobtrail bench run vllm-serve-small --dry-run"),
        "bench import": ("jobtrail bench import results/ --job 123 --dry-run",),
        "bench push": ("jobtrail bench push jobtrail-bench/*",),
        "bench runs": ("jobtrail bench runs --recipe vllm-serve-small --since 30d",),
        "bench result": ("jobtrail bench result 1f0c2a9b",),
        "bench compare": ("jobtrail bench compare 1f0c2a9b 77d3e410",),
        "bench leaderboard": ("jobtrail bench leaderboard --metric request_latency --stat p99",),
        "bench accept": ('jobtrail bench accept 1f0c2a9b --note "new driver"',),
        "bench pin": ("jobtrail bench pin 1f0c2a9b",),
        "bench unpin": ("jobtrail bench unpin 1f0c2a9b",),
        "doctor": ("jobtrail doctor", "jobtrail doctor --only database,servers --strict"),
        "node-token add": ("jobtrail node-token add n1 --expires 365d --output n1.token",),
        "node-token list": ("jobtrail node-token list --all",),
        "node-token revoke": ("jobtrail node-token revoke n1",),
        "web-token": ("jobtrail web-token dashboards --scope read --output dashboards.token",),
        "web-user": ("jobtrail web-user ada",),
    }
)
UNREACHED = "3 nobody who knows can be reached"
CODES: Mapping[str, str] = MappingProxyType(
    {
        "exec": "that of CMD; 128 and the signal's number if one ended it; 127 no such command, 126 it cannot be run, "
        "125 no process could be made; 3 --require-daemon found no daemon.",
        "migrate": "0 done, with --check nothing is missing; 1 something is, or it failed; 3 no database.",
        "import-sacct": "0 all was read; 1 some of it could not be; 3 no database.",
        "jobs list": f"0 also where no job matches; {UNREACHED}.",
        "jobs show": f"0 shown; 4 no such job; {UNREACHED}.",
        "report": f"0 shown; 4 no such job; {UNREACHED}.",
        "audit verify": "0 nothing is wrong; 1 something is; 2 wrong usage or setting; 3 the database cannot be asked; "
        "4 the trail has nothing about the job.",
        "audit log": f"0 shown; 4 the trail has nothing about the job; {UNREACHED}.",
        "audit rebuild": "0 done, with --check nothing differs; 1 something does; 3 no database.",
        "bench run": "0 the results can be used; 1 they cannot, or there are none; 4 no such recipe; 130 Ctrl-C while "
        "waiting.",
        "bench result": f"0 shown; 4 no such run; {UNREACHED}.",
        "doctor": "0 no failure; 1 at least one, with --strict or warning; 2 the settings or this command line are "
        "wrong.",
        "top": "0 also after q, Ctrl-C and SIGTERM; 3 no daemon answers.",
    }
)


def complete(command: Any, path: str) -> None:
    """Fold a command's own words into whole paragraphs and add its example and exit codes; of a group all members'.

    Lines of a paragraph are joined, because the help is as wide as the terminal; indented ones stay as they are.
    """
    paragraphs = [folded(command.help or "")]
    if examples := EXAMPLES.get(path):
        heading = "Example:" if len(examples) == 1 else "Examples:"
        paragraphs.append("\n".join([heading, *(f"  {example}" for example in examples)]))
    if codes := CODES.get(path):
        paragraphs.append(f"Exit codes: {codes}")
    command.help = "\n\n".join(filter(None, paragraphs))
    for name, member in getattr(command, "commands", {}).items():
        complete(member, f"{path} {name}")


def folded(text: str) -> str:
    """Paragraphs in one line each; indented lines stay."""
    lines: list[str] = []
    for line in inspect.cleandoc(text).splitlines():
        goes_on = lines and line and lines[-1] and not line.startswith(" ") and not lines[-1].startswith(" ")
        if goes_on:
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    return "\n".join(lines)
