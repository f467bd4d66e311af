"""The YAML of the original, verbatim in tests/e2e/seed: translated it is ours, untranslated it is refused."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from stereo_sashimi.commands.cli import main
from stereo_sashimi.commands.shared.checks import check_keys
from stereo_sashimi.commands.translate import refuse_files, translate_yaml
from stereo_sashimi.interop.s4_config import ALWAYS, DEFAULTS, KEPT, MOVED, OPTIONS, SeedConfigError

ROOT = Path(__file__).resolve().parents[2]
SEED = Path(__file__).parent / "seed"
EXPERIMENT = (SEED / "sashimi-musdb18stereo.yaml").read_text()
DATASET = (SEED / "musdb18stereo.yaml").read_text()


@pytest.fixture
def with_files(composed, tmp_path):
    """Compose with more files beside configs/: `with_files({"dataset/mine": text}, *overrides)`."""

    def make(files, *overrides):
        for name, text in files.items():
            path = tmp_path / "more" / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return composed("train", f"hydra.searchpath=[file://{tmp_path / 'more'}]", *overrides)

    return make


def resolved(cfg):
    cfg.paths.run = "runs/x"
    return OmegaConf.to_container(cfg, resolve=True)


def test_the_translated_experiment_is_ours(composed, with_files):
    ours = resolved(composed("train", "experiment=audio/sashimi-musdb18stereo"))
    mine = with_files({"experiment/mine": translate_yaml(EXPERIMENT)}, "experiment=mine")
    check_keys(mine)
    translated = resolved(mine)
    # Our file knows the command that makes the folder.
    translated["dataset"]["prepare"] = ours["dataset"]["prepare"]
    assert translated == ours


def test_the_translated_data_set_is_ours(composed, with_files):
    ours = resolved(composed("train", "experiment=audio/sashimi-musdb18stereo"))
    files = {"dataset/mine": translate_yaml(DATASET), "experiment/mine": translate_yaml(EXPERIMENT)}
    mine = with_files(files, "experiment=mine", "dataset=mine")
    check_keys(mine)
    translated = resolved(mine)
    # Our file knows the command that makes the folder.
    translated["dataset"]["prepare"] = ours["dataset"]["prepare"]
    assert translated == ours
    # A key that the old file lacks can be given on the command line all the same.
    assert with_files({}, "experiment=mine", "dataset=mine", "dataset.sample_rate=8000").dataset.sample_rate == 8000


# The original's data sets and experiments in its spelling; the values of ours are its own.
ORIGINALS = {
    "youtubemix": (
        "path: youtube_mix\nbits: 8\nsample_len: 131072\nquantization: mu-law\n",
        "batch_size: 1",
        "lr: 0.004",
    ),
    "beethoven": ("path: beethoven\nbits: 8\nsample_len: 128000\nquantization: linear\n", "batch_size: 1", "lr: 0.004"),
    "sc09": (None, "batch_size: 32", None),
}


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_originals_own_experiments_become_ours(composed, with_files, name):
    data, loader, optimizer = ORIGINALS[name]
    head, body = EXPERIMENT.replace("musdb18stereo", name).split("\ntrain:\n")
    old = f"{head}  prenorm: True\ntrain:\n  monitor: val/loss\n  mode: min\n" + body[body.index("\ntask:") :]
    old = old.replace("batch_size: 1", loader).replace("  limit_train_batches: 2000\n  limit_val_batches: 200\n", "")
    old = old.replace("optimizer:\n  lr: 0.004\n", f"optimizer:\n  {optimizer}\n" if optimizer else "")
    old += "\nscheduler:\n  patience: 20\n"
    ours = resolved(composed("train", f"experiment=audio/sashimi-{name}"))
    files = {"experiment/mine": translate_yaml(old)}
    if data is not None:
        rest = "train_percentage: 0.88\ndrop_last: true\ncontext_len: null\npad_len: null\n__l_max: ${.sample_len}\n"
        files["dataset/mine"] = translate_yaml(f"_name_: qautoaudio\n{data}{rest}")
    mine = resolved(with_files(files, "experiment=mine", *(["dataset=mine"] if data else [])))
    if data is not None:
        # Our file knows the rate of its data set, the original's does not.
        mine["dataset"] |= {"name": name, "sample_rate": 16000, "prepare": ours["dataset"]["prepare"]}
    assert mine == ours


def test_the_unet_experiment_becomes_ours(composed, with_files):
    old = """
defaults:
  - /dataset: sc09
  - /trainer: default
  - /loader: default
  - /task: multiclass_classification
  - /optimizer: adamw
  - /scheduler: cosine_warmup
  - /model: unet
model: {n_layers: 8, d_model: 64, dropout: 0.0, layer: {n_ssm: null, init: legs}}
train: {monitor: val/loss, mode: min}
task: {metrics: [bpb, accuracy, accuracy@3, accuracy@5, accuracy@10]}
encoder: embedding
decoder: {_name_: sequence, mode: last}
loader: {batch_size: 16}
optimizer: {weight_decay: 0.1, lr: 0.001}
scheduler: {num_warmup_steps: 1000, num_training_steps: 200000}
trainer: {max_epochs: 100}
"""
    mine = with_files({"experiment/mine": translate_yaml(old)}, "experiment=mine")
    assert resolved(mine) == resolved(composed("train", "experiment=audio/sashimi-sc09-unet"))


def test_what_the_originals_groups_said_is_written_down(with_files):
    silent = "defaults: [{/optimizer: adamw}, {/loader: default}, {/trainer: default}, {/scheduler: cosine_warmup}]"
    mine = with_files({"experiment/mine": translate_yaml(silent)}, "experiment=mine")
    assert (mine.optimizer.lr, mine.loader.batch_size, mine.trainer.max_epochs) == (0.001, 50, 200)
    assert (mine.scheduler.warmup_steps, mine.scheduler.total_steps) == (1000, 40000)


def test_a_decoder_of_mixtures(with_files):
    old = EXPERIMENT.replace("_name_: sequence\n  mode: full", "_name_: dml\n  n_mixtures: 6")
    mine = with_files({"experiment/mine": translate_yaml(old)}, "experiment=mine")
    check_keys(mine)
    assert mine.decoder.n_mixtures == 6
    assert mine.decoder._target_.endswith("DMLHeadConfig")


def test_what_was_left_out_is_said():
    text = translate_yaml(DATASET + "interleaving_strategy: temporal\n".replace("__l_max", ""))
    assert "# Left out: dataset.interleaving_strategy=temporal (channels are an axis of one model" in text
    assert "# python train.py experiment=audio/mine\n" in translate_yaml(EXPERIMENT)


@pytest.mark.parametrize(
    ("old", "messages"),
    [
        (EXPERIMENT.replace("dropout: 0.0", "dropout: 0.0\n  output_head: dml\n  n_mixtures: 6"),
         [r"model\.output_head=dml: write `decoder: dml`", r"model\.n_mixtures=6: write `decoder:"]),
        (EXPERIMENT + "  lrr: 1\n", [r"optimizer\.lrr=1: has no counterpart.*docs/migration\.md"]),
        (EXPERIMENT.replace("n_layers: 8", "prenorm: false"), [r"model\.prenorm=False: only True is possible"]),
        (EXPERIMENT.replace("n_layers: 8", "layer: {mode: diag}"), [r"model\.layer\.mode=diag: .*model/layer=s4d"]),
        (EXPERIMENT.replace("n_layers: 8", "layer: {lr: {A: 0.1}}"), [r"model\.layer\.lr\.A=0\.1: .*\.ssm_lr"]),
        (EXPERIMENT.replace("/model: sashimi", "/model: samplernn"), [r"model=samplernn: only sashimi, unet"]),
        (EXPERIMENT.replace("/task: multi", "/pipeline: multi"), [r"/pipeline: there is no such group"]),
        (EXPERIMENT.replace("encoder: embedding", "encoder: linear"), [r"encoder=linear: only embedding"]),
        (EXPERIMENT + "wandb: {project: x}\n", [r"wandb\.project=x: logger=wandb"]),
        (DATASET.replace("qautoaudio", "sc09"), [r"dataset\._name_=sc09: .*dataset=sc09"]),
        (DATASET + "bitz: 8\n", [r"dataset\.bitz=8: has no counterpart"]),
        ("a: [1", [r"not YAML"]),
        ("3", [r"not YAML"]),
        ("- model", [r"neither an experiment .* nor a data set"]),
        (EXPERIMENT.replace("/model: sashimi", "/model: [sashimi]"), [r"model=\['sashimi'\]: one name is possible"]),
        (EXPERIMENT.replace("/dataset: musdb18stereo", "/dataset: [a]"), [r"dataset=\['a'\]: one name is possible"]),
        (EXPERIMENT.replace("encoder: embedding", "encoder: [embedding]"), [r"encoder=.*: one name is possible"]),
        ("model: {n_layers: 8}", [r"neither an experiment .* nor a data set"]),
    ],
)  # fmt: skip
def test_a_key_without_a_counterpart_is_named_with_what_to_use(old, messages):
    with pytest.raises(SeedConfigError) as caught:
        translate_yaml(old)
    for message in messages:
        caught.match(message)


def test_every_key_of_the_table_is_one_of_ours(composed):
    cfgs = [composed("train", "decoder=dml", f"scheduler={s}") for s in ("plateau", "cosine_warmup")]
    missing = object()
    ours = [f"{section}.{key}" for section, keys in KEPT.items() for key in keys.split()] + list(MOVED.values())
    assert [key for key in ours if all(OmegaConf.select(c, key, default=missing) is missing for c in cfgs)] == []
    assert not set(ALWAYS) & set(ours)
    for group, options in OPTIONS.items():
        for old, new in options.items():
            assert (ROOT / "configs" / group / f"{new}.yaml").is_file(), old
    for group, options in DEFAULTS.items():
        assert set(options) <= set(OPTIONS[group])


@pytest.mark.parametrize(
    ("files", "overrides", "message"),
    [
        ({"dataset/old": DATASET}, ["dataset=old"],
         r"dataset: _name_: qautoaudio: here .*folder(.|\n)*original(.|\n)*output=configs/dataset/mine\.yaml"),
        ({"experiment/old": "# @package _global_\ndecoder:\n  _name_: sequence\n"}, ["experiment=old"],
         r"decoder: _name_: sequence: here `- override /decoder: categorical`(.|\n)*configs/experiment/audio/mine"),
        ({"experiment/old": "# @package _global_\nencoder: embedding\n"}, ["experiment=old"],
         r"encoder: embedding: here `- override /encoder: embedding`"),
        ({"experiment/old": "# @package _global_\nmodel: {layer: {_name_: s4}}\n"}, ["experiment=old"],
         r"model\.layer: _name_: s4: here a group option with a `_target_`"),
    ],
)  # fmt: skip
def test_untranslated_keys_are_refused_with_their_replacement(with_files, files, overrides, message):
    with pytest.raises(SeedConfigError, match=message) as caught:
        check_keys(with_files(files, *overrides))
    assert "stereo-sashimi translate input=OLD.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "text", "message"),
    [
        (
            "experiment=audio/old",
            EXPERIMENT,
            r"old\.yaml:\n(.*\n)+  decoder: _name_: sequence: here .*override /decoder: categorical",
        ),
        (
            "+experiment=audio/old",
            EXPERIMENT.split("\nencoder")[0],
            r"/trainer: default: here `- override /trainer: default`",
        ),
        ("dataset=old", DATASET, r"old\.yaml:\n  dataset: _name_: qautoaudio: here .*folder"),
    ],
)
def test_untranslated_files_are_refused_before_hydra_sees_them(tmp_path, argument, text, message):
    path = tmp_path / f"{argument.lstrip('+').replace('=', '/')}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    refuse_files(tmp_path, ["model=sashimi", "trainer.max_epochs=3", "experiment=absent", "-m", "dataset"])
    with pytest.raises(SeedConfigError, match=message):
        refuse_files(tmp_path, ["trainer=cpu", argument])


def test_none_of_our_files_is_taken_for_the_originals():
    for path in (ROOT / "configs").rglob("*.yaml"):
        group, option = path.parent.relative_to(ROOT / "configs"), path.stem
        experiment = path.relative_to(ROOT / "configs" / "experiment") if "experiment" in group.parts else None
        refuse_files(
            ROOT / "configs", [f"experiment={experiment.with_suffix('')}" if experiment else f"{group}={option}"]
        )


def test_the_commands(tmp_path, capsys, monkeypatch):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(SEED / "sashimi-musdb18stereo.yaml", tmp_path / "configs" / "experiment" / "audio" / "old.yaml")
    with monkeypatch.context() as patch:
        patch.setattr("stereo_sashimi.commands.cli.config_folder", lambda: tmp_path / "configs")
        with pytest.raises(SystemExit):
            main("train", ["experiment=audio/old"])
    error = capsys.readouterr().err
    assert error.startswith("SeedConfigError: ")
    assert "stereo-sashimi translate input=OLD.yaml output=configs/experiment/audio/mine.yaml" in error
    main("translate", [f"input={SEED / 'sashimi-musdb18stereo.yaml'}"])
    assert capsys.readouterr().out == translate_yaml(EXPERIMENT, "sashimi-musdb18stereo")
    (tmp_path / "bad.yaml").write_text(EXPERIMENT + "nonsense: 3\n")
    new = tmp_path / "new" / "mine.yaml"
    with pytest.raises(SystemExit):
        main("translate", [f"input={tmp_path / 'bad.yaml'}", f"output={new}"])
    assert "bad.yaml: these keys cannot be translated:\n  nonsense=3: has no counterpart" in capsys.readouterr().err
    assert not new.parent.exists()
    main("translate", [f"input={SEED / 'sashimi-musdb18stereo.yaml'}", f"output={new}"])
    assert new.read_text() == translate_yaml(EXPERIMENT, "mine")
    with pytest.raises(SystemExit):
        main("translate", [f"input={SEED / 'musdb18stereo.yaml'}", f"output={new}"])
    assert "is there already" in capsys.readouterr().err
    assert new.read_text() == translate_yaml(EXPERIMENT, "mine")
