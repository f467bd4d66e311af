"""What every page of docs/ keeps to: it is in the navigation, it reads alike on the site and on a code host.

And what the reference is made of: each key of configs/ has a comment, each public name an entry in docs/api.md.
"""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs.hooks import config_reference
from markdown import Markdown
from markdown_it import MarkdownIt

import stereo_sashimi

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]
NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))


def entries(nav: Any) -> set[str]:
    """All pages of a navigation."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*map(entries, nav.values() if isinstance(nav, dict) else nav))


def test_every_page_is_in_the_navigation():
    nav = entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    left_out = {page for page in pages - nav if not page.startswith("adr/")}
    assert "adr/" in nav
    assert left_out == set(), "put these pages into a list of `nav` in mkdocs.yml"


class Outline(HTMLParser):
    """How often each kind of element stands in and outside of list items."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.found = 0, Counter()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.depth += tag == "li"
        if tag in ("h1", "h2", "h3", "h4", "li", "pre", "table", "td", "blockquote"):
            self.found[tag, self.depth] += 1

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "li"


def outlines(text: str) -> list[Counter]:
    """The outline as Python-Markdown, which makes the site, and CommonMark, which code hosts follow, have it."""
    site = Markdown(extensions=["tables", "sane_lists", "pymdownx.superfences"]).convert(text)
    found = []
    for html in (site, MarkdownIt().enable("table").render(text)):
        outline = Outline()
        outline.feed(html)
        found.append(outline.found)
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_reads_alike_on_the_site_and_on_a_code_host(path):
    site, host = outlines(path.read_text(encoding="utf-8"))
    assert site == host, "a blank line before each list; four spaces before what belongs to an item"


def test_a_page_that_does_not_would_be_found():
    site, host = outlines("Words\n- an item\n- another one\n\n  ```\n  code\n  ```\n")
    assert site != host


def test_every_key_has_a_comment():
    assert config_reference.uncommented() == [], "write what these keys are, behind them or in the file they start from"


def test_comments_are_those_of_the_file_that_a_key_comes_from():
    assert config_reference.comment_of("dataset.split_seed", "dataset/sc09.yaml").startswith("another number")
    coupling = config_reference.comment_of("decoder.coupling", "experiment/audio/folder.yaml")
    assert coupling.startswith("or autoregressive")
    assert config_reference.comment_of("model.absent", "model/sashimi.yaml") == ""
    merge = next(key for key in config_reference.keys("encoder/embedding.yaml") if key.name == "encoder.merge")
    assert merge.value == "concat"
    assert merge.comment.endswith("folded into the batch")


def test_the_reference_of_keys_has_every_command_and_option():
    page = config_reference.page()
    files = [path.relative_to(config_reference.CONFIGS) for path in config_reference.CONFIGS.rglob("*.yaml")]
    for file in files:
        group = file.parent.as_posix().removesuffix("/audio")
        option = file.relative_to(group).with_suffix("").as_posix()
        assert f"### {option if group == '.' else f'{group}={option}'}\n" in page


def test_the_reference_has_every_public_name():
    text = (DOCS / "api.md").read_text()
    names = {name.removeprefix("stereo_sashimi.") for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}
    assert set(stereo_sashimi.__all__) - names == {"__version__", "interop"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_without_what_it_printed(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
