"""Write every dashboard to grafana/dashboards, or with --check name those that differ from what is there."""

from __future__ import annotations

import sys

from grafana.src.dashboards import DIRECTORY, rendered


def main(arguments: list[str]) -> int:
    """Exit status: 0 done or nothing differs, 1 something differs, 2 unknown arguments."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write(f"unknown arguments: {' '.join(arguments)} (allowed: --check)\n")
        return 2
    wanted = rendered()
    held = {path.name: path.read_bytes() for path in DIRECTORY.glob("*.json")}
    if arguments:
        different = sorted(name for name in held.keys() | wanted.keys() if held.get(name) != wanted.get(name))
        for name in different:
            sys.stderr.write(f"grafana/dashboards/{name} is not what grafana/src makes: run python -m grafana.src\n")
        return 1 if different else 0
    for name in held.keys() - wanted.keys():
        (DIRECTORY / name).unlink()
    for name, content in wanted.items():
        (DIRECTORY / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
