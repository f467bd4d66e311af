"""Samples per second of the lossless codec, encoding (without verifying) and decoding.

bench codec
bench codec --checkpoint runs/mine --lanes 1,8,32 --json
bench codec --audio song.wav --seconds 20

A sample is one code of one channel. The recording is drawn from the model (of --draw seconds, repeated), which is
what it codes best, or read from --audio. Loops are compiled before anything is timed.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch

from benchmarks import command
from benchmarks.clock import load_average, peak_bytes, repeated, warn_if_busy
from benchmarks.table import Row
from stereo_sashimi.codec import decode, encode
from stereo_sashimi.codec import pcm_files as files
from stereo_sashimi.codec.coding import DEFAULT_LANES
from stereo_sashimi.codec.container import MODES, unpack
from stereo_sashimi.commands.shared.runs import find_checkpoint, name_of
from stereo_sashimi.generation.sampling import generate
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.pretrained import NAME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bench codec`."""
    parser.add_argument("--checkpoint", metavar="PATH", default=NAME, help="the model (default: %(default)s)")
    parser.add_argument("--audio", metavar="FILE", help="a .wav or .flac file in the model's format")
    parser.add_argument("--seconds", type=command.positive, default=12.0, help="of the recording (default 12)")
    parser.add_argument("--draw", type=command.positive, default=1.0, help="seconds that are drawn (default 1)")
    parser.add_argument("--lanes", default=str(DEFAULT_LANES), metavar="N", help="as 1,8,32 (default %(default)s)")
    parser.add_argument("--repeats", type=command.count(1), default=3, help="of each (default 3)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line in place of the table")


def run(given: argparse.Namespace) -> int:
    """Measure and print a row for each number of lanes."""
    load_before = load_average()
    warn_if_busy(load_before)
    path = find_checkpoint(given.checkpoint, "", "--checkpoint")
    model = load(path)
    lanes = [command.count(1)(word) for word in given.lanes.split(",")]
    pcm = _recording(model, given)
    for i, number in enumerate(lanes):
        row = measure(model, pcm, number, given.repeats) | {"checkpoint": name_of(path), "load": load_before}
        if given.json:
            print(json.dumps(row), flush=True)
            continue
        if not i:
            print(f"{row['checkpoint']}  {row['samples']:,} samples  {row['threads']} threads  load {load_before}")
            print(f"{'lanes':>6}{'encode samples/s':>18}{'decode samples/s':>18}{'bits/sample':>13}{'peak GiB':>10}")
        print(
            f"{number:>6}{row['encode_samples_per_s']:>18,.0f}{row['decode_samples_per_s']:>18,.0f}"
            f"{row['bits_per_sample']:>13.3f}{row['peak_gib']:>10.2f}"
        )
    return 0


def measure(model: LanguageModel, pcm: np.ndarray, lanes: int, repeats: int) -> Row:
    """The row of one number of lanes to encode with, as decoders choose theirs; medians."""
    cpu = torch.device("cpu")
    data = encode(model, pcm[: lanes * 64], lanes=lanes, segment_frames=64)
    decode(model, data)
    encoded = repeated(lambda: encode(model, pcm, lanes=lanes, verify=False), cpu, warmup=0, repeats=repeats)
    data = encode(model, pcm, lanes=lanes, verify=False)
    decoded = repeated(lambda: decode(model, data), cpu, warmup=0, repeats=repeats)
    modes = [MODES[segment.mode] for segment in unpack(data)[1]]
    return {
        "lanes": lanes,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "samples": pcm.size,
        "repeats": repeats,
        "segments": {mode: modes.count(mode) for mode in MODES},
        "encode_samples_per_s": pcm.size / float(np.median(encoded)),
        "decode_samples_per_s": pcm.size / float(np.median(decoded)),
        "bits_per_sample": 8 * len(data) / pcm.size,
        "peak_gib": peak_bytes(cpu) / 2**30,
    }


def _recording(model: LanguageModel, given: argparse.Namespace) -> np.ndarray:
    part = generate(model, given.draw) if given.audio is None else files.read(Path(given.audio), model.spec).pcm
    frames = round(given.seconds * model.spec.sample_rate)
    return np.tile(part, (-(-frames // len(part)), 1))[:frames]
