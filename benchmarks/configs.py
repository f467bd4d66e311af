"""What a command line asks for: configurations of train.py, each with the settings of the benchmark."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple, TypeVar, cast

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from benchmarks.measure import Settings
from stereo_sashimi.commands.cli import config_folder
from stereo_sashimi.commands.shared.checks import check_keys, check_values
from stereo_sashimi.commands.shared.overrides import check_overrides
from stereo_sashimi.commands.train.build import build_datamodule, build_model_config
from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.models.language_model_config import LanguageModelConfig

S = TypeVar("S", bound=Settings)
PREFIX = "bench."


class Composed(NamedTuple):
    """A configuration of train.py with the objects that need no file."""

    cfg: DictConfig
    datamodule: AudioDataModule
    model: LanguageModelConfig


def combinations(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Every combination of the choices `key=a,b`, by a name: the words that differ. Raises ValueError."""
    check_overrides(words)
    parser = OverridesParser.create()
    choices = []
    for word in words:
        parsed = parser.parse_override(word)
        key = parsed.get_key_element()
        if parsed.is_sweep_override() and not parsed.is_discrete_sweep():
            raise ValueError(f"{word} is no list of values. Write them one by one: {key}=a,b")
        sweep = parsed.is_sweep_override()
        choices.append([f"{key}={value}" for value in parsed.sweep_string_iterator()] if sweep else [word])
    found = {}
    for chosen in product(*choices):
        differing = [word for word, several in zip(chosen, choices, strict=True) if len(several) > 1]
        found[" ".join(differing) or "as given"] = chosen
    return found


def split_settings(words: Sequence[str], schema: type[S]) -> tuple[tuple[str, ...], S]:
    """The overrides of train.py, and the settings. Raises an error of OmegaConf for a key or type it lacks."""
    given = OmegaConf.from_dotlist([word.removeprefix(PREFIX) for word in words if word.startswith(PREFIX)])
    settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), given))
    return tuple(word for word in words if not word.startswith(PREFIX)), cast(S, settings)


def composed(words: Sequence[str]) -> Composed:
    """Compose train.yaml with `words` and check it as training does. Raises ValueError, naming the key."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = compose("train", list(words))
    check_keys(cfg)
    with open_dict(cfg):
        # A benchmark leaves no run folder, and needs no data.
        cfg.paths.run = "."
        cfg.dataset.sample_rate = cfg.dataset.sample_rate or 44100
        cfg.dataset.path = "" if OmegaConf.is_missing(cfg.dataset, "path") else cfg.dataset.path
    check_values(cfg)
    datamodule = build_datamodule(cfg)
    return Composed(cfg, datamodule, build_model_config(cfg, datamodule))


def check(words: Sequence[str], settings: Settings) -> None:
    """Raise ValueError, naming the key, for what train.py refuses as well."""
    composed(words)


def refuse_beside(words: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise ValueError for words that say nothing beside bench.checkpoint, which says what the model is."""
    for word in words:
        key = word.partition("=")[0].lstrip("+~")
        if not any(key == name or key.startswith(f"{name}.") for name in allowed):
            left = f"; {', '.join(allowed)} may stay" if allowed else ""
            raise ValueError(f"{word} has no effect beside bench.checkpoint. Leave it out{left}.")
