"""The documentation's site: it builds, leads nowhere wrong, needs no network, and shows all of the API."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts import build_docs
from scripts.screenshots import __main__ as screenshots
from scripts.screenshots import browser

from tests.requirements import unmet

REPOSITORY = build_docs.REPOSITORY
DOCS = REPOSITORY / "docs"
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\(([^)\s]+)\)")
API = yaml.safe_load((DOCS / "openapi.yaml").read_text(encoding="utf-8"))
OPERATIONS = [operation for item in API["paths"].values() for operation in item.values()]


@pytest.fixture(scope="module")
def site() -> Path:
    """The site, made anew."""
    build_docs.build(strict=False)  # what Zensical would refuse is among the mistakes that are looked for here
    return build_docs.SITE


def test_everything_in_the_site_leads_somewhere(site: Path) -> None:
    """Pages, headings, pictures, scripts; nothing is fetched from elsewhere."""
    assert build_docs.mistakes(site) == []


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ('<a href="gone.html">x</a>', "gone.html: no such file"),
        ('<a href="#gone">x</a>', "#gone: no such anchor"),
        ('<img src="images/gone.png">', "images/gone.png: no such file"),
        ('<script src="https://example.org/x.js"></script>', "<script> is fetched from elsewhere"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "<link> is fetched from elsewhere"),
        ('<a href="https://example.org/">x</a><a href="#here" id="here">y</a><a href="/">z</a>', None),
    ],
)
def test_a_mistake_is_found(tmp_path: Path, written: str, problem: str | None) -> None:
    """What Zensical does not look at."""
    (tmp_path / "index.html").write_text(written, encoding="utf-8")
    found = build_docs.mistakes(tmp_path)
    assert [problem in one for one in found] == ([True] if problem else []), found


def test_a_link_to_no_page_is_refused(tmp_path: Path) -> None:
    """With the place where it is written."""
    shutil.copy(REPOSITORY / "mkdocs.yml", tmp_path)
    text = (tmp_path / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(text, encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A\n\nsee [b](b.md) and [c](#c)\n", encoding="utf-8")
    with pytest.raises(build_docs.Refused) as caught:
        build_docs.build(tmp_path)
    assert str(caught.value).splitlines() == [
        "docs/index.md:3:9: page does not exist",
        "docs/index.md:3:24: anchor does not exist",
    ]


def _pages(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from _pages(inner)


def test_every_page_is_in_the_navigation_once() -> None:
    """A page that nobody finds is not there."""
    nav = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(_pages(nav)) == sorted(page.name for page in DOCS.glob("*.md"))


def test_the_readme_leads_somewhere() -> None:
    """Its links are files of the repository."""
    named = [link for link in LINK.findall(README) if not link.startswith("http")]
    assert len(named) > 20
    assert [link for link in named if not (REPOSITORY / link.partition("#")[0]).exists()] == []


def test_the_pictures_are_those_that_are_taken() -> None:
    """`python -m scripts.screenshots` takes each of them, each is shown somewhere, and none is large or fetches."""
    files = {file.name: file for file in (DOCS / "images").iterdir()}
    assert set(files) == set(screenshots.PICTURES)
    texts = (README, *(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")))
    shown = {Path(link).name for text in texts for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)}
    assert shown == set(files)
    for name, file in files.items():
        assert file.stat().st_size <= screenshots.LARGEST_BYTES, name
        if file.suffix == ".svg":
            addresses = set(re.findall(r"\w+://[^\"' )]+", file.read_text(encoding="utf-8")))
            assert addresses == {"http://www.w3.org/2000/svg"}, name


def test_every_endpoint_stands_in_one_group() -> None:
    """The browsable page shows endpoints by their tags."""
    groups = {tag["name"] for tag in API["tags"]}
    assert [one["operationId"] for one in OPERATIONS if len(one.get("tags", ())) != 1] == []
    assert {tag for one in OPERATIONS for tag in one["tags"]} <= groups
    assert len({one["operationId"] for one in OPERATIONS}) == len(OPERATIONS)


@pytest.fixture
def chromium() -> str:
    try:
        return browser.browser()
    except browser.NoBrowser as error:
        unmet(f"{error}: nobody looks at the documentation's site")


def shown(chromium: str, page: Path, profile: Path) -> str:
    """The page's elements once its scripts are done, from a file:// address where no name resolves."""
    done = subprocess.run(
        [chromium, *browser.QUIET, f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND",
         "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def test_the_api_is_shown_in_a_browser_without_a_network(chromium: str, site: Path, tmp_path: Path) -> None:
    """Every endpoint there is."""
    page = shown(chromium, site / "api-reference.html", tmp_path)
    wanted = {f"{one['tags'][0].replace(' ', '_')}-{one['operationId']}" for one in OPERATIONS}
    assert set(re.findall(r'id="operations-(?!tag-)([^"]+)"', page)) == wanted


# Opening all takes a minute of a busy machine, so a few are: with parameters, a body, and schemas within schemas.
OPENED = ("/v1/jobs/{id}", "/v1/events/job-started", "/v1/nodes")


def test_an_opened_endpoint_shows_its_answers(chromium: str, site: Path, tmp_path: Path) -> None:
    """A page that was opened as a file may look nothing up, so references would be errors where schemas should be."""
    described = (site / "assets" / "swagger-ui" / "openapi.js").read_text(encoding="utf-8")
    assert '"$ref"' not in described
    text = (site / "api-reference.html").read_text(encoding="utf-8")
    few = f"for (const path in all) if (!{json.dumps(OPENED)}.includes(path)) delete all[path]"
    text = text.replace('docExpansion: "list"', 'docExpansion: "full"')
    text = text.replace("  SwaggerUIBundle(", f"const all = jobtrailApi.paths; {few}; SwaggerUIBundle(")
    opened = site / "opened.html"
    opened.write_text(text, encoding="utf-8")
    try:
        page = shown(chromium, opened, tmp_path)
    finally:
        opened.unlink()
    answers = [code for path in OPENED for one in API["paths"][path].values() for code in one["responses"]]
    assert sorted(re.findall(r'<tr class="response[^"]*" data-code="(\d+)"', page)) == sorted(answers)
    assert "Resolver error" not in page


# Opens the search as a reader does, and leaves what it answers in the page's title: the dialogue's own elements are in
# a shadow tree, which is not dumped.
SEARCH = """<script>addEventListener("load", () => {
  document.querySelector(".md-search__button").click();
  const roots = () => [...document.querySelectorAll("*")].map(one => one.shadowRoot).filter(one => one);
  let asked = false;
  setInterval(() => {
    for (const root of roots()) {
      const field = root.querySelector("input");
      if (field && !asked) {
        asked = true;
        field.value = "emissions";
        field.dispatchEvent(new Event("input", {bubbles: true}));
      }
      if (asked) document.title = root.querySelector("*").parentNode.textContent;
    }
  }, 100);
})</script></body>"""


def test_the_search_finds_from_a_file(chromium: str, site: Path, tmp_path: Path) -> None:
    """Without a server and without a network; browsers start no worker for such a page."""
    asking = site / "asking.html"
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "</body>" in text
    asking.write_text(text.replace("</body>", SEARCH), encoding="utf-8")
    try:
        page = shown(chromium, asking, tmp_path)
    finally:
        asking.unlink()
    title = re.search(r"<title>(.*?)</title>", page, re.S)
    assert title is not None
    assert re.search(r"\b\d+ results", title[1]), title[1][:500]
    assert "Energy and emissions" in title[1]
