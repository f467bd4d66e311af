"""Why Hydra cannot compose a command line, in our words: what was given, what there is, what was probably meant."""

import difflib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig

from stereo_sashimi.schema import refuse_unknown


def group_of(option: str, keys: Sequence[str], configs: Path) -> str | None:
    """The group of `keys` that has this option, for people who write `wandb=..` and mean `logger=wandb`."""
    return next((key for key in keys if (configs / key / f"{option}.yaml").is_file()), None)


def options_of(folder: Path) -> list[str]:
    """What can be chosen in a group; experiments lie a folder deeper."""
    paths = list(folder.glob("*.yaml")) or list(folder.rglob("*.yaml"))
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in paths)


def closest(given: str, options: Sequence[str]) -> str | None:
    """The option that was probably meant; `sashimi-sample` is as good as `audio/sashimi-sample`."""
    names = {PurePosixPath(option).name: option for option in options}
    close = difflib.get_close_matches(given, options, n=1)
    if not close:
        close = [names[name] for name in difflib.get_close_matches(PurePosixPath(given).name, list(names), n=1)]
    return close[0] if close else None


def explain(error: HydraException, command: str, words: Sequence[str], configs: Path) -> None:
    """Raise ValueError if one of `words` explains why Hydra could not compose the config of `command`."""
    missing = getattr(error, "missing_cfg_file", None)
    if missing == "hydra/sweeper/optuna":
        raise ValueError("sweep=optuna needs Optuna, which is not installed. pip install 'stereo-sashimi[sweep]'")
    if str(missing).startswith("hydra/launcher/submitit_"):
        raise ValueError(
            f"{missing} needs hydra-submitit-launcher, which is not installed. pip install 'stereo-sashimi[slurm]'"
        )
    chosen, keys = [], []
    for word in words:
        key, _, option = word.lstrip("+~").partition("=")
        if word.startswith("-") or key.startswith("hydra"):
            continue
        if (configs / key).is_dir():
            chosen.append(word)
            if missing == f"{key}/{option}":
                options = options_of(configs / key)
                meant = closest(option, options)
                hint = f"Did you mean {key}={meant}?" if meant else f"There are {', '.join(options)}."
                raise ValueError(f"There is no {key}={option}. {hint}")
        elif "/" in key:
            groups = [path.relative_to(configs).as_posix() for path in configs.rglob("*") if path.is_dir()]
            meant = closest(key, groups)
            raise ValueError(f"There is no group {key}." + (f" Did you mean {meant}={option}?" if meant else ""))
        elif not word.startswith("+"):
            keys.append(key)
    if missing is not None:
        return
    with initialize_config_dir(str(configs), version_base="1.3"):
        node = compose(command, chosen)
    for key in keys:
        _refuse(key, node)


def _refuse(key: str, node: object) -> None:
    """Raise ValueError if there is no such `key` under `node`."""
    where = ""
    for part in key.split("."):
        if not isinstance(node, DictConfig):
            return
        refuse_unknown({part: None}, [str(name) for name in node], where)
        where = f"{where}.{part}".lstrip(".")
        node = node._get_node(part)
