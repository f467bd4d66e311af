"""The configurations that a benchmark measures: presets, and overrides as for train.py; `key=a,b` is one for each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import NamedTuple

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from stereo_sashimi.app.build import build_datamodule
from stereo_sashimi.app.check import check_keys
from stereo_sashimi.app.check_values import check_values
from stereo_sashimi.app.memory import CONFIGS, describe
from stereo_sashimi.app.overrides import check_overrides
from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.models.language_model import LanguageModelConfig

Overrides = tuple[str, ...]

MONO: Overrides = ("experiment=audio/sashimi-musdb18mono", "dataset.bits=8", "loader.batch_size=1")
CATEGORICAL: Overrides = ("experiment=audio/sashimi-musdb18stereo", "loader.batch_size=1")
DML: Overrides = ("experiment=audio/sashimi-dml-musdb18stereo", "loader.batch_size=1")
# Ways to run one model on a GPU, the last two against the first three.
RUNS: dict[str, Overrides] = {
    "eager-fp32": (),
    "eager-bf16": ("trainer.precision=bf16-mixed",),
    "compiled-bf16": ("trainer.precision=bf16-mixed", "compile=true"),
    "reference-fp32": ("backend=reference",),
    "triton-fp32": ("backend=triton",),
}


def _frames(frames: int) -> str:
    return f"dataset.sample_len={frames}"


PRESETS: dict[str, dict[str, Overrides]] = {
    "baseline": {
        "mono-8192": (*MONO, _frames(8192)),
        "mono-12288": (*MONO, _frames(12288)),
        "mono-8192-unet": (*MONO, "model=sashimi_unet", _frames(8192)),
        "mono-8192-s4d": (*MONO, "model/layer=s4d", _frames(8192)),
        "mono-8192-16bit": (*MONO, "dataset.bits=16", _frames(8192)),
    },
    "stereo": {
        "categorical-concat-12288": (*CATEGORICAL, _frames(12288)),
        "categorical-sum-12288": (*CATEGORICAL, "encoder.merge=sum", _frames(12288)),
        "dml-8192": (*DML, _frames(8192)),
        "dml-65536": (*DML, _frames(65536)),
    },
    "long": {
        "dml-131072-checkpointed": (*DML, "activation_checkpointing=true", _frames(131072)),
    },
    "gpu": {
        f"{head}-batch{batch}-{run}": (*base, "trainer=gpu", *how, f"loader.batch_size={batch}")
        for (head, base), batch, (run, how) in product(
            {"categorical": CATEGORICAL, "dml": DML}.items(), (1, 8, 64), RUNS.items()
        )
    },
}


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


def choose(preset: str | None, only: str, overrides: Sequence[str]) -> list[Named]:
    """Every configuration that a command line asks for.

    - `preset`: a name in `PRESETS`, to whose configurations `overrides` are added; None: `overrides` alone.
    - `only`: keep the names that match this pattern (`*` stands for anything).
    - An override `key=a,b` stands for two, and several of them for every combination.

    Raises ValueError for a preset that is not there, a pattern that matches nothing, an override that cannot be read.
    """
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}; choose --preset {', '.join(PRESETS)}, or give overrides.")
    bases: dict[str, Overrides] = PRESETS[preset] if preset is not None else {"": ()}
    given = _every_choice(overrides)
    found = []
    for (name, base), (words, varying) in product(bases.items(), given):
        label = " ".join(varying) if name or len(given) > 1 else " ".join(words)
        found.append(Named(f"{name} {label}".strip() or "train.yaml", (*base, *words)))
    kept = [named for named in found if fnmatchcase(named.name, only)]
    if not kept:
        raise ValueError(f"--only {only!r} matches none of {', '.join(named.name for named in found)}.")
    return kept


def described(overrides: Iterable[str]) -> Described:
    """Compose train.yaml with `overrides`, check it as training does, and build what needs no file.

    Raises ValueError, naming the key, for what train.py refuses as well.
    """
    if not CONFIGS.is_dir():
        raise ValueError(
            f"There is no folder {CONFIGS}. Run this from a checkout of the repository (pip install -e .)."
        )
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", list(overrides))
    # A benchmark leaves no run folder, and only a run of Hydra has a name for one.
    cfg.paths.run = "."
    if OmegaConf.is_missing(cfg.dataset, "path"):
        cfg.dataset.path = ""
    check_keys(cfg)
    check_values(cfg)
    model, _ = describe(cfg)
    return Described(cfg, build_datamodule(cfg), model)


def _every_choice(overrides: Sequence[str]) -> list[tuple[Overrides, Overrides]]:
    """Each combination of choices: all its overrides, and those that differ between combinations."""
    check_overrides(overrides)
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
