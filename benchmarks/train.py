"""Seconds, memory and audio per second of a training step, room by room, against the floor of this machine.

bench train experiment=audio/sashimi-dml-musdb18stereo dataset.sample_len=8192 trainer.precision=bf16-mixed
bench train --preset stereo --json
bench train experiment=audio/sashimi-musdb18mono dataset.bits=8 backend=krylov,reference

Arguments are those of train.py; `key=a,b` measures each. Needs no data: the codes are random. Every configuration runs
in a process of its own, one after the other. What is measured and how: docs/performance.md.
"""

import argparse

from benchmarks import command, process
from benchmarks.clock import load_average
from benchmarks.config import Named
from benchmarks.measure import measure
from benchmarks.presets import TRAIN
from benchmarks.table import TRAIN_TABLE, Row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bench train`."""
    command.add_arguments(parser, TRAIN)
    parser.add_argument("--repeats", type=command.count(1), default=5, help="steps that are timed (default 5)")
    parser.add_argument("--warmup", type=command.count(0), default=1, help="steps before them that are not (default 1)")


def run(given: argparse.Namespace) -> int:
    """Measure and print each configuration; 1 if one of them could not be measured, else 0."""
    found = command.chosen(given, TRAIN)
    load = load_average()

    def rows(named: Named) -> list[Row]:
        options = {"warmup": given.warmup, "repeats": given.repeats, "load": load}
        return [process.in_fresh_process(measure, named, **options)]

    return command.report(found, rows, load, None if given.json else TRAIN_TABLE)
