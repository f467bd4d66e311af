"""`stereo-sashimi translate`: a YAML of the original S4 repository in our keys.

  stereo-sashimi translate input=OLD.yaml output=configs/experiment/audio/mine.yaml
  stereo-sashimi translate input=OLD.yaml output=configs/dataset/mine.yaml

for files of configs/experiment and of configs/dataset; which one it is shows in the file. Comments are lost. What was
left out, because it says what always holds here, is listed at the top of the new file; a key without a counterpart is
an error that names what to use instead.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.commands.shared.checks import make_folder
from stereo_sashimi.interop.s4_config import OPTIONS, SeedConfigError, groups_of, names_of, refuse, translate


def run(cfg: DictConfig) -> None:
    """Write the translation of a file, or print it."""
    path, output = Path(str(cfg.input)), None if cfg.output is None else Path(str(cfg.output))
    if output is not None and output.exists():
        raise ValueError(f"output={output} is there already. Give another name, or remove it.")
    try:
        text = translate_yaml(path.read_text(encoding="utf-8"), path.stem if output is None else output.stem)
    except (SeedConfigError, UnicodeDecodeError) as error:
        raise SeedConfigError(f"{path}: {error}") from error
    if output is None:
        sys.stdout.write(text)
    else:
        make_folder(output.parent, "output")
        write_whole(output, text.encode())


def translate_yaml(text: str, name: str = "mine") -> str:
    """The YAML of an experiment or a data set of the original, in our spelling; errors are those of `translate`."""
    comments, settings = translate(_read(text), name)
    return "\n".join(comments) + "\n" + OmegaConf.to_yaml(OmegaConf.create(settings))


def refuse_files(configs: Path, arguments: Sequence[str]) -> None:
    """Raise SeedConfigError for `group=option` arguments whose file in `configs` is in the original's spelling.

    Hydra stops at such an experiment before we see it, but says only that a group was chosen twice.
    """
    for argument in arguments:
        group, _, option = argument.lstrip("+~").partition("=")
        path = configs / group / f"{option}.yaml"
        if not option or not path.is_file():
            continue
        content = _read(path.read_text(encoding="utf-8"))
        if group == "experiment":
            old = {
                entry: option
                for entry, option in groups_of(content)
                if entry.removeprefix("/") in (*OPTIONS, "dataset")
            }
            refuse({**old, **dict(names_of(content))}, "experiment/audio", f"{path}:\n  ")
        else:
            refuse(dict(names_of({group: content})), group, f"{path}:\n  ")


def _read(text: str) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.create(text))
    # OmegaConf asserts that the text is no bare number.
    except (OmegaConfBaseException, YAMLError, RecursionError, AssertionError) as error:
        raise SeedConfigError(f"this is not YAML that Hydra reads: {error}") from error
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}
