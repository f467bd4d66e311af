"""Sweeps: several runs from one command, in folders of their own; what they hand back, with and without Optuna."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from running import ROOT, finish

from stereo_sashimi.commands.shared import errors
from stereo_sashimi.commands.train import sweep
from stereo_sashimi.commands.train.train_command import best_score
from stereo_sashimi.tasks.checkpoints import BestCheckpoint

OPTUNA = find_spec("hydra_plugins") is not None and find_spec("hydra_plugins.hydra_optuna_sweeper") is not None
OVERRIDES = (
    *("experiment=audio/sashimi-sample", "scheduler.total_steps=3", "scheduler.warmup_steps=1"),
    *("train.validate_before=false", "logger=none"),
)


def launch(runs: Path, data: Path, *overrides: str, code: int = 0) -> str:
    """`python train.py -m`, with the results under `runs`; what it said of errors."""
    fixed = (*OVERRIDES, f"dataset.path={data}", f"paths.runs={runs}")
    return finish("-m", *fixed, *overrides, code=code, cwd=runs.parent)[1]


def results(runs: Path) -> dict[str, dict]:
    """run.json of each job, by the name of its folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in runs.glob("sweeps/*/*/run.json")}


@pytest.mark.slow
def test_jobs_have_their_own_folders_and_one_bad_job_stops_no_other(small, stereo_folder, tmp_path):
    err = launch(tmp_path / "runs", stereo_folder, *small, "optimizer.lr=0.001,-1,0.002", code=1)
    made = results(tmp_path / "runs")
    assert sorted(made) == ["0", "2"]
    assert {result["status"] for result in made.values()} == {"finished"}
    scores = [made[job]["best_score"] for job in ("0", "2")]
    assert scores[0] != scores[1]
    for job, result in made.items():
        best = torch.load(next((tmp_path / "runs").glob(f"sweeps/*/{job}/checkpoints/best.ckpt")), weights_only=True)
        monitored = next(v for k, v in best["callbacks"].items() if "BestCheckpoint" in k)
        assert result["best_score"] == float(monitored["best_model_score"])
    # The command as a whole has failed, and says why in one line.
    assert "ValueError: optimizer.lr and optimizer.ssm_lr must be positive; got -1" in err


@pytest.mark.slow
@pytest.mark.skipif(not OPTUNA, reason="the extra `sweep` is not installed")
def test_optuna_finds_the_best_of_its_trials(small, stereo_folder, tmp_path):
    storage = f"sqlite:///{tmp_path / 'sweep.db'}"
    search = ("sweep=optuna", "hydra.sweeper.n_trials=2", f"hydra.sweeper.storage={storage}",
              "hydra.sweeper.study_name=s", "optimizer.weight_decay=choice(0.0, 0.1)")  # fmt: skip
    launch(tmp_path / "runs", stereo_folder, *small, *search)
    made = results(tmp_path / "runs")
    assert sorted(made) == ["0", "1"]
    found = OmegaConf.load(next((tmp_path / "runs").glob("sweeps/*/optimization_results.yaml")))
    assert found.best_value == min(result["best_score"] for result in made.values())
    assert set(found.best_params) == {"optimizer.lr", "optimizer.weight_decay"}
    assert 0.001 <= found.best_params["optimizer.lr"] <= 0.01
    assert (tmp_path / "sweep.db").is_file()


def test_the_search_composes():
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        if OPTUNA:
            cfg = compose("train", ["sweep=optuna"], return_hydra_config=True)
            assert "interval" in cfg.hydra.sweeper.params["optimizer.lr"]
            assert "sweep" not in OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        else:
            with pytest.raises(HydraException, match="hydra/sweeper"):
                compose("train", ["sweep=optuna"])


@pytest.fixture
def in_a_sweep(monkeypatch):
    monkeypatch.setattr(sweep, "sweeping", lambda: True)


def test_outside_a_sweep_nothing_is_asked_of_a_run():
    assert not errors.sweeping()
    assert sweep.objective({"best_score": None, "run": "runs/a"}) is None
    sweep.check_sweep(quiet_trainer(devices=2, strategy="ddp"))


@pytest.mark.usefixtures("in_a_sweep")
def test_a_job_has_an_objective_and_starts_no_processes():
    assert sweep.objective({"best_score": 1.5, "run": "runs/a"}) == 1.5
    with pytest.raises(ValueError, match=r"runs/a has no finite validation number.*trainer\.max_steps"):
        sweep.objective({"best_score": None, "run": "runs/a"})
    sweep.check_sweep(quiet_trainer(devices=1))
    with pytest.raises(ValueError, match=r"asks for 2.*trainer\.devices=1"):
        sweep.check_sweep(quiet_trainer(devices=2, strategy="ddp"))


def quiet_trainer(**options) -> pl.Trainer:
    return pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options)


@pytest.mark.parametrize("score", [None, float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_no_score(score, tmp_path):
    keeper = BestCheckpoint(dirpath=str(tmp_path), monitor="val/loss")
    keeper.best_model_score = None if score is None else torch.tensor(score)
    assert best_score(keeper) is None
    keeper.best_model_score = torch.tensor(2.5)
    assert best_score(keeper) == 2.5
    assert best_score(None) is None
