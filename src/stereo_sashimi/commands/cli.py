"""The table of commands and how one starts: `stereo-sashimi <command> [key=value ...]`.

Each command is a module with `run(cfg: DictConfig)`, and a YAML of its keys in configs/; `prepare` alone has options of
its own. train.py, generate.py, evaluate.py and compress.py in a checkout are doors to this table, as is
`python -m stereo_sashimi`.
"""

import difflib
import io
import os
import shutil
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from stereo_sashimi.commands.shared.errors import as_typed, speak
from stereo_sashimi.commands.shared.overrides import SWEEP, check_overrides, check_run_folder, with_inputs
from stereo_sashimi.commands.shared.suggest import explain

PACKAGE = Path(__file__).resolve().parents[1]
# Command -> module in this folder, and what it is for. Its keys are in configs/<command>.yaml.
COMMANDS = {
    "train": ("train.train_command", "train a model"),
    "generate": ("generate.generate_command", "sample audio from a model"),
    "evaluate": ("evaluate.evaluate_command", "bits of recordings under a model"),
    "compress": ("compress.compress_command", "lossless compression of WAV, AIFF and FLAC files"),
    "page": ("page.page_command", "a page in the browser: draw, listen, compress"),
    "export": ("export", "a model as safetensors and JSON"),
    "report": ("report.report_command", "what a run has learnt and sounds like"),
    "push": ("push", "put a model on the Hugging Face Hub"),
    "pull": ("pull", "fetch a model from there into a folder"),
    "shards": ("shards", "a data set as shards, for collections larger than a disk"),
    "doctor": ("doctor", "can this machine train, and is a folder fit to train on?"),
    "memory": ("memory", "memory that a training run will take"),
    "translate": ("translate", "YAML of the original S4 repository in our keys"),
}


def config_folder() -> Path:
    """configs/ of the checkout that the package lives in, else the copy that its wheel carries."""
    checkout = PACKAGE.parents[1]
    return checkout / "configs" if (checkout / "pyproject.toml").is_file() else PACKAGE / "configs"


def keys(command: str) -> list[str]:
    """The first names of all keys of a command, from its YAML and the files that this one starts from."""
    content = OmegaConf.to_container(OmegaConf.load(config_folder() / f"{command}.yaml"))
    assert isinstance(content, dict)
    found = [str(key) for key in content if key != "defaults"]
    for entry in content["defaults"]:
        if entry == "train":
            found += keys(entry)
        elif isinstance(entry, dict):
            found += [str(group) for group in entry if group != "hydra" and not str(group).startswith("override")]
    return found


def main(command: str | None = None, words: Sequence[str] | None = None) -> None:
    """Run `command`, by default the first of `words`, by default those of the command line."""
    words = sys.argv[1:] if words is None else words
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files that are not UTF-8 are printed with escapes, as standard error does by itself.
        sys.stdout.reconfigure(errors="backslashreplace")
    if command is None:
        if not words or words[0] in ("-h", "--help"):
            print(usage())
            raise SystemExit(0 if words else 2)
        command, *words = words
    speak(launch)(command, words)


def usage() -> str:
    """The table for people."""
    summaries = {name: summary for name, (_, summary) in COMMANDS.items()} | {"prepare": "make a data set"}
    rows = "\n".join(f"  {name:<10} {summary}" for name, summary in summaries.items())
    return f"stereo-sashimi <command> [key=value ...]\n\n{rows}\n\nstereo-sashimi <command> --help lists its keys."


def launch(command: str, words: Sequence[str]) -> None:
    """Compose the config of a command with `words` and run it.

    Raises ValueError for an unknown command, a word that is no `key=value`, an unknown key and a key without a value.
    """
    if command == "prepare":
        from stereo_sashimi.commands.prepare import prepare

        raise SystemExit(prepare(words))
    if command not in COMMANDS:
        names = [*COMMANDS, "prepare"]
        close = difflib.get_close_matches(command, names, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Use one of {', '.join(names)}."
        raise ValueError(f"There is no command {command!r}. {hint}")
    configs = config_folder()
    if command != "train" and {"-h", "--help"} & set(words):
        # Unlike Hydra's help, the file says what each key means.
        print(as_typed((configs / f"{command}.yaml").read_text(encoding="utf-8")), end="")
        return
    if command == "compress":
        words = with_inputs(words)
    check_overrides(words, keys(command), configs)
    if command in ("train", "memory"):
        from stereo_sashimi.commands.translate import refuse_files

        refuse_files(configs, words)
        if any(word.startswith("resume=") for word in words):
            from stereo_sashimi.commands.train.resume import with_saved_overrides

            words = with_saved_overrides(words)
    if command == "train":
        check_run_folder(words)
    given = sys.argv

    def task(cfg: DictConfig) -> Any:
        # Lightning starts the other processes of a run with the command line that was given.
        sys.argv = given
        try:
            for key in map(str, cfg):
                if OmegaConf.is_missing(cfg, key):
                    raise ValueError(f"{key} has no value: give {key}=.. (stereo-sashimi {command} --help).")
            return import_module(f"stereo_sashimi.commands.{COMMANDS[command][0]}").run(cfg)
        except BaseException:
            if command == "train":
                _remove_unused(Path(HydraConfig.get().runtime.output_dir))
            raise

    # Hydra's parser wants its options in front, and with this variable it raises what it would print and exit on.
    sys.argv = [sys.argv[0], *sorted(words, key=lambda word: word not in SWEEP)]
    full = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(configs), config_name=command)(speak(task))()
    except HydraException as error:
        explain(error, command, words, configs)
        raise
    finally:
        sys.argv = given
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full


def _remove_unused(run: Path) -> None:
    """Remove the folder of a run that was refused: it holds nothing but what Hydra writes before a command starts."""
    if run.is_dir() and all(path.name == ".hydra" for path in run.iterdir()):
        shutil.rmtree(run, ignore_errors=True)
