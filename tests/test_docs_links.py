"""Every link of the documentation to a file, and every path that it names, leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
LOG = ROOT / "docs" / "LOG.md"
"""Its entries speak of the code as it was."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != LOG], ids=lambda page: page.name)
def test_named_paths_exist(page):
    """Paths from the top of the repository; words in capitals are left open."""
    named = re.findall(r"`((?:engramctl|src|tests|docs|sweeps)/[\w./-]+)", page.read_text(encoding="utf-8"))
    missing = [path for path in named if not re.search("[A-Z]{2}", path) and not (ROOT / path).exists()]
    assert missing == []


def test_every_page_and_figure_is_shown_somewhere():
    linked = {(page.parent / link).resolve() for page in PAGES for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))}
    there = {path.resolve() for path in (ROOT / "docs").rglob("*") if path.is_file()}
    assert there - linked == set()
