"""Seconds, memory and audio per second of a training step, room by room, against the floor of this machine.

bench train experiment=audio/sashimi-dml-musdb18stereo dataset.sample_len=8192 trainer.precision=bf16-mixed
bench train --preset stereo --json
bench train experiment=audio/sashimi-musdb18mono dataset.bits=8 backend=krylov,reference

Arguments are those of train.py; `key=a,b` measures each. Needs no data: the codes are random. Every configuration runs
in a process of its own, one after the other. What is measured and how: docs/performance.md.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from lightning_fabric.utilities.exceptions import MisconfigurationException

from stereo_sashimi.app.bench.clock import load_average, warn_if_busy
from stereo_sashimi.app.bench.config import PRESETS, Named, choose, described
from stereo_sashimi.app.bench.measure import Row, measure
from stereo_sashimi.app.bench.table import train_heading, train_lines


class MeasurementError(RuntimeError):
    """A configuration could not be measured: not enough memory, no such device or backend, a process that died."""


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """What all benchmarks take: which configurations, how often, what to print."""
    parser.add_argument("overrides", nargs="*", help="as for train.py; key=a,b measures each")
    parser.add_argument("--preset", metavar="NAME", help=f"a list of configurations: {', '.join(PRESETS)}")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="those of them whose names match, as 'dml-*'")
    parser.add_argument("--json", action="store_true", help="one JSON object a line in place of the table")
    parser.add_argument("--repeats", type=_count(1), default=5, help="steps that are timed (default 5)")
    parser.add_argument("--warmup", type=_count(0), default=1, help="steps before them that are not (default 1)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bench train`."""
    add_common_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Measure and print each configuration; 1 if one of them could not be measured, else 0."""
    chosen = checked(given)
    load = load_average()
    warn_if_busy(load)
    failed = 0
    for number, named in enumerate(chosen):
        try:
            row = in_fresh_process(measure, named, warmup=given.warmup, repeats=given.repeats, load=load)
        except MeasurementError as error:
            print(f"{named.name}: not measured: {error}", file=sys.stderr, flush=True)
            failed += 1
            continue
        if given.json:
            print(json.dumps(row), flush=True)
        else:
            heading = [] if number else train_heading(row, chosen)
            print("\n".join([*heading, *train_lines(row, chosen)]), flush=True)
    return int(failed > 0)


def checked(given: argparse.Namespace) -> list[Named]:
    """The configurations that were asked for. A mistake in any of them is found before the first is measured."""
    chosen = choose(given.preset, given.only, given.overrides)
    for named in chosen:
        described(named.overrides)
    return chosen


def in_fresh_process(function: Callable[..., Row], named: Named, **options: Any) -> Row:
    """`function(named, **options)` in a new Python process. Raises MeasurementError for what this machine cannot do."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        try:
            result = pool.submit(attempt, partial(function, named, **options)).result()
        except BrokenProcessPool as error:
            raise MeasurementError("its process was killed, most likely because memory ran out.") from error
    if isinstance(result, str):
        raise MeasurementError(result)
    return result


def attempt(work: Callable[[], Row]) -> Row | str:
    """The row, or in words why there is none: not every exception survives the way between processes."""
    try:
        return work()
    except (ValueError, OSError, RuntimeError, MemoryError, ImportError, MisconfigurationException) as error:
        return f"{type(error).__name__}: {error}"


def _count(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more; got {number}")
        return number

    return parse
