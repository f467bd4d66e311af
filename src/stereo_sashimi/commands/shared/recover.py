"""A damaged checkpoint is not the end of a run: name the one beside it that can be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stereo_sashimi.commands.shared.overrides import override
from stereo_sashimi.commands.shared.runs import relative
from stereo_sashimi.models.checkpoint import CheckpointError, read

# The order in which they are offered: what was written before last.ckpt first.
NAMES = ("previous.ckpt", "last.ckpt", "best.ckpt")


@contextmanager
def offering(path: str | Path, key: str = "checkpoint") -> Iterator[None]:
    """Add to a CheckpointError about `path` which checkpoint of the same folder is whole, and the override for it."""
    try:
        yield
    except CheckpointError as error:
        found = intact(Path(path))
        if found is None:
            raise
        other, step = found
        message = f"{error}\n  {other.name} beside it is whole (step {step}). Use {override(key, relative(other))}"
        raise CheckpointError(message) from error


def intact(path: Path) -> tuple[Path, int] | None:
    """The first other checkpoint in the folder of `path` that can be read as a whole, and its step."""
    for name in NAMES:
        other = path.with_name(name)
        if other.name == path.name or not other.is_file():
            continue
        try:
            return other, int(read(other)["global_step"])
        except (CheckpointError, KeyError, TypeError):
            continue
    return None
