"""When freed memory is kept for the next step: large batches on Linux with glibc, unless the environment decides."""

import platform
import sys

import pytest

from stereo_sashimi.commands.train.allocator import keep_freed_memory
from tiny_config import tiny_config


@pytest.fixture
def model():
    return tiny_config().build()


@pytest.fixture
def nothing_chosen(monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("nothing_chosen")
@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="this is about glibc")
def test_it_begins_where_tensors_are_mapped(model):
    # Width 8, twice that inside feed-forward layers, 4 bytes a number.
    assert not keep_freed_memory(model, 2**25 // 64)
    assert keep_freed_memory(model, 2**25 // 64 + 1)


@pytest.mark.usefixtures("nothing_chosen")
def test_the_environment_has_its_way(model, monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory(model, 2**30)
