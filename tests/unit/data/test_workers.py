"""Loader workers and signals: they leave Ctrl-C and SIGTERM to their parent, and end when it says so."""

import runpy
import signal
import subprocess

import numpy as np
import pytest

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.data import loader
from stereo_sashimi.data.datamodule import AudioDataModule


@pytest.fixture
def data(tmp_path) -> AudioDataModule:
    for split in ("train", "valid", "test"):
        (tmp_path / split).mkdir()
        write_pcm(tmp_path / split / "a.wav", np.zeros((640, 1), np.int16), 8000)
    data = AudioDataModule(name="mine", path=str(tmp_path), sample_len=20, bits=8, num_workers=1)
    data.setup("fit")
    return data


@pytest.mark.parametrize("name", ["train_dataloader", "val_dataloader"])
def test_a_worker_ends_when_its_parent_terminates_it_and_at_no_other_signal(data, name):
    batches = iter(getattr(data, name)())
    (worker,) = batches._workers
    # At once, and again once it surely runs: a signal to the process group may come at any moment.
    for _ in range(2):
        for name in ("INT", "TERM"):
            subprocess.run(["/bin/sh", "-c", f"kill -{name} {worker.pid}"], check=True)
        next(batches)
    assert worker.is_alive()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    # As multiprocessing does at the exit of a process that something still holds this iterator in.
    worker.terminate()
    worker.join(timeout=10)
    assert worker.exitcode == 0


def test_a_system_on_which_workers_answer_signals(data, monkeypatch):
    # macOS and Windows; the class is another copy, as signals are looked up once.
    monkeypatch.delattr(signal, "sigwaitinfo")
    module = runpy.run_path(loader.__file__)
    for name in ("pthread_sigmask", "SIGHUP"):
        monkeypatch.delattr(signal, name)
    module["obey_parent"](0)
    assert list(module["Loader"](range(4), batch_size=None)) == [0, 1, 2, 3]
