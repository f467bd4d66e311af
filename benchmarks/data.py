"""How fast the training loader gives audio; keys are those of train.py.

python -m benchmarks data dataset.path=/my/music loader.num_workers=0,2

Reads the files of dataset.path where they are, else generated ones (16-bit WAV of noise). Training needs as many
samples per second as `python -m benchmarks train` gives with the same keys. With loader.num_workers=0 loading is added
to every step; workers read while the step runs. Files that were read before come from the system's cache.
"""

import atexit
from collections.abc import Sequence
from itertools import chain, repeat
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import numpy as np

from benchmarks.configs import Composed, composed
from benchmarks.configs import check as check
from benchmarks.measure import Settings as Settings
from benchmarks.measure import Work
from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.train.build import build_datamodule

GENERATED_BYTES = 2**26
PCM_BYTES = 2


def prepare(words: Sequence[str], settings: Settings) -> dict[str, Work]:
    """A batch of the training loader, which begins again when it ends."""
    found = composed(words)
    datamodule = found.datamodule
    given = found.cfg.dataset.path != "" and datamodule.folder.is_dir()
    if not given:
        folder = Path(mkdtemp())
        atexit.register(rmtree, folder, ignore_errors=True)
        write_noise(folder, found)
        found.cfg.dataset.path, found.cfg.train.train_chunk_size = str(folder), None
        datamodule = build_datamodule(found.cfg)
    datamodule.setup("fit")
    batches = chain.from_iterable(repeat(datamodule.train_dataloader()))
    samples = next(batches).codes.numel()
    facts = {"source": str(datamodule.folder) if given else "generated", "num_workers": datamodule.num_workers}
    return {"batch": Work(lambda: next(batches), samples, "samples", facts)}


def write_noise(folder: Path, found: Composed) -> None:
    """Files of the rate and channels that the config expects: one for each row of a batch, of two clips at least."""
    datamodule = found.datamodule
    frames, channels, files = datamodule.sample_len, datamodule.d_input, datamodule.batch_size
    clips = max(2, min(200, GENERATED_BYTES // (files * frames * channels * PCM_BYTES)))
    random = np.random.default_rng(0)
    for split, names, length in (("train", files, clips), ("valid", 1, 1), ("test", 1, 1)):
        (folder / split).mkdir()
        for name in range(names):
            pcm = random.integers(-(2**15), 2**15, (length * frames, channels), dtype=np.int16)
            write_pcm(folder / split / f"noise{name}.wav", pcm, datamodule.spec.sample_rate)
