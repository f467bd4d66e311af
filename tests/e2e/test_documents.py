"""The commands that README.md, docs/ and the comments of configs/ show are ones that exist, and so are links.

Scripts, commands, make targets, groups, options and keys; what a command does has tests of its own.
"""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from benchmarks import __main__ as bench
from benchmarks.configs import combinations, split_settings
from docs.hooks import config_reference
from hydra.core.override_parser.overrides_parser import OverridesParser

from stereo_sashimi.commands import cli
from stereo_sashimi.commands.prepare import DATA_SETS
from stereo_sashimi.commands.shared.checks import check_keys
from stereo_sashimi.commands.shared.overrides import SWEEP, with_inputs

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "src/stereo_sashimi/pretrained/README.md"]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(PAGES)}
# The first line of an experiment is tested in test_configs.py.
HEADS = [path.relative_to(ROOT / "configs").as_posix() for path in sorted((ROOT / "configs").rglob("*.yaml"))]
TEXTS |= {"configs": "\n".join(config_reference.section(f, f) for f in HEADS if not f.startswith("experiment/"))}
PREPARE = "\n".join(path.read_text() for path in (ROOT / "src/stereo_sashimi/data").rglob("*.py"))
# Hydra's own keys are no part of what it composes.
HYDRA = {key.name for file in ("hydra/default.yaml", "sweep/optuna.yaml") for key in config_reference.keys(file)}


def commands(text: str) -> list[tuple[str, ...]]:
    """Words of each command of Python, of this package and of make: in ```bash blocks, and in `code` that begins so."""
    prose, *blocks = re.split(r"^ *```(\w*)\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    prose += "".join(blocks[2::3])
    lines = "\n".join(block for kind, block in zip(blocks[::3], blocks[1::3], strict=True) if kind == "bash")
    lines = lines.replace("\\\n", " ")
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    found = set()
    for line in [*lines.splitlines(), *(span for span in spans if re.match(r"(python|stereo-sashimi|make) ", span))]:
        # `<run>` stands for a name that the reader fills in, $run for one that the shell does.
        filled = re.sub(r"<(\w+)[\w ]*>", r"\1", re.sub(r"\$(\w+)", r"\1", line))
        lexer = shlex.shlex(filled.partition(" #")[0], posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split, lexer.commenters = True, ""
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;<>"):
                found.add(tuple(words))
                words = []
            elif words or word in ("python", "python3", "stereo-sashimi", "make"):
                words.append(word)
    return sorted(words for words in found if len(words) > 1 and "key=value" not in words)


# Each with the first page that shows it.
LINES = [(page, words) for words, page in {w: page for page in [*TEXTS][::-1] for w in commands(TEXTS[page])}.items()]


def as_composed(words: list[str]) -> list[str]:
    """Overrides without Hydra's options and keys, `experiment=...` as an experiment, the first of several values."""
    found = []
    for word in words:
        key, _, value = word.partition("=")
        if key.startswith("hydra."):
            assert key in HYDRA, word
        elif key == "sweep":
            assert (ROOT / f"configs/sweep/{value}.yaml").is_file(), word
        elif value.strip(".") or value == "..":
            parsed = OverridesParser.create().parse_override(word)
            if set(SWEEP) & set(words) and parsed.is_sweep_override():
                several = parsed.is_discrete_sweep()
                word = f"{key}={next(parsed.sweep_string_iterator())}" if several else f"{key}=null"
            found.append(word)
        elif key == "experiment":
            found.append("experiment=audio/sashimi-sample")
    return found


def test_the_readme_shows_how_to_start():
    shown = commands(TEXTS["README.md"])
    assert ("make", "demo") in shown
    assert any("train.py" in words for words in shown)
    assert any("generate.py" in words for words in shown)


def test_commands_are_found_wherever_they_stand():
    block = "for i in 1 2; do python a.py x=$i/4 & done; wait\nstereo-sashimi b <my run> | c  # d"
    text = f"```bash\n{block}\n```\n`make\ne`\n```\npython out.py\n```"
    assert commands(text) == [("make", "e"), ("python", "a.py", "x=i/4"), ("stereo-sashimi", "b", "my")]


@pytest.mark.parametrize(("page", "words"), [line for line in LINES if line[1][0] == "make"])
def test_make_targets_exist(page, words):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in words[1:] if "=" not in word} <= set(targets)


@pytest.mark.parametrize(("page", "words"), [line for line in LINES if line[1][0] != "make"])
def test_commands_compose(page, words, composed):
    program, script, *arguments = words
    if script == "-m" and program != "stereo-sashimi":
        module, *arguments = arguments
        if module == "benchmarks":
            name, *arguments = arguments
            for variant in combinations([word for word in arguments if not word.endswith("=...")]).values():
                composed("train", *split_settings(variant, bench.COMMANDS[name].Settings)[0])
            return
        if module != "stereo_sashimi":
            assert importlib.util.find_spec(module) is not None
            return
        program, (script, *arguments) = "stereo-sashimi", arguments
    if program != "stereo-sashimi":
        assert (ROOT / script).is_file()
    command = script.removesuffix(".py")
    if command in cli.COMMANDS:
        arguments = with_inputs(arguments) if command == "compress" else arguments
        check_keys(composed(command, *as_composed(arguments)), cli.keys(command))
    else:
        assert command.startswith("preprocess/") or (command == "prepare" and arguments[0] in DATA_SETS)
        for option in (word for word in arguments if word.startswith("--")):
            assert f'"{option}"' in PREPARE


@pytest.mark.parametrize("page", [page for page in TEXTS if page.endswith(".md")])
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", TEXTS[page])
    assert [link for link in links if ":" not in link and not (ROOT / page).parent.joinpath(link).exists()] == []
