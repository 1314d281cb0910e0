"""The pages as `make docs` has built them: links in Python, and a real browser on some of them."""

import re
from collections import defaultdict
from html.parser import HTMLParser
from os.path import normpath
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from support import ROOT
from support.site_visits import visit

SITE = ROOT / "build" / "docs" / "html"
DRIVERS = sorted(path.stem for path in (ROOT / "drivers").glob("*.py"))

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="there are no pages: make docs"),
]


class Page(HTMLParser):
    """Anchors of a page, its links, and what is loaded with it."""

    def __init__(self, path):
        super().__init__()
        self.path, self.anchors, self.links, self.loaded, self.shown = path, {"", "top"}, [], [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in ("img", "script", "source", "iframe") and given.get("src"):
            self.loaded.append(given["src"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(given["href"])
        if tag == "img":
            self.shown.add(Path(given["src"]).name)


@pytest.fixture(scope="module")
def pages():
    return {path: Page(path) for path in SITE.rglob("*.html") if "_static" not in path.parts}


def resolved(page, address):
    """Return the file and the anchor that an address on a page means."""
    place, anchor = urldefrag(address)
    path = Path(normpath(page.path.parent / unquote(urlsplit(place).path))) if place else page.path
    return path, unquote(anchor)


def test_links_lead_somewhere(pages):
    broken = defaultdict(set)
    for page in pages.values():
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme:
                if not (parts.scheme == "mailto" or (parts.scheme in ("http", "https") and "." in parts.netloc)):
                    broken[address].add(page.path.name)
                continue
            path, anchor = resolved(page, address)
            if not (path.is_file() and (path not in pages or anchor in pages[path].anchors)):
                broken[address].add(page.path.name)
    assert len(pages) > 100 and sum(len(page.links) for page in pages.values()) > 1000
    assert not broken


def test_all_that_is_loaded_is_there_and_of_this_site(pages):
    foreign = {each for page in pages.values() for each in page.loaded if urlsplit(each).netloc}
    missing = {
        (page.path.name, each)
        for page in pages.values()
        for each in page.loaded
        if not urlsplit(each).scheme and not resolved(page, each)[0].is_file()
    }
    assert not foreign and not missing


def test_every_page_is_reached_from_the_first(pages):
    seen, left = set(), [SITE / "index.html"]
    while left:
        path = left.pop()
        if path in pages and path not in seen:
            seen.add(path)
            left += [resolved(pages[path], each)[0] for each in pages[path].links if not urlsplit(each).scheme]
    assert {path.relative_to(SITE).as_posix() for path in pages if path not in seen} <= {"search.html"}


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_driver_shows_a_picture(pages, driver):
    page = pages[SITE / "gallery" / f"{driver}.html"]
    assert any(re.fullmatch(rf"sphx_glr_{driver}_\d+\.png", name) for name in page.shown)


@pytest.fixture(scope="module")
def told(pages):
    """What a browser tells of all pages at two widths, and of a search."""
    places = [path.relative_to(SITE).as_posix() for path in pages]
    visits = [{"address": place, "width": width, "find": ""} for place in places for width in (1280, 400)]
    visits.append({"address": "search.html?q=colouring", "width": 1280, "find": "#search-results li a"})
    answers, missing = visit(SITE, visits)
    return {(each["address"], one["width"]): each for each, one in zip(answers, visits, strict=True)}, missing


def test_pages_load_without_a_complaint(told, pages):
    answers, missing = told
    assert len(answers) == 2 * len(pages) + 1 and not missing
    for place, answer in answers.items():
        assert "sparsehess" in answer["title"] and not answer["complaints"], place
        assert all(width > 0 for _, width in answer["pictures"]), place
        assert answer["overflow"] <= 0, place


def test_search_finds(told):
    found = told[0]["search.html?q=colouring", 1280]["found"]
    assert len(found) > 3 and any("olouring" in each for each in found)
