"""The site's pages beside docs/*.md, and links of all pages, which are written for a reader of the repository.

README.md and a few others become pages where they are linked; other files of the repository are named, not linked.
"""

import os
import re
from pathlib import Path
from typing import Any

import config_reference
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
# Files and folders of the repository, and the pages that they are.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "src/stereo_sashimi/pretrained/README.md": "models.md",
    "configs": "configuration.md",
    "docs/adr": "adr/0001-channels-are-an-axis.md",
}
SOURCES = {page: source for source, page in PAGES.items() if source.endswith(".md")}
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#:]+)(#[^)]*)?\)")


def on_config(config: Any) -> Any:
    """The entry `adr/` of the navigation becomes all decisions, in the order of their numbers."""
    decisions = [f"adr/{path.name}" for path in sorted((ROOT / "docs/adr").glob("*.md"))]
    for section in config.nav:
        for pages in section.values():
            for entry in pages:
                if isinstance(entry, dict) and list(entry.values()) == ["adr/"]:
                    entry[next(iter(entry))] = decisions
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie elsewhere, and that of all keys."""
    for page, source in SOURCES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "configuration.md", content=config_reference.page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to pages of the site lead there; to any other file of the repository they become its name."""
    here = page.file.src_uri
    folder = (ROOT / SOURCES.get(here, f"docs/{here}")).parent

    def link(match: re.Match[str]) -> str:
        words, target, anchor = match[1], (folder / match[2]).resolve(), match[3] or ""
        if not target.is_relative_to(ROOT) or not target.exists():
            return match[0]  # Strict building names it.
        name = target.relative_to(ROOT).as_posix()
        on_site = PAGES.get(name, name.removeprefix("docs/") if name.startswith("docs/") else "")
        if on_site:
            return f"[{words}]({os.path.relpath(on_site, Path(here).parent)}{anchor})"
        return f"`{name}`" if words.strip("`") in name else f"{words} (`{name}`)"

    return LINK.sub(link, markdown)
