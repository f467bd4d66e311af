"""What the files of a model are called, and the error of files that are none. Without torch, to be quick."""

import re
from pathlib import Path

# An exported model: its description and its weights. The card is for people, and need not be there.
EXPORTED = ("config.json", "model.safetensors")
CARD = "README.md"
# In front of the name of a model on the Hugging Face Hub.
HUB = "hub:"
_COMMIT = re.compile(r"models--(.+?)--(.+)/snapshots/([0-9a-f]{40})")


class CheckpointError(ValueError):
    """A file that is no checkpoint or exported model of this package, or a damaged one. The message names the file."""


def origin(path: Path) -> str | None:
    """`user/name@commit` of a file in the cache of huggingface_hub, None for any other file."""
    found = _COMMIT.fullmatch("/".join(path.parent.parts[-3:]))
    return f"{found[1]}/{found[2]}@{found[3]}" if found else None
