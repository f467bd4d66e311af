"""How fast this machine trains, reads, generates and codes: `python -m benchmarks <command> key=value ..`.

train     seconds and peak memory of a training step; with bench.profile=true also where the time goes
data      batches of the training loader
generate  frames of a generation engine
codec     the lossless codec, encoding and decoding
roofline  the layers of a training step against the fastest matrix product and copy of this machine

Keys are those of train.py, and those of the benchmark itself begin with `bench.`:

bench.repeats=5    rounds; the table has the median over all of them
bench.seconds=0.5  that a round takes at least
bench.json=true    one JSON object a line in place of the table

`key=a,b` measures both in turns, round by round, each in a process of its own (so that peak memory is its own), and
gives the speed of each against the first. All of them are in memory at the same time. What cannot be measured here is
named, and the exit code is 1. `python -m benchmarks <command> --help` says more; docs/performance.md has results.
"""

import json
import os
import sys

import torch

from benchmarks import codec, data, generate, roofline, train
from benchmarks.configs import combinations, split_settings
from benchmarks.measure import compare, table
from stereo_sashimi.commands.shared.errors import speak

COMMANDS = {"train": train, "data": data, "generate": generate, "codec": codec, "roofline": roofline}


@speak
def main(arguments: list[str] | None = None) -> None:
    """Run one benchmark; exit with 1 if something could not be measured."""
    words = sys.argv[1:] if arguments is None else arguments
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        print(__doc__)
        return
    if name not in COMMANDS:
        raise ValueError(f"there is no benchmark {name!r}; choose {', '.join(COMMANDS)}.")
    module = COMMANDS[name]
    if {"-h", "--help"} & set(words):
        print(module.__doc__)
        return
    variants = {label: split_settings(some, module.Settings) for label, some in combinations(words[1:]).items()}
    # A mistake in any of them is found before the first is measured.
    for given, settings in variants.values():
        module.check(given, settings)
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 2:
        print(f"warning: load {load:.1f} on {cores} cores: this machine is busy, times are too long", file=sys.stderr)
    rows, failures = compare(module.prepare, variants)
    if next(iter(variants.values()))[1].json:
        print(*map(json.dumps, rows), sep="\n")
    elif rows:
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {load:.1f} before the start\n")
        print(table(rows))
    for label, reason in failures.items():
        print(f"{label}: not measured: {reason}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
