"""Builds the documentation's site into build/site and refuses what a reader would stumble over.

Zensical refuses links between pages and to headings that lead nowhere. What it does not look at is looked at here, in
the pages as they were made: pictures, links written as HTML, and anything that a browser would fetch from elsewhere,
because the site is also read on clusters without a way out.
"""

from __future__ import annotations

import html.parser
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

REPOSITORY = Path(__file__).parents[1]
SITE = REPOSITORY / "build" / "site"
SWAGGER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "LICENSE")
# The attributes by which a page names other files, and the elements whose files a browser fetches by itself.
NAMING = {"href", "src", "poster", "data"}
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
WARNING = re.compile(r"^(?:Warning|Error): (.+)\n.*\[ (\S+) \]$", re.M)
FETCHED = {"script", "link", "img", "iframe", "source", "video", "audio", "object", "embed"}


class Page(html.parser.HTMLParser):
    """What a page names (element, address) and the anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.named: list[tuple[str, str]] = []
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect one element's addresses and its id."""
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value or "")
            elif name in NAMING and value is not None:
                self.named.append((tag, value))


class Refused(Exception):
    """The site cannot be made, or Zensical found something wrong; a line for each thing."""


def build(root: Path = REPOSITORY, *, strict: bool = True) -> None:
    """Make the site of the documents below `root`. Raises Refused, unless not `strict`, for what Zensical warns of."""
    site = root / SITE.relative_to(REPOSITORY)
    shutil.rmtree(site, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", *(["--strict"] if strict else [])],
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Refused(_warnings(COLOURS.sub("", done.stdout)) or done.stdout)
    add_api_pages(site)


def _warnings(told: str) -> str:
    """Zensical draws each warning with the whole line of text; here it is `page:line:column: what`."""
    return "\n".join(f"docs/{where}: {what}" for what, where in WARNING.findall(told))


def add_api_pages(site: Path) -> None:
    """Put Swagger UI, and the API's description as a script, where docs/api-reference.html loads them from.

    A script, because a page that is opened as a file may fetch no other file (the same-origin policy of browsers); for
    the same reason without references, which Swagger UI would look up at the page's own address.
    """
    target = site / "assets" / "swagger-ui"
    target.mkdir(parents=True)
    found = importlib.util.find_spec("flask_swagger_ui")
    if found is None or found.origin is None:
        raise Refused("flask_swagger_ui is not installed; scripts/bootstrap dev installs it")
    source = Path(found.origin).parent / "dist"
    for name in SWAGGER_FILES:
        shutil.copyfile(source / name, target / name)
    described = yaml.safe_load((site / "openapi.yaml").read_text(encoding="utf-8"))
    whole = {**_inlined(described, described), "components": _security_alone(described)}
    (target / "openapi.js").write_text(f"window.jobtrailApi = {json.dumps(whole)};\n", encoding="utf-8")


def _inlined(part: Any, described: dict[str, Any], within: tuple[str, ...] = ()) -> Any:
    """`part` with what each `$ref` names in its place; a schema keeps its name as its title.

    Raises Refused for a reference to itself, of which there would be no end.
    """
    if isinstance(part, list):
        return [_inlined(one, described, within) for one in part]
    if not isinstance(part, dict):
        return part
    if (reference := part.get("$ref")) is None:
        return {name: _inlined(value, described, within) for name, value in part.items()}
    if reference in within:
        raise Refused(f"docs/openapi.yaml: {reference} refers to itself")
    *_, kind, name = steps = reference.removeprefix("#/").split("/")
    named: Any = described
    for step in steps:
        named = named[step]
    whole = _inlined(named, described, (*within, reference))
    return {"title": name, **whole} if kind == "schemas" else whole


def _security_alone(described: dict[str, Any]) -> dict[str, Any]:
    """Of the components what is named without a `$ref`."""
    return {name: value for name, value in described["components"].items() if name == "securitySchemes"}


def mistakes(site: Path) -> list[str]:
    """Addresses in the site's pages that lead nowhere, and files that a browser would fetch from elsewhere."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    found = []
    for path, page in sorted(pages.items()):
        for tag, address in page.named:
            problem = _problem(site, pages, path, tag, address)
            if problem is not None:
                found.append(f"{path.relative_to(site)}: {address}: {problem}")
    return found


def _problem(site: Path, pages: dict[Path, Page], path: Path, tag: str, address: str) -> str | None:
    parts = urlsplit(address)
    if parts.scheme in ("data", "mailto"):
        return None
    if parts.scheme or parts.netloc:
        return f"<{tag}> is fetched from elsewhere" if tag in FETCHED else None
    target = path
    if parts.path.startswith("/"):  # 404.html is shown at any depth, so it names files from the site's top
        target = site / unquote(parts.path).lstrip("/")
    elif parts.path:
        target = (path.parent / unquote(parts.path)).resolve()
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return "no such file"
    if target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return "no such anchor"
    return None


def main() -> int:
    """0 when the site is in order; 1 with a line for each mistake."""
    try:
        build()
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    found = mistakes(SITE)
    for line in found:
        print(f"build_docs: {line}", file=sys.stderr)
    if not found:
        print(f"the site is in {SITE.relative_to(REPOSITORY)}; open {SITE.relative_to(REPOSITORY)}/index.html")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
