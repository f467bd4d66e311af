"""What the benchmarks share: their arguments, and the loop over configurations that prints what each one gave."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence

from benchmarks.clock import warn_if_busy
from benchmarks.config import Named, choose, described
from benchmarks.presets import Overrides, Presets
from benchmarks.process import MeasurementError, Unmeasured
from benchmarks.table import Row, Table


def add_arguments(parser: argparse.ArgumentParser, presets: Presets) -> None:
    """Which configurations to measure, and what to print."""
    parser.add_argument("overrides", nargs="*", help="as for train.py; key=a,b measures each")
    parser.add_argument("--preset", metavar="NAME", help=f"a list of configurations: {', '.join(presets)}")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="those of them whose names match, as 'dml-*'")
    parser.add_argument("--json", action="store_true", help="one JSON object a line in place of the table")


def chosen(
    given: argparse.Namespace, presets: Presets, overrides: Sequence[str] = (), base: Overrides = ()
) -> list[Named]:
    """The configurations that were asked for. A mistake in any of them is found before the first is measured.

    - `overrides`: behind those of the command line. `base`: in front of them where no preset is given.
    """
    found = choose(presets, given.preset, given.only, [*given.overrides, *overrides], base)
    for named in found:
        described(named.overrides)
    return found


def report(
    found: Sequence[Named],
    measure: Callable[[Named], Sequence[Row | Unmeasured]],
    load: list[float],
    table: Table | None,
) -> int:
    """Measure and print one configuration after the other; 1 if something could not be measured, else 0.

    - `measure`: the rows of a configuration; raises MeasurementError where there is none.
    - `load`: the machine's, before the start. `table`: None prints one JSON object a row.
    """
    warn_if_busy(load)
    headed, failed = False, False
    for named in found:
        try:
            rows = measure(named)
        except MeasurementError as error:
            rows = [Unmeasured("", str(error))]
        for row in rows:
            if isinstance(row, Unmeasured):
                what = f"{named.name}, {row.what}" if row.what else named.name
                print(f"{what}: not measured: {row.why}", file=sys.stderr, flush=True)
                failed = True
            elif table is None:
                print(json.dumps(row), flush=True)
            else:
                heading = [] if headed else table.heading(row, found)
                print("\n".join([*heading, *table.lines(row, found)]), flush=True)
                headed = True
    return int(failed)


def count(least: int) -> Callable[[str], int]:
    """A parser of integers of at least `least`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number of {least} or more; got {text!r}") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more; got {number}")
        return number

    return parse


def positive(text: str) -> float:
    """A parser of numbers above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0; got {text}")
    return number
