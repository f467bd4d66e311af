"""Every YAML under configs/: it composes, its keys and targets exist, and the promised values hold."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from stereo_sashimi.commands import cli
from stereo_sashimi.commands.shared.checks import check_keys
from stereo_sashimi.commands.train import build
from stereo_sashimi.ops.s4_response import KERNELS
from stereo_sashimi.tasks.autoregressive import AutoregressiveTask

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
EXPERIMENTS = sorted(path.relative_to(CONFIGS / "experiment").with_suffix("").as_posix()
                     for path in (CONFIGS / "experiment").rglob("*.yaml"))  # fmt: skip
GROUPS = ("dataset", "loader", "task", "encoder", "model", "model/layer", "decoder", "experts", "optimizer", "trainer",
          "callbacks", "logger", "backend", "debug", "paths")  # fmt: skip
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONFIGS / group).glob("*.yaml"))]
SCHEDULERS = sorted(path.stem for path in (CONFIGS / "scheduler").glob("*.yaml"))


def check(cfg: DictConfig, tmp_path: Path) -> None:
    """Keys, interpolations and targets of a composed training config, and objects of all that needs no data."""
    check_keys(cfg)
    cfg.paths.run = str(tmp_path)
    missing = OmegaConf.missing_keys(cfg)
    assert missing <= {"dataset.path"}
    cfg.dataset.path = "here"
    OmegaConf.to_container(cfg, resolve=True)
    assert cfg.backend.name in ("auto", *KERNELS)
    # What machines differ in, and sizes that only cost time.
    cfg.backend.name, cfg.dataset.bits = "auto", 8
    cfg.trainer.accelerator, cfg.trainer.devices, cfg.trainer.strategy = "cpu", 1, "auto"
    trainer = build.build_trainer(cfg)
    assert trainer.accelerator is not None
    data = build.build_datamodule(cfg)
    data._target_rate = data._target_rate or 44100
    if "layer" in cfg.model:
        cfg.model.d_model, cfg.model.n_layers, cfg.model.layer.d_state = 4, 1, 4
    model = build.build_model_config(cfg, data)
    assert model.spec.n_channels == data.d_input == (2 if cfg.dataset.is_stereo else 1)
    assert isinstance(build.build_task(cfg, model, data), AutoregressiveTask)


def test_every_kernel_backend_is_an_option():
    assert {name for group, name in OPTIONS if group == "backend"} == {*KERNELS}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiments_compose(composed, tmp_path, experiment):
    check(composed("train", f"experiment={experiment}"), tmp_path)


def rows() -> list[list[str]]:
    """Choices of an option in every group, as many as the largest group has, with each option in one at least."""
    # A bank of experts, its head and no network belong together: `audio/experts-*` have them.
    others = ("revnorm", "experts", "adaptive", "none")
    options = {
        group: [o for g, o in OPTIONS if g == group and (o not in others or group == "logger")] for group in GROUPS
    }
    options = {group: found for group, found in options.items() if found}
    most = max(map(len, options.values()))
    return [[f"{group}={found[i % len(found)]}" for group, found in options.items()] for i in range(most)]


# The sample's own schedule has keys that other schedulers lack, and its head is no match for ranks: see the two below.
@pytest.mark.parametrize("row", rows(), ids=" ".join)
def test_options_compose(composed, tmp_path, row):
    check(composed("train", "experiment=audio/sashimi-sample", "task.metrics=[bpb]", *row), tmp_path)
    (debug,) = (word for word in row if word.startswith("debug="))
    sample = "experiment=audio/sashimi-sample"
    assert composed("train", sample).trainer != composed("train", sample, debug).trainer


@pytest.mark.parametrize("group", [group for group, option in OPTIONS if option == "revnorm"])
def test_revnorm_is_no_part_of_a_language_model(composed, tmp_path, group):
    with pytest.raises(ValueError, match=rf"{group}=revnorm cannot be part of a language model: .*no likelihood"):
        check(composed("train", "dataset=sample", f"{group}=revnorm"), tmp_path)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_compose(composed, tmp_path, scheduler):
    check(composed("train", f"scheduler={scheduler}", "dataset=sample", "dataset.bits=8"), tmp_path)


def test_no_file_is_forgotten():
    tested = {f"{group}/{option}.yaml" for group, option in OPTIONS}
    tested |= {f"experiment/{name}.yaml" for name in EXPERIMENTS} | {f"scheduler/{name}.yaml" for name in SCHEDULERS}
    # The commands, and Hydra's own settings, which compose() leaves out of what it returns.
    # The sweep has tests of its own, test_sweep.py.
    others = {"hydra/default.yaml", "hydra/tool.yaml", "sweep/optuna.yaml"} | {f"{name}.yaml" for name in cli.COMMANDS}
    assert set(FILES) - tested == others


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_commands_compose(composed, command):
    assert callable(import_module(f"stereo_sashimi.commands.{cli.COMMANDS[command][0]}").run)
    check_keys(composed(command), cli.keys(command))


@pytest.mark.parametrize("file", FILES)
def test_targets_exist_and_every_file_says_what_it_is(file):
    text = (CONFIGS / file).read_text()
    for target in re.findall(r"_target_: (\S+)", text):
        assert target == "null" or isinstance(get_class(target), type)
    assert "_name_" not in text
    if file != "paths/default.yaml":
        assert re.match(r"(# @package _global_\n)?# \S", text) or " # " in text.splitlines()[0], "no comment at the top"
    if file.startswith("experiment/"):
        name = file.removeprefix("experiment/").removesuffix(".yaml")
        first = next(line for line in text.splitlines() if not line.startswith("# @"))
        assert re.fullmatch(rf"# python train\.py experiment={name}( [\w./]+=[\w./]+)*", first)


def test_is_stereo_is_a_key_of_data_sets_only():
    naming = [file for file in FILES if re.search(r"^\s*is_stereo:", (CONFIGS / file).read_text(), re.MULTILINE)]
    # The experiments on one's own folder set that data set's keys.
    own = ("experiment/audio/folder.yaml", "experiment/audio/experts-folder.yaml")
    assert naming == [file for file in FILES if file.startswith("dataset/") or file in own]
    source = CONFIGS.parent / "src" / "stereo_sashimi"
    readers = []
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "attr", None) or getattr(getattr(node, "slice", None), "value", None)
            if name == "is_stereo":
                readers.append((path.relative_to(source).as_posix(), node.lineno))
    assert readers == []


SEED_VALUES = {
    "dataset.path": "musdb18stereo", "dataset.bits": 16, "dataset.sample_len": 12288,
    "dataset.train_percentage": 0.88, "dataset.quantization": "linear", "dataset.drop_last": True,
    "dataset.context_len": None, "dataset.pad_len": None, "dataset.is_stereo": True, "dataset.__l_max": 12288,
    "model.n_layers": 8, "model.dropout": 0.0,
    "train.monitor": "val/loss", "train.mode": "min", "train.train_chunk_size": 2000, "train.val_chunk_size": 200,
    "task.metrics": ["bpb", "accuracy", "accuracy@3", "accuracy@5", "accuracy@10"],
    "loader.batch_size": 1,
    "trainer.max_epochs": 1000, "trainer.limit_train_batches": 2000, "trainer.limit_val_batches": 200,
    "optimizer.lr": 0.004,
}  # fmt: skip
SEED_CHOICES = {
    "trainer": "default", "loader": "default", "dataset": "musdb18stereo", "task": "multiclass_classification",
    "optimizer": "adamw", "scheduler": "plateau", "model": "sashimi", "encoder": "embedding",
    "decoder": "categorical",
}  # fmt: skip


def test_the_values_that_users_know(composed):
    cfg = composed("train", "experiment=audio/sashimi-musdb18stereo")
    assert {key: OmegaConf.select(cfg, key) for key in SEED_VALUES} == SEED_VALUES
    # The same file with its groups named by hand: choosing them again changes nothing.
    chosen = [f"{group}={option}" for group, option in SEED_CHOICES.items()]
    assert composed("train", "experiment=audio/sashimi-musdb18stereo", *chosen) == cfg
    for group, option in SEED_CHOICES.items():
        assert f"- override /{group}: {option}" in (CONFIGS / "experiment/audio/sashimi-musdb18stereo.yaml").read_text()


@pytest.mark.parametrize("name", ["sashimi-{}", "sashimi-dml-{}"])
def test_mono_twins_differ_in_the_data_only(composed, name):
    stereo, mono = (
        OmegaConf.to_container(composed("train", f"experiment=audio/{name.format(data)}"))
        for data in ("musdb18stereo", "musdb18mono")
    )
    assert mono.pop("dataset") == stereo.pop("dataset") | {
        "name": "musdb18mono", "path": "musdb18mono", "is_stereo": False,
        "prepare": "python preprocess/musdb18mono_wav.py --root MUSDB",
    }  # fmt: skip
    assert mono == stereo


@pytest.mark.parametrize("key", ["model.d_modle", "callbacks.last.dirpth", "trian.seed"])
def test_a_misspelt_key_on_the_command_line_is_named_in_full(composed, key):
    with pytest.raises(ConfigCompositionException, match=rf"Could not override '{re.escape(key)}'"):
        composed("train", "experiment=audio/sashimi-sample", f"{key}=1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  layer:\n    d_stat: 2", r"Unknown key model\.layer\.d_stat\. Did you mean model\.layer\.d_state\?"),
        ("schduler:\n  patience: 2", r"Unknown key schduler\. Did you mean scheduler\?"),
    ],
)
def test_a_misspelt_key_in_an_experiment_is_named_in_full(composed, tmp_path, text, message):
    experiment = tmp_path / "experiment"
    experiment.mkdir()
    (experiment / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    cfg = composed("train", f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine")
    with pytest.raises(ValueError, match=message):
        check_keys(cfg)


def test_parts_are_instantiated_without_a_registry(composed):
    cfg = composed("train")
    for section in ("encoder", "decoder", "model", "optimizer", "scheduler"):
        made = instantiate(cfg[section], _convert_="all")
        assert f"{type(made).__module__}.{type(made).__name__}".endswith(cfg[section]._target_.rsplit(".", 1)[1])
