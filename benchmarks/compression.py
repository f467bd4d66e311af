"""Sizes and speeds of the codec's profiles beside FLAC and WavPack, on folders of recordings, each a kind of music.

python -m benchmarks.compression loops=data/sonicpi/test rock=music/rock

Bits a sample are of whole files, headers included, over all files of a folder; each was decoded again and compared.
Frames a second are the median over files of at least a second, of coding without verifying, and of decoding.
"""

import io
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile

import stereo_sashimi
from stereo_sashimi.codec import pcm_files
from stereo_sashimi.codec.coding import decode_blocks, encode_to
from stereo_sashimi.codec.container import Reader
from stereo_sashimi.pretrained import PROFILES

Coded = tuple[int, float, float]  # bytes, seconds of coding and of decoding


def main(words: Sequence[str]) -> None:
    """Print a table in Markdown."""
    coders = _coders()
    print("| kind | files | seconds |" + "".join(f" {name} |" for name in coders), flush=True)
    print("|---|---|---|" + "---|" * len(coders))
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in coders}
    for word in words:
        kind, _, folder = word.partition("=")
        files = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in pcm_files.SUFFIXES)
        samples, seconds, totals = 0, 0.0, dict.fromkeys(coders, 0)
        for path in files:
            with pcm_files.open_pcm(path) as pcm:
                frames, rate = pcm.frames, pcm.sample_rate
                samples, seconds = samples + frames * pcm.n_channels, seconds + frames / rate
            for name, coder in coders.items():
                size, coding, decoding = coder(path)
                totals[name] += size
                if frames >= rate and decoding:
                    speeds[name].append((frames / coding, frames / decoding))
        row = "".join(f" {8 * size / samples:.3f} |" for size in totals.values())
        print(f"| {kind} | {len(files)} | {seconds:.0f} |{row}", flush=True)
    for title, column in (("coding", 0), ("decoding", 1)):
        cells = [f"{statistics.median(s[column] for s in some):,.0f}" if some else "" for some in speeds.values()]
        print(f"| frames/s, {title} | | |" + "".join(f" {cell} |" for cell in cells))


def _coders() -> dict[str, Callable[[Path], Coded]]:
    coders: dict[str, Callable[[Path], Coded]] = {"FLAC -8": _flac}
    if shutil.which("wavpack") is not None:
        coders["WavPack -hhx6"] = _wavpack
    return coders | {name: _profile(model) for name, model in PROFILES.items()}


def _profile(name: str) -> Callable[[Path], Coded]:
    model = stereo_sashimi.load(name)

    def coded(path: Path) -> Coded:
        file = io.BytesIO()
        with pcm_files.open_pcm(path) as pcm:
            before = pcm.read(0, pcm.frames)
            started = time.perf_counter()
            size = encode_to(file, model, pcm, name=name, verify=False)
        done = time.perf_counter()
        blocks = list(decode_blocks(model, Reader(file, str(path))))
        end = time.perf_counter()
        if not np.array_equal(np.concatenate(blocks), before):
            raise SystemExit(f"{path} did not come back from profile {name}.")
        return size, done - started, end - done

    return coded


def _flac(path: Path) -> Coded:
    with pcm_files.open_pcm(path) as pcm:
        return pcm_files.flac_bytes(pcm), 0.0, 0.0


def _wavpack(path: Path) -> Coded:
    with tempfile.TemporaryDirectory() as folder:
        source, target, back = (Path(folder) / name for name in ("in.wav", "out.wv", "back.wav"))
        with pcm_files.open_pcm(path) as pcm:
            samples = pcm.read(0, pcm.frames)
            subtype = {8: "PCM_U8", 16: "PCM_16", 24: "PCM_24"}[pcm.bits]
            soundfile.write(source, samples << 32 - pcm.bits, pcm.sample_rate, subtype=subtype)
        times = [time.perf_counter()]
        for command in (
            ["wavpack", "-hhx6", str(source), "-o", str(target)],
            ["wvunpack", str(target), "-o", str(back)],
        ):
            subprocess.run([*command, "-q", "-y"], check=True)
            times.append(time.perf_counter())
        if back.read_bytes() != source.read_bytes():
            raise SystemExit(f"{path} did not come back from WavPack.")
        return target.stat().st_size, times[1] - times[0], times[2] - times[1]


if __name__ == "__main__":
    main(sys.argv[1:])
