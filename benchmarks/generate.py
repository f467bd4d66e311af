"""Frames per second of generation, engine by engine, against the reference engine and the floor of this machine.

bench generate experiment=audio/sashimi-dml-musdb18stereo encoder.merge=sum
bench generate --preset generate --only 'mono*' --json
bench generate experiment=audio/sashimi-musdb18mono dataset.bits=8 --engine compiled --batch 1,8
bench generate --checkpoint runs/mine --batch 1,4,16 --prefill

Arguments are those of train.py, of which only the model, `trainer` (device, precision), `backend` and
`loader.batch_size` (streams, default 1) play a part; `key=a,b` measures each. The weights are random: no checkpoint is
needed. Every configuration runs in a process of its own, with all its engines. What is measured and how:
docs/performance.md.
"""

import argparse

from benchmarks import command, process
from benchmarks.clock import load_average
from benchmarks.config import Named
from benchmarks.generation import Settings, measure_generation
from benchmarks.presets import GENERATE, ONE
from benchmarks.process import Unmeasured
from benchmarks.table import GENERATE_TABLE, Row
from stereo_sashimi.commands.shared.runs import find_checkpoint
from stereo_sashimi.generation.engines.engine import ENGINES

# What may stand beside --checkpoint: the rest is in the file.
BESIDE_CHECKPOINT = ("trainer", "backend", "loader.batch_size")
PREFILL_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bench generate`."""
    command.add_arguments(parser, GENERATE)
    parser.add_argument("--checkpoint", metavar="PATH", help="a trained model in place of one with random weights")
    parser.add_argument(
        "--engine",
        type=_engines,
        default=("auto",),
        metavar="NAMES",
        help=f"of auto, {', '.join(ENGINES)}, with commas (default auto); reference is always measured",
    )
    parser.add_argument("--batch", type=_batches, metavar="N", help="streams at once, as 1,8: loader.batch_size")
    parser.add_argument(
        "--seconds", type=command.positive, default=0.5, help="that a timed window takes at least (default 0.5)"
    )
    parser.add_argument("--repeats", type=command.count(1), default=5, help="windows that are timed (default 5)")
    parser.add_argument(
        "--prefill",
        type=command.positive,
        nargs="?",
        const=PREFILL_SECONDS,
        metavar="SECONDS",
        help=f"how fast a prompt of so many seconds (default {PREFILL_SECONDS:g}) is read, too",
    )


def run(given: argparse.Namespace) -> int:
    """Measure and print each configuration; 1 if an engine that was asked for could not be measured, else 0."""
    checkpoint = None if given.checkpoint is None else _checkpoint(given)
    batch = [] if given.batch is None else [f"loader.batch_size={given.batch}"]
    found = command.chosen(given, GENERATE, batch, (ONE,))
    load = load_average()
    settings = Settings(given.engine, checkpoint, given.seconds, given.repeats, given.prefill)

    def rows(named: Named) -> list[Row | Unmeasured]:
        return process.in_fresh_process(measure_generation, named, settings, load)

    return command.report(found, rows, load, None if given.json else GENERATE_TABLE)


def _checkpoint(given: argparse.Namespace) -> str:
    """The file that --checkpoint names; raises ValueError for another description of a model beside it."""
    if given.preset is not None:
        raise ValueError("--checkpoint is one model, --preset a list of others. Leave one of them out.")
    for word in given.overrides:
        key = word.partition("=")[0].lstrip("+~")
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in BESIDE_CHECKPOINT):
            raise ValueError(
                f"{word} has no effect beside --checkpoint, which says what the model is. Leave it out; "
                f"{', '.join(BESIDE_CHECKPOINT)} may stay."
            )
    return str(find_checkpoint(given.checkpoint, "", "--checkpoint"))


def _engines(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name != "auto" and name not in ENGINES:
            raise argparse.ArgumentTypeError(f"must be of auto, {', '.join(ENGINES)}; got {name!r}")
    return names


def _batches(text: str) -> str:
    at_least_one = command.count(1)
    return ",".join(str(at_least_one(number)) for number in dict.fromkeys(text.split(",")))
