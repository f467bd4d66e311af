"""`logger=trackio`: numbers and settings in the run folder, and no host is asked, even with an account at hand."""

import socket
import sys

import pytest
from running import CATEGORICAL, saved

OPTIONS = (*CATEGORICAL[:-1], "logger=trackio", "trainer.max_steps=2")


@pytest.fixture
def asked(monkeypatch):
    """Addresses that anything tried to reach; none can be, and a token and a host are at hand."""
    addresses = []

    def refuse(*words, **_):
        addresses.append(words)
        raise OSError("there is no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "nobody/space")
    return addresses


def test_each_run_has_its_numbers_and_asks_no_host(train, tmp_path, asked):
    storage = pytest.importorskip("trackio.sqlite_storage", reason="trackio is not installed").SQLiteStorage
    for name in ("a", "b"):
        train(*OPTIONS, run=tmp_path / name)
        (run,) = storage.get_runs("stereo-sashimi")
        assert run == name
        assert list((tmp_path / name / "trackio").glob("*.db"))
        logs = storage.get_logs("stereo-sashimi", name)
        losses = {entry["step"]: entry["train/loss"] for entry in logs if "train/loss" in entry}
        assert sorted(losses) == [0, 1]
        assert all(0 < loss < 20 for loss in losses.values())
        assert any("val/loss" in entry for entry in logs)
        config = storage.get_run_config("stereo-sashimi", name)
        assert config["model"]["encoder"]["d_model"] == 4
        assert config["optimizer"] == saved(tmp_path / name)["hyper_parameters"]["optimizer"]
    assert asked == []
    with pytest.raises(OSError, match="no network"):
        socket.create_connection(("localhost", 1))
    assert asked


def test_without_trackio_the_extra_is_named(train, monkeypatch):
    for name in ("trackio", "trackio.run"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"pip install 'stereo-sashimi\[trackio\]'"):
        train(*OPTIONS)
