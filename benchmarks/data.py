"""How fast the training loader gives audio, against what training takes.

bench data experiment=audio/sashimi-dml-musdb18stereo
bench data dataset.path=/my/music --eats 20000 loader.num_workers=0,2

Arguments are those of train.py; `key=a,b` measures each. The files of the data set are read where there are any, else
generated ones. What training takes is measured with the same configuration, or given with --eats. The share is that of
a step which the loader takes in the main process (loader.num_workers=0); workers read while the step runs, and up to
100 % it does not wait for them.
"""

import argparse
from contextlib import nullcontext

from benchmarks import command, process, train
from benchmarks.clock import load_average
from benchmarks.config import Named, described
from benchmarks.loader import generated, loader_samples_per_s
from benchmarks.measure import measure
from benchmarks.presets import TRAIN
from benchmarks.table import DATA_TABLE, Row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bench data`."""
    train.add_arguments(parser)
    parser.add_argument(
        "--eats",
        type=command.positive,
        metavar="N",
        help="audio samples per second that training takes, instead of measuring it",
    )


def run(given: argparse.Namespace) -> int:
    """Measure and print each configuration; 1 if one of them could not be measured, else 0."""
    found = command.chosen(given, TRAIN)
    load = load_average()

    def rows(named: Named) -> list[Row]:
        eats = given.eats
        if eats is None:
            options = {"warmup": given.warmup, "repeats": given.repeats, "load": load, "rooms": False}
            eats = process.in_fresh_process(measure, named, **options)["audio_samples_per_s"]
        return [process.in_fresh_process(measure_loader, named, eats=eats, load=load)]

    return command.report(found, rows, load, None if given.json else DATA_TABLE)


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
