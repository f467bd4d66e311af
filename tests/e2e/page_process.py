"""`stereo-sashimi page` as a process on a free port, for the tests that ask it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from running import ROOT

FIXED = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@contextmanager
def served(folder: Path, *words: str, silent: bool = True) -> Iterator[str]:
    """The address of a page; behind the block Ctrl-C has ended it, with its exit code and nothing left behind.

    `silent`: it has printed nothing else.
    """
    temporary = folder / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "stereo_sashimi", "page", "port=null", "browser=false", *words],
        cwd=folder, env=os.environ | FIXED | {"TMPDIR": str(temporary)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.match(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert found, process.communicate()
        yield found[0]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert not silent or (out, err.strip()) == ("", "The page has ended."), out + err
    assert not list(temporary.rglob("stereo-sashimi-page-*"))
