"""Reading a Lightning checkpoint of the original without running anything of it.

The original saves its whole configuration as pickled OmegaConf objects. `torch.load(weights_only=True)` is told that
their names, listed in SAFE, stand for `Remains`: an object that keeps fields and does nothing. No class of OmegaConf,
Lightning or NumPy is imported, and any name that is neither in SAFE nor in torch's own list is refused.
"""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from stereo_sashimi.models.checkpoint import CheckpointError


class Remains:
    """What is left of a pickled object: its fields, without behaviour."""

    def __new__(cls, *args: object) -> "Remains":  # noqa: D102
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def _empty_dict(*args: object) -> dict[Any, Any]:
    """Instead of a defaultdict: torch fills in items of plain dictionaries only."""
    return {}


NODES = ("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode", "BytesNode", "PathNode", "EnumNode")
SAFE = (
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.base.UnionNode"),
    *("omegaconf.base.Metadata", "omegaconf.base.ContainerMetadata", *(f"omegaconf.nodes.{node}" for node in NODES)),
    # Types that OmegaConf notes beside its values; they are named, never called.
    *("typing.Any", "typing.Dict", "typing.List"),
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "str", "bytes", "int", "float", "bool", "object")),
    # Keys of `callbacks` before Lightning 1.5, paths and NumPy scalars in the states of callbacks and schedulers.
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    *("pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath"),
    *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
)


def read_lightning(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint file, its `hyper_parameters` as plain dictionaries and lists (interpolations kept).

    Raises CheckpointError, naming the file, if it is missing, no zip archive of torch, damaged, or holds pickled
    classes other than those in SAFE; then it names them, and nothing of the file was run.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated or not a Lightning checkpoint (no zip archive).")
    safe: list[Any] = [(Remains, name) for name in SAFE]
    with torch.serialization.safe_globals([*safe, (_empty_dict, "collections.defaultdict")]):
        try:
            refused = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
            content = None if refused else torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(f"{path} needs pickled code and is refused ({error}).") from error
        except Exception as error:  # A damaged archive fails in many ways, from RuntimeError to IndexError.
            raise CheckpointError(f"{path} is damaged or not a checkpoint ({error}).") from error
    if refused:
        raise CheckpointError(
            f"{path} needs pickled code and is refused: it names {', '.join(refused)}. Only tensors, plain fields and "
            "OmegaConf configurations are read. If you trust the file, save {'state_dict': .., 'hyper_parameters': ..} "
            "of it to another one, both as plain dictionaries."
        )
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(
            f"{path} is not a Lightning checkpoint: it has no state_dict. For a bare state dict of the original see "
            "stereo_sashimi.interop.load_reference."
        )
    if "hyper_parameters" in content:
        try:
            content["hyper_parameters"] = _plain(content["hyper_parameters"])
        except RecursionError as error:
            raise CheckpointError(
                f"{path}: its hyper_parameters contain themselves, or are nested too deep."
            ) from error
    return content


def _plain(node: Any) -> Any:
    """OmegaConf's containers and value nodes as dictionaries, lists and values."""
    if isinstance(node, Remains):
        fields = vars(node)
        held = fields.get("_content", fields.get("_val", node))
        return node if held is node else _plain(held)
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_plain(item) for item in node]
    return node


def lookup(tree: Any, key: str, default: Any = None, seen: tuple[str, ...] = ()) -> Any:
    """The value at a dotted `key` of a plain configuration, `default` where it has none.

    References to other keys are followed, absolute (`${model.dropout}`) and relative (`${..dropout}`). Raises
    CheckpointError, naming the key, for any other expression, for a reference that leads nowhere or in a circle.
    """
    node, parts = tree, key.split(".")
    for index, part in enumerate(parts, start=1):
        if not isinstance(node, dict) or part not in node:
            return default
        node = node[part]
        if isinstance(node, str) and "${" in node:
            node = _follow(tree, node, parts[:index], seen)
    return node


def _follow(tree: Any, expression: str, parts: list[str], seen: tuple[str, ...]) -> Any:
    here = ".".join(parts)
    match = re.fullmatch(r"\$\{(\.*)([\w.]+)\}", expression)
    if match is not None and here not in seen and len(match[1]) <= len(parts):
        base = parts[: -len(match[1])] if match[1] else []
        missing = object()
        value = lookup(tree, ".".join([*base, match[2]]), missing, (*seen, here))
        if value is not missing:
            return value
    raise CheckpointError(f"hyper_parameters leave {here} open: {expression!r}. Give its value in config={{..}}.")
