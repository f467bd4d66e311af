"""The same loops for AVX2 with fused products, and for a processor that has neither, as this one would run them."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

on_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="names processors of x86-64")


def printed_on_each_processor(script: str, cache: Path) -> set[str]:
    """What a script prints where the compiled loops are made for this processor, and for those two."""
    results = set()
    for cpu in ("", "haswell", "nehalem"):
        environment = os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CACHE_DIR": str(cache / f"cache-{cpu}")}
        if not cpu:
            del environment["NUMBA_CPU_NAME"]
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout) > 10_000
        results.add(done.stdout)
    return results
