"""The group `bench`: names, and which module each command lives in. The function is called `<name>_command`."""

from __future__ import annotations

from typing import Any

import typer

from jobtrail.cli.lazy import LazyGroup

# command → module of this package. A module is imported when its command runs.
MODULES = {
    "list": "catalogue",
    "show": "catalogue",
    "run": "run",
    "inside": "inside",
    "import": "bring",
    "push": "bring",
    "runs": "results",
    "result": "results",
    "compare": "results",
    "leaderboard": "results",
    "accept": "results",
    "pin": "results",
    "unpin": "results",
}
HIDDEN = ("inside",)  # what `bench run` starts in the job, not for people


class BenchCommands(LazyGroup):
    """Commands of `bench`, imported when used."""

    members = {name: (f"bench.{module}", f"{name}_command") for name, module in MODULES.items()}  # noqa: RUF012
    prefix = "bench "

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and return one command."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            command.hidden = cmd_name in HIDDEN
        return command


application = typer.Typer(
    cls=BenchCommands,
    help="Benchmarks that run as jobs: recipes, runs, results.",
    add_completion=False,
    no_args_is_help=True,
)


@application.callback()
def bench() -> None:
    """Benchmarks that run as jobs: recipes, runs, results."""
