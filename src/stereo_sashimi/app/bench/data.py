"""How fast the training loader gives audio, against what training takes.

bench data experiment=audio/sashimi-dml-musdb18stereo
bench data dataset.path=/my/music --eats 20000 loader.num_workers=0,2

Arguments are those of train.py; `key=a,b` measures each. The files of the data set are read where there are any, else
generated ones. What training takes is measured with the same configuration, or given with --eats. The share is that of
a step which the loader takes in the main process (loader.num_workers=0); workers read while the step runs, and up to
100 % it does not wait for them.
"""

import argparse
import json
import sys
from contextlib import nullcontext

from stereo_sashimi.app.bench import train
from stereo_sashimi.app.bench.clock import load_average, warn_if_busy
from stereo_sashimi.app.bench.config import Named, described
from stereo_sashimi.app.bench.loader import generated, loader_samples_per_s
from stereo_sashimi.app.bench.measure import Row, measure
from stereo_sashimi.app.bench.table import data_heading, data_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bench data`."""
    train.add_common_arguments(parser)
    parser.add_argument(
        "--eats", type=_rate, metavar="N", help="audio samples per second that training takes, instead of measuring it"
    )


def run(given: argparse.Namespace) -> int:
    """Measure and print each configuration; 1 if one of them could not be measured, else 0."""
    chosen = train.checked(given)
    load = load_average()
    warn_if_busy(load)
    failed = 0
    for number, named in enumerate(chosen):
        try:
            eats = (
                given.eats
                or train.in_fresh_process(
                    measure, named, warmup=given.warmup, repeats=given.repeats, load=load, rooms=False
                )["audio_samples_per_s"]
            )
            row = train.in_fresh_process(measure_loader, named, eats=eats, load=load)
        except train.MeasurementError as error:
            print(f"{named.name}: not measured: {error}", file=sys.stderr, flush=True)
            failed += 1
            continue
        if given.json:
            print(json.dumps(row), flush=True)
        else:
            print("\n".join([*([] if number else [data_heading(chosen)]), data_line(row, chosen)]), flush=True)
    return int(failed > 0)


def measure_loader(named: Named, *, eats: float, load: list[float]) -> Row:
    """The row of one configuration; `eats`: audio samples per second that training takes."""
    cfg, datamodule, _ = described(named.overrides)
    real = cfg.dataset.path != "" and datamodule.folder.is_dir()
    with nullcontext(datamodule) if real else generated(cfg, datamodule) as loaded:
        rate = loader_samples_per_s(loaded)
    return {
        "config": named.name,
        "overrides": list(named.overrides),
        "num_workers": datamodule.num_workers,
        "batch": datamodule.batch_size,
        "frames": datamodule.sample_len,
        "channels": datamodule.d_input,
        "source": str(datamodule.folder) if real else "generated",
        "loader_samples_per_s": rate,
        "training_samples_per_s": eats,
        "loading_share_of_step": eats / rate,
        "load": load,
    }


def _rate(text: str) -> float:
    rate = float(text)
    if not rate > 0:
        raise argparse.ArgumentTypeError(f"must be above 0; got {text}")
    return rate
