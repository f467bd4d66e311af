"""The commands that README.md shows are ones that exist: scripts, make targets, overrides and their values."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from stereo_sashimi.commands import cli
from stereo_sashimi.commands.shared.checks import check_keys
from stereo_sashimi.commands.shared.overrides import with_inputs

ROOT = Path(__file__).resolve().parents[2]


def command_lines() -> list[str]:
    """Lines of the ```bash blocks, joined where they continue, parts of `&&` apart, without comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return sorted({part for part in parts if shlex.split(part, comments=True)})


LINES = command_lines()


def words_of(line: str) -> list[str]:
    # `<run>` stands for a name that the reader fills in.
    return shlex.split(re.sub(r"<(\w+)>", r"\1", line), comments=True)


def test_the_readme_shows_how_to_start():
    assert "make demo" in " ".join(LINES)
    assert any("train.py" in line for line in LINES)
    assert any("generate.py" in line for line in LINES)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make")])
def test_make_targets_exist(line):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    words = [word for word in words_of(line)[1:] if "=" not in word]
    assert set(words) <= set(targets)


@pytest.mark.parametrize("line", [line for line in LINES if re.match(r"python3? |stereo-sashimi ", line)])
def test_commands_parse(line, composed):
    # What stands behind a pipe is another program's.
    first, script, *arguments = words_of(line.partition(" | ")[0])
    if first == "stereo-sashimi":
        command = script
    elif script == "-m":
        assert importlib.util.find_spec(arguments[0]) is not None
        return
    else:
        assert (ROOT / script).is_file()
        command = script.removesuffix(".py")
    if command == "compress":
        arguments = with_inputs(arguments)
    if command in cli.COMMANDS:
        cfg = composed(command, *(word for word in arguments if not word.startswith("--")))
        check_keys(cfg, cli.keys(command))
    else:
        known = "\n".join(path.read_text() for path in (ROOT / "src/stereo_sashimi/data").rglob("*.py"))
        for option in (word for word in arguments if word.startswith("--")):
            assert f'"{option}"' in known


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    local = [link for link in links if "://" not in link]
    assert local
    assert [link for link in local if not (ROOT / link).exists()] == []
