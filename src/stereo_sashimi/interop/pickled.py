"""Reading a Lightning checkpoint of the original without running anything of it.

The original saves its whole configuration as pickled OmegaConf objects. `torch.load(weights_only=True)` is told that
their names, listed in SAFE, stand for `Remains`: an object that keeps fields and does nothing. No class of OmegaConf,
Lightning or NumPy is imported, and any name that is neither in SAFE nor in torch's own list is refused.
"""

import re
from pathlib import Path
from typing import Any

from stereo_sashimi.models.archive import check_size, read_archive
from stereo_sashimi.models.locate import CheckpointError


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

_ADVICE = (
    "OmegaConf configurations are read too. If you trust the file, save {'state_dict': .., 'hyper_parameters': ..} of "
    "it to another one, both as plain dictionaries."
)
# Configurations refer to a value once or twice removed; a long chain of references that branch would never end.
_MAX_REFERENCES = 3
_MAX_KEY = 100


def read_lightning(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint file, its `hyper_parameters` as plain dictionaries and lists (interpolations kept).

    Raises CheckpointError as `read_archive`, for pickled classes other than those in SAFE too, and for a file without
    a state_dict.
    """
    stand_ins: dict[str, Any] = dict.fromkeys(SAFE, Remains) | {"collections.defaultdict": _empty_dict}
    content = read_archive(path, _ADVICE, stand_ins)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(
            f"{path} is not a Lightning checkpoint: it has no state_dict. For a bare state dict of the original see "
            "stereo_sashimi.interop.load_reference."
        )
    if "hyper_parameters" in content:
        try:
            check_size(content["hyper_parameters"], _held)
        except ValueError as error:
            raise CheckpointError(f"{path}: its hyper_parameters are refused: {error}.") from error
        content["hyper_parameters"] = _plain(content["hyper_parameters"])
    return content


def _held(node: Any) -> list[Any]:
    """The content of an OmegaConf container or value node."""
    fields = vars(node) if isinstance(node, Remains) else {}
    return [fields[name] for name in ("_content", "_val") if name in fields][:1]


def _plain(node: Any) -> Any:
    """OmegaConf's containers and value nodes as dictionaries, lists and values."""
    if isinstance(node, Remains):
        held = _held(node)
        return _plain(held[0]) if held else node
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
    match = re.fullmatch(r"\$\{(\.*)([\w.]+)\}", expression[: _MAX_KEY + 1])
    allowed = here not in seen and len(seen) < _MAX_REFERENCES
    if match is not None and allowed and match[0] == expression and len(match[1]) <= len(parts):
        base = parts[: -len(match[1])] if match[1] else []
        missing = object()
        value = lookup(tree, ".".join([*base, match[2]]), missing, (*seen, here))
        if value is not missing:
            return value
    raise CheckpointError(
        f"hyper_parameters leave {here} open: {expression[:_MAX_KEY]!r}. Give its value in config={{..}}."
    )
