"""argv → command."""

from __future__ import annotations

import sys

from jobtrail.cli import serve


def main() -> None:
    """Entry point of `jobtrail`."""
    plain, config_path = serve.plain_call(sys.argv[1:])
    if plain:
        sys.exit(serve.run(config_path))
    from jobtrail.cli.commands import run  # noqa: PLC0415 - not for the daemon: it would keep it in memory

    run()


if __name__ == "__main__":
    main()
