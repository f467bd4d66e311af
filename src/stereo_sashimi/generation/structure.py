"""What was saved and is read again: is it built as what is saved now?"""

import math
from typing import Any

from torch import Tensor


def check_structure(value: Any, like: Any, where: str) -> None:
    """Raise ValueError, naming the place, unless `value` is built like `like`, and all of its numbers are finite.

    Types, keys, lengths, shapes and dtypes are compared, the numbers and texts themselves are not.
    """
    if type(value) is not type(like):
        raise ValueError(f"{where} must be {type(like).__name__}; got {type(value).__name__}")
    if isinstance(like, dict):
        if value.keys() != like.keys():
            raise ValueError(f"{where} must have the fields {', '.join(map(str, like)) or '(none)'} and no others")
        for key in like:
            check_structure(value[key], like[key], f"{where}.{key}")
    elif isinstance(like, (list, tuple)):
        if len(value) != len(like):
            raise ValueError(f"{where} must have {len(like)} entries; got {len(value)}")
        for i, pair in enumerate(zip(value, like, strict=True)):
            check_structure(*pair, f"{where}[{i}]")
    elif isinstance(like, Tensor) and (value.shape, value.dtype) != (like.shape, like.dtype):
        raise ValueError(f"{where} must be {like.dtype} {list(like.shape)}; got {value.dtype} {list(value.shape)}")
    finite = value.isfinite().all() if isinstance(like, Tensor) else not isinstance(like, float) or math.isfinite(value)
    if not finite:
        raise ValueError(f"{where} is NaN or infinite")
