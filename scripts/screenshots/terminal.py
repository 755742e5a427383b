"""A command's real output on a terminal, as a picture.

The command runs under a pseudo-terminal of a given width, so it prints what a person would see, colours included; rich
draws that as SVG. The picture names no font of another machine: a viewer takes the monospaced one that it has.
"""

from __future__ import annotations

import io
import os
import pty
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

LINES = 200
TIMEOUT_SECONDS = 60
THEME = TerminalTheme(
    (27, 31, 40),
    (214, 219, 229),
    [(70, 76, 92), (240, 113, 120), (137, 202, 120), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194),
     (214, 219, 229)],
    [(110, 118, 138), (255, 139, 146), (165, 224, 151), (255, 214, 145), (130, 196, 255), (222, 150, 242),
     (118, 209, 220), (255, 255, 255)],
)  # fmt: skip
# rich's own frame, without the web font that it would fetch (https://rich.readthedocs.io/en/stable/console.html).
FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g>
</svg>
"""


def output_of(arguments: Sequence[str], environment: Mapping[str, str], columns: int) -> str:
    """What `jobtrail` with `arguments` writes to a terminal. Raises CalledProcessError when it fails."""
    leader, follower = pty.openpty()
    ioctl(follower, TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    known = {**environment, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        known.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "jobtrail", *arguments], stdin=subprocess.DEVNULL, stdout=follower, stderr=follower,
        env=known,
    )  # fmt: skip
    os.close(follower)
    written = bytearray()
    try:
        while piece := os.read(leader, 65536):
            written += piece
    except OSError:  # EIO: the last process that had the other end is gone (pty(7))
        pass
    finally:
        os.close(leader)
    text = written.decode(errors="replace").replace("\r\n", "\n")
    if code := process.wait(TIMEOUT_SECONDS):
        raise subprocess.CalledProcessError(code, arguments, output=text)
    return text.rstrip("\n")


def picture_of(arguments: Sequence[str], printed: str, columns: int) -> str:
    """The SVG of a terminal in which the command was typed and `printed` came back."""
    console = Console(
        record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    console.print(Text("$ ", style="bright_black"), Text(f"jobtrail {' '.join(arguments)}", style="bold"), sep="")
    for line in AnsiDecoder().decode(printed):
        console.print(line, soft_wrap=True)
    return console.export_svg(title="", theme=THEME, code_format=FRAME, unique_id=f"t{abs(hash_of(arguments))}")


def hash_of(arguments: Sequence[str]) -> int:
    """The same number for the same command at every run, so that a picture changes only where its text does."""
    return sum(position * byte for position, byte in enumerate(" ".join(arguments).encode(), start=1))


def take(file: Path, arguments: Sequence[str], environment: Mapping[str, str], columns: int = 100) -> None:
    """Run the command and write its picture to `file`."""
    file.write_text(picture_of(arguments, output_of(arguments, environment, columns), columns), encoding="utf-8")
