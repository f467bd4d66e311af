"""The configurations that a benchmark measures: presets, and overrides as for train.py; `key=a,b` is one for each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import NamedTuple

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from benchmarks.presets import Overrides, Presets
from stereo_sashimi.commands.cli import config_folder
from stereo_sashimi.commands.memory import describe
from stereo_sashimi.commands.shared.check_keys import check_keys
from stereo_sashimi.commands.shared.check_values import check_values
from stereo_sashimi.commands.shared.overrides import check_overrides
from stereo_sashimi.commands.train.build import build_datamodule
from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.models.language_model import LanguageModelConfig


@dataclass(frozen=True)
class Named:
    """A configuration to measure: overrides of train.py, and what the report calls it."""

    name: str
    overrides: Overrides


class Described(NamedTuple):
    """A composed configuration with the objects that need no file."""

    cfg: DictConfig
    datamodule: AudioDataModule
    model: LanguageModelConfig


def choose(
    presets: Presets, preset: str | None, only: str, overrides: Sequence[str], base: Overrides = ()
) -> list[Named]:
    """Every configuration that a command line asks for.

    - `preset`: a name in `presets`, to whose configurations `overrides` are added; None: `overrides` alone, behind
      `base`. They replace what stands before them for the same key.
    - `only`: keep the names that match this pattern (`*` stands for anything), as they are in the preset or printed.
    - An override `key=a,b` stands for two, and several of them for every combination.

    Raises ValueError for a preset that is not there, a pattern that matches nothing, an override that cannot be read.
    """
    if preset is not None and preset not in presets:
        raise ValueError(f"there is no preset {preset!r}; choose --preset {', '.join(presets)}, or give overrides.")
    check_overrides(overrides)
    found = []
    for name, words in presets[preset].items() if preset is not None else [("", base)]:
        choices = _every_choice(_replaced(words, overrides))
        for chosen, varying in choices:
            label = " ".join(varying) if name or len(choices) > 1 else " ".join(overrides)
            found.append((name, Named(f"{name} {label}".strip() or "train.yaml", chosen)))
    kept = [named for name, named in found if fnmatchcase(named.name, only) or fnmatchcase(name, only)]
    if not kept:
        raise ValueError(f"--only {only!r} matches none of {', '.join(named.name for _, named in found)}.")
    return kept


def described(overrides: Iterable[str]) -> Described:
    """Compose train.yaml with `overrides`, check it as training does, and build what needs no file.

    Raises ValueError, naming the key, for what train.py refuses as well.
    """
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = compose("train", list(overrides))
    # A benchmark leaves no run folder, and only a run of Hydra has a name for one.
    cfg.paths.run = "."
    if OmegaConf.is_missing(cfg.dataset, "path"):
        cfg.dataset.path = ""
    check_keys(cfg)
    check_values(cfg)
    model, _ = describe(cfg)
    return Described(cfg, build_datamodule(cfg), model)


def _replaced(words: Overrides, given: Sequence[str]) -> Overrides:
    """`words` without those whose key is given again, and what is given."""
    parser = OverridesParser.create()

    def key(word: str) -> str:
        return parser.parse_override(word).get_key_element()

    keys = {key(word) for word in given}
    return (*(word for word in words if key(word) not in keys), *given)


def _every_choice(overrides: Sequence[str]) -> list[tuple[Overrides, Overrides]]:
    """Each combination of choices: all its overrides, and those that differ between combinations."""
    parser = OverridesParser.create()
    choices: list[list[tuple[str, bool]]] = []
    for word in overrides:
        parsed = parser.parse_override(word)
        if not parsed.is_sweep_override():
            choices.append([(word, False)])
        elif parsed.is_discrete_sweep():
            key = parsed.get_key_element()
            choices.append([(f"{key}={value}", True) for value in parsed.sweep_string_iterator()])
        else:
            raise ValueError(f"{word} is no list of values. Write them one by one: {parsed.get_key_element()}=a,b")
    return [
        (tuple(word for word, _ in chosen), tuple(word for word, varies in chosen if varies))
        for chosen in product(*choices)
    ]
