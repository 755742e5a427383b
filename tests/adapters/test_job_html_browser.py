"""The page in a real browser: its style is applied under its own policy, in light and dark, on screens of any width."""

import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from jobtrail.adapters import job_html
from tests.adapters.test_job_html import END, lines, report
from tests.requirements import unmet

LIGHT, DARK = (0xFF, 0xFF, 0xFF), (0x0F, 0x13, 0x18)  # of style.css: --back
GREY = (0x88, 0x88, 0x88)
# A headless window is never narrower than 500 pixels; a frame is.
FRAME = (
    '<!DOCTYPE html><body style="margin:0;background:#888"><iframe src="page.html" scrolling="no" style="{}"></iframe>'
)


@pytest.fixture
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        unmet("chromium is not installed: nobody looks at the page of a report")
    return found


@pytest.fixture
def page(tmp_path: Path) -> Path:
    file = tmp_path / "page.html"
    file.write_text(job_html.render(report(job_name="x" * 300), lines(), END), encoding="utf-8")
    return file


def browse(chromium: str, file: Path, *options: str) -> str:
    """Run the browser on the page; what it logged."""
    command = [
        chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
        f"--user-data-dir={file.parent / 'profile'}", *options, file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def pixels(file: Path) -> list[list[tuple[int, ...]]]:
    """The rows of a PNG of 8 bits a channel, unfiltered (https://www.w3.org/TR/png/#9Filters)."""
    data, at, body = file.read_bytes(), 8, b""
    width = height = channels = 0
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        piece = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, _, colour = struct.unpack(">IIBB", piece[:10])
            channels = {2: 3, 6: 4}[colour]
        elif kind == b"IDAT":
            body += piece
        at += 12 + length
    raw, stride = zlib.decompress(body), width * channels
    rows, before = [], bytearray(stride)
    for number in range(height):
        start = number * (stride + 1)
        row = bytearray(raw[start + 1 : start + 1 + stride])
        for index in range(stride):
            left = row[index - channels] if index >= channels else 0
            corner = before[index - channels] if index >= channels else 0
            row[index] = (row[index] + _predicted(raw[start], left, before[index], corner)) & 0xFF
        rows.append([tuple(row[place : place + 3]) for place in range(0, stride, channels)])
        before = row
    return rows


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    if kind < 4:
        return (0, left, up, (left + up) // 2)[kind]
    near = left + up - corner
    return min((left, up, corner), key=lambda one: abs(near - one))


@pytest.mark.parametrize(("options", "back"), [((), LIGHT), (("--force-dark-mode",), DARK)])
def test_the_page_has_its_style_in_light_and_dark(
    chromium: str, page: Path, tmp_path: Path, options: tuple[str, ...], back: tuple[int, int, int]
) -> None:
    shot = tmp_path / "shot.png"
    scheme = ("--blink-settings=preferredColorScheme=0",) if options else ()
    log = browse(chromium, page, *options, *scheme, "--window-size=700,500", f"--screenshot={shot}")
    assert "Content Security Policy" not in log
    rows = pixels(shot)
    assert rows[0][0] == back
    assert len({colour for row in rows for colour in row}) > 20, "something is drawn"


def test_a_narrow_screen_shows_all_of_its_width(chromium: str, page: Path, tmp_path: Path) -> None:
    """Nothing is wider than the screen but tables, which can be scrolled by themselves."""
    frame, shot = tmp_path / "frame.html", tmp_path / "narrow.png"
    frame.write_text(FRAME.format("width:400px;height:1500px;border:0"), encoding="utf-8")
    browse(chromium, frame, "--window-size=520,1500", f"--screenshot={shot}")
    rows = pixels(shot)
    assert {tuple(row[410]) for row in rows} == {GREY}
    edge = [row[399] for row in rows]
    assert set(edge) == {LIGHT}, "the page's margin is free"


def test_it_prints(chromium: str, page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    browse(chromium, page, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF-")
    assert 1 <= paper.read_bytes().count(b"/Type /Page\n") <= 5
