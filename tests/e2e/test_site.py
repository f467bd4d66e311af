"""The site of `make docs`: it builds without a warning and asks no other host; the notebook runs from top to bottom."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
# What a browser fetches by itself; what a reader clicks on may lie anywhere.
FETCHED = re.compile(r"<(?:script|img|iframe|audio|video|source|object|embed)\b[^>]*?\b(?:src|data)=[\"']?([^\"' >]+)")
LINKED = re.compile(r"<link\b[^>]*?\bhref=[\"']?([^\"' >]+)")
STYLED = re.compile(r"(?:url\(|@import)\s*[\"']?([^\"')]+)")


def outside(text: str) -> list[str]:
    """Addresses of other hosts that a page or a style sheet fetches."""
    found = [address for pattern in (FETCHED, LINKED, STYLED) for address in pattern.findall(text)]
    return [address for address in found if re.match(r"(\w+:)?//", address)]


def test_what_comes_from_outside_would_be_found():
    text = '<script src="https://a/x.js"></script><link rel=stylesheet href=//b/y.css><style>@import "http://c"</style>'
    assert outside(text) == ["https://a/x.js", "//b/y.css", "http://c"]
    assert outside('<a href="https://a"></a><img src="c.png"><style>a{b:url(data:image/svg+xml;utf8)}</style>') == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_no_other_host(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".html", ".css")]
    found = {path.name: outside(path.read_text(encoding="utf-8")) for path in files}
    assert {name: addresses for name, addresses in found.items() if addresses} == {}
    pages = {path.relative_to(tmp_path).as_posix() for path in files}
    assert {"index.html", "tutorial.html", "api.html", "configuration.html", "adr/0012-experts.html"} <= pages
    # A reader of the repository follows this one to a file; here it is named.
    assert "src/stereo_sashimi/metrics/stereo_windows.py" in (tmp_path / "evaluation.html").read_text()
    assert not (tmp_path / "hooks").exists()


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    # Jupyter's own, which shows pictures in the page; other tests need none.
    monkeypatch.delenv("MPLBACKEND")
    notebook = nbformat.read(ROOT / "docs/notebook.ipynb", as_version=4)
    NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("bits/sample" in str(output) for output in outputs)
