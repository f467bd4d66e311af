"""scripts/slurm/train.sbatch with stand-ins for srun and scontrol: what it starts, when it asks for another slot."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["experiment=audio/x", "dataset.path=my music"]
RUN = "runs/sashimi-17"


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (143, True)])
@pytest.mark.parametrize("saved", [False, True])
def test_a_job(tmp_path, code, requeued, saved):
    for name in ("srun", "scontrol"):
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f'#!/bin/bash\nprintf "%s\\n" "$OMP_NUM_THREADS" "$@" > {name}.txt\nexit {code}\n')
        tool.chmod(0o755)
    last = tmp_path / RUN / "checkpoints" / "last.ckpt"
    if saved:
        last.parent.mkdir(parents=True)
        last.touch()
    variables = {"SLURM_JOB_NAME": "sashimi", "SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "8"}
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "slurm" / "train.sbatch"), *WORDS],
        cwd=tmp_path,
        env=os.environ | variables | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (code, "")
    resume = [f"checkpoint={RUN}/checkpoints/last.ckpt"] if saved else []
    started = ["8", "python", "train.py", *WORDS, f"hydra.run.dir={RUN}", *resume]
    assert (tmp_path / "srun.txt").read_text().splitlines() == started
    asked = tmp_path / "scontrol.txt"
    assert asked.exists() == requeued
    assert not requeued or asked.read_text().splitlines() == ["8", "requeue", "17"]
