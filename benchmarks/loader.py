"""The training loader by itself: how fast batches come, from files of the data set or from generated ones."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from omegaconf import DictConfig

from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.train.build import build_datamodule
from stereo_sashimi.data.datamodule import AudioDataModule

BATCHES = 200
# Of generated audio; a temporary folder may lie in memory.
GENERATED_BYTES = 2**26
PCM_BYTES = 2


def loader_samples_per_s(datamodule: AudioDataModule, batches: int = BATCHES) -> float:
    """Audio samples, of all channels, that the training loader gives per second: at most `batches` batches of a pass.

    The clock starts behind the first batch, when workers have started. Raises ValueError if there is no second one.
    """
    datamodule.setup("fit")
    iterator = iter(datamodule.train_dataloader())
    next(iterator)
    samples, start = 0, time.perf_counter()
    for batch in islice(iterator, batches):
        samples += batch.codes.numel()
    elapsed = time.perf_counter() - start
    if not samples:
        raise ValueError(
            f"dataset {datamodule.name!r} has one batch in an epoch, and a rate needs two. Use a smaller "
            "loader.batch_size or train.train_chunk_size=null."
        )
    return samples / elapsed


@contextmanager
def generated(cfg: DictConfig, datamodule: AudioDataModule, batches: int = BATCHES) -> Iterator[AudioDataModule]:
    """The same data module over noise in a temporary folder: 16-bit WAV, with the channels and the rate it expects."""
    frames, channels, rate = datamodule.sample_len, datamodule.d_input, datamodule.spec.sample_rate
    clip_bytes = frames * channels * PCM_BYTES
    # One file for each row of a batch, of two clips at least.
    files = datamodule.batch_size
    clips = max(2, min(batches + 1, GENERATED_BYTES // (files * clip_bytes)))
    random = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        for split, names, length in (("train", files, clips), ("valid", 1, 1), ("test", 1, 1)):
            (Path(folder) / split).mkdir()
            for name in range(names):
                pcm = random.integers(-(2**15), 2**15, (length * frames, channels), dtype=np.int16)
                write_pcm(Path(folder) / split / f"noise{name}.wav", pcm, rate)
        changed = cfg.copy()
        changed.dataset.path, changed.train.train_chunk_size = folder, None
        yield build_datamodule(changed)
