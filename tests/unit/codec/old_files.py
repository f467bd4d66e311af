"""The recordings and files of tests/golden/codec, as `python old_files.py <new folder>` made them.

Files there stay as they are, for good. A new version of the format gets a new folder beside them.
"""

import sys
from pathlib import Path

import numpy as np
from codec_models import small

import stereo_sashimi
from stereo_sashimi.pretrained import MODELS
from stereo_sashimi.spec import AudioSpec

FOLDER = Path(__file__).parents[2] / "golden/codec"
# Name of the file and of its model, frames, frames of a segment, and by how many bits the tune is softer than its most.
FILES = {
    "pretrained": (4410, 1024, 0),
    "fast-1": (13230, 2048, 0),
    "default-1": (13230, 2048, 0),
    "best-1": (8820, 2048, 0),
    "mono-8-categorical": (1500, 256, 1),
    "stereo-16-separate": (1500, 256, 3),
    "stereo-16-dml-coupled": (1500, 256, 3),
}


def tune(frames: int, segment: int, softer: int, spec: AudioSpec) -> np.ndarray:
    """Three plucked strings and a little noise in integer arithmetic; the second segment is silent, the third noise.

    int16 (frames, channels), for 8 bits multiples of 256.
    """
    t = np.arange(frames)[:, None]
    state, noise = 1, np.zeros((frames, 2), np.int64)
    for i in range(2 * frames):
        state = (state * 1103515245 + 12345) % 2**31
        noise.flat[i] = (state >> 15) - 32768
    wave = noise >> 12
    for i, period in enumerate((200, 150, 117)):
        # The channels hear a string at other strengths.
        age = (t + 1700 * i) % 5000
        triangle = np.abs(4 * (t % period) - 2 * period) - period
        wave = wave + triangle * (5000 - age) * np.array([3 - i, 1 + i]) // 900
    wave >>= softer
    wave[segment : 2 * segment] = 0
    wave[2 * segment : 3 * segment] = noise[2 * segment : 3 * segment]
    pcm = wave[:, : spec.n_channels].clip(-32768, 32767).astype(np.int16)
    return pcm >> 8 << 8 if spec.bits == 8 else pcm


def make(folder: Path) -> None:
    """Models, files and the SHA-256 of the samples."""
    folder.mkdir()
    for name, (frames, segment, softer) in FILES.items():
        if name not in MODELS:
            # Embeddings side by side make the coupled one twice as wide.
            d_model = 4 if name.endswith("coupled") else 8
            stereo_sashimi.save(small(name, d_model, d_state=16), folder / name)
        model = stereo_sashimi.load(name if name in MODELS else folder / name)
        pcm = tune(frames, segment, softer, model.spec)
        (folder / f"{name}.ssc").write_bytes(stereo_sashimi.encode(model, pcm, segment_frames=segment))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
