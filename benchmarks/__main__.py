"""How fast this machine trains and generates, and what holds it up: `python -m benchmarks <command>`.

train     seconds, memory and audio per second of a training step, room by room, against the floor of this machine
data      how fast the loader reads, against what training takes
generate  frames per second of each generation engine, against the reference engine and the floor of this machine
codec     samples per second of the lossless codec

docs/performance.md says how all of it is measured. Each command has `--help`.
"""

import argparse
import sys

from benchmarks import codec, data, generate, train
from stereo_sashimi.commands.shared.errors import speak

PROGRAM = "python -m benchmarks"
# Each module has `add_arguments` for its parser and `run` for the parsed arguments; `run` returns the exit code.
COMMANDS = {"train": train, "data": data, "generate": generate, "codec": codec}


@speak
def main(arguments: list[str] | None = None) -> None:
    """Run one benchmark; exit with 1 if a configuration could not be measured."""
    door = _parser(PROGRAM, __doc__)
    door.add_argument("command", choices=COMMANDS)
    door.add_argument("arguments", nargs=argparse.REMAINDER, help="of the command: <command> --help")
    given = door.parse_args(arguments)
    command = COMMANDS[given.command]
    parser = _parser(f"{PROGRAM} {given.command}", command.__doc__)
    command.add_arguments(parser)
    # Options and overrides may come in any order.
    sys.exit(command.run(parser.parse_intermixed_args(given.arguments)))


def _parser(program: str, description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


if __name__ == "__main__":
    main()
