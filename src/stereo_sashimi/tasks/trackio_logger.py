"""Numbers and settings of a run for trackio's dashboard, in a folder of the run; no account, and no host is asked."""

import io
import uuid
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

INSTALL = "pip install 'stereo-sashimi[trackio]'"


class TrackioLogger(Logger):
    """Lightning's logger for trackio, which has none of its own.

    `project`: under which runs are gathered. `save_dir`: folder of trackio's files. `run`: its name there; None: that
    of the folder around `save_dir`.
    Raises ValueError, at the first thing to log, where trackio is not installed.
    """

    def __init__(self, project: str, save_dir: str, run: str | None = None) -> None:
        super().__init__()
        self._project = project
        self._folder = Path(save_dir).resolve()
        self._name = self._folder.parent.name if run is None else run
        self._id = uuid.uuid4().hex
        self._config: dict[str, Any] = {}
        self._run: Any = None

    @property
    def name(self) -> str:
        """The project."""
        return self._project

    @property
    def version(self) -> str:
        """The run."""
        return self._name

    @property
    def save_dir(self) -> str:
        """The folder of trackio's files."""
        return str(self._folder)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Keep settings; they are written with the numbers that come next."""
        self._config |= vars(params) if isinstance(params, Namespace) else dict(params)
        self._end()
        self._start()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write numbers of a step."""
        self._start()
        self._run.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Wait until everything is written; what is logged afterwards joins the same run."""
        self._end()

    def _start(self) -> None:
        if self._run is None:
            with _local(self._folder) as run_of:
                options = {"auto_log_gpu": False, "auto_log_cpu": False}
                self._run = run_of(None, self._project, None, self._name, self._id, config=self._config, **options)

    def _end(self) -> None:
        if self._run is not None:
            # It speaks of an upload, which there is none of.
            with redirect_stdout(io.StringIO()):
                self._run.finish()
            self._run = None


@contextmanager
def _local(folder: Path) -> Iterator[Any]:
    """The class of trackio's runs, as it writes into `folder`.

    `trackio.init` would heed variables that name a host, and the class asks whose token this machine has.
    """
    try:
        from huggingface_hub import constants
        from trackio import sqlite_storage, utils
        from trackio.run import Run
    except ModuleNotFoundError as error:
        raise ValueError(f"logger=trackio needs trackio, which is not installed: {INSTALL}.") from error
    # TRACKIO_DIR is read once in a process, and a sweep has several runs in one.
    utils.TRACKIO_DIR = sqlite_storage.TRACKIO_DIR = folder
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield Run
    finally:
        constants.HF_HUB_OFFLINE = before
