"""The one door to pickled files: a zip archive of `torch.save` is measured before anything of it is built.

`torch.load(weights_only=True)` runs no code, but a few bytes may still tell it to copy, hash or inflate gigabytes. So
members must be stored as they are and together no larger than the file, `data.pkl` is walked without building what it
describes, and what was built is counted with repeats: a list that holds one list twice costs whoever reads it twice.
"""

import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from stereo_sashimi.models.model_files import CheckpointError
from stereo_sashimi.models.pickle_walk import CHARACTERS, MAX_VALUES, TooLarge, refused_names

# An honest pickle has some 120 bytes for a tensor, a directory 62.
MAX_PICKLE_BYTES = 1 << 24
MAX_DIRECTORY_BYTES = 1 << 23
MAX_DEPTH = 64


def read_archive(path: str | Path, advice: str, stand_ins: Mapping[str, Any] | None = None) -> Any:
    """The content of a file that `torch.save` wrote: tensors, on the CPU, and plain fields.

    - `advice`: what to do about a file that names pickled code; the end of that message.
    - `stand_ins`: further names that the file may hold, and what is put in the place of each.

    Raises CheckpointError, naming the file, if it is missing, damaged, names anything else, or would cost memory or
    time out of proportion to its size.
    """
    path, stand_ins = Path(path), stand_ins or {}
    if not path.is_file():
        raise CheckpointError(
            f"There is no checkpoint {path}. Give a .ckpt file (checkpoint=<run>/checkpoints/last.ckpt)."
        )
    # torch.save writes zip archives; anything else would reach the unpickler of torch's old format.
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated or not a checkpoint (no zip archive).")
    try:
        refused = refused_names(_pickle(path), stand_ins)
        if not refused:
            with torch.serialization.safe_globals([(thing, name) for name, thing in stand_ins.items()]):
                content = torch.load(path, map_location="cpu", weights_only=True)
            check_size(content)
    except TooLarge as error:
        raise CheckpointError(f"{path} is no honest checkpoint and is refused: {error}.") from error
    except Exception as error:  # A damaged archive fails in many ways, from RuntimeError to IndexError.
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({error}).") from error
    if refused:
        raise CheckpointError(
            f"{path} needs pickled code and is refused: it names {', '.join(sorted(refused))}. Only tensors and plain "
            f"fields are read. {advice}"
        )
    return content


def check_size(tree: Any, inside: Callable[[Any], Iterable[Any]] = lambda node: ()) -> None:
    """Raise ValueError if a tree holds more than MAX_VALUES, each counted wherever it occurs, or is too deep.

    - `inside`: the children of what is neither a dictionary nor a sequence.
    """
    values, waiting = 0, [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        children: Iterable[Any] = inside(node)
        if isinstance(node, dict):
            children = [*node.keys(), *node.values()]
        elif isinstance(node, (list, tuple, set)):
            children = node
        values += 1 + (len(node) // CHARACTERS if isinstance(node, (str, bytes)) else 0)
        if depth > MAX_DEPTH:
            raise TooLarge(f"its values contain themselves, or are nested more than {MAX_DEPTH} deep")
        waiting += [(child, depth + 1) for child in children]
        if values + len(waiting) > MAX_VALUES:
            raise TooLarge(f"it holds more than {MAX_VALUES} values, repeated ones counted as often as they occur")


def _pickle(path: Path) -> bytes:
    """The data.pkl of an archive whose members are stored and together no larger than the file."""
    size = path.stat().st_size
    _check_directory(path, size)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                raise TooLarge(f"its {member.filename} is compressed; torch.save stores everything as it is")
        if sum(member.file_size for member in members) > size:
            raise TooLarge(f"its members claim to be larger than the file, which has {size} bytes")
        # torch takes names without regard to case: of two that differ in it alone, it could read one twice.
        names = {member.filename.lower() for member in members}
        root = members[0].filename.partition("/")[0]
        odd = [m.filename for m in members if re.fullmatch(rf"{re.escape(root)}/data/(?!\d+$).*", m.filename, re.I)]
        if len(names) < len(members) or odd:
            raise ValueError("its members have names that torch.save does not give")
        pickled = archive.getinfo(f"{root}/data.pkl")
        if pickled.file_size > MAX_PICKLE_BYTES:
            raise TooLarge(f"its data.pkl has {pickled.file_size} bytes; at most {MAX_PICKLE_BYTES} are read")
        return archive.read(pickled)


def _check_directory(path: Path, size: int) -> None:
    """Raise ValueError unless every reader of zip archives finds the same directory, right before the end."""
    with open(path, "rb") as file:
        first = file.read(4)
        file.seek(max(0, size - 98))
        tail = file.read().rjust(98, b"\0")
    end, length, offset, comment = struct.unpack("<4s8xLLH", tail[-22:])
    position = size - 22
    sound = first == b"PK\3\4" and end == b"PK\5\6" and comment == 0
    if tail[-42:-38] == b"PK\6\7":
        position = size - 98
        sound = sound and struct.unpack("<8xQ4x", tail[-42:-22]) == (position,) and tail[:4] == b"PK\6\6"
        length, offset = struct.unpack("<40xQQ", tail[:56])
    if not sound or offset + length != position:
        raise ValueError("it is no archive as torch.save writes them")
    if length > MAX_DIRECTORY_BYTES:
        raise TooLarge(f"its directory has {length} bytes; at most {MAX_DIRECTORY_BYTES} are read")
