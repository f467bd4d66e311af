"""State dicts of the original before version 4.0 -> the names and shapes of version 4.

| before 4.0 | 4.0 | value |
|---|---|---|
| layer.kernel(.kernel).X, layer.D | layer.layer.kernel.X, layer.layer.D | the same |
| log_dt (H) | inv_dt (H, 1) | the same; dt = exp, where version 4 may have softplus |
| log_w_real, inv_w_real, inv_A_real | A_real | Re Lambda = -exp; inv_*: by `real_transform` |
| w_imag (A_imag beside log_dt) | A_imag | Im Lambda = w_imag = -A_imag |
| L | l_kernel | the length that C is stored for |
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

KERNEL = re.compile(r"^(|.+?\.)layer\.(?:layer\.)?kernel\.(?:kernel\.)?(\w+)$")
SKIP = re.compile(r"^(|.+?\.)layer\.(?:layer\.)?D$")
LEAVES = {
    "log_dt": "inv_dt",
    "log_w_real": "A_real",
    "inv_w_real": "A_real",
    "inv_A_real": "A_real",
    "w_imag": "A_imag",
    "L": "l_kernel",
}
AXES = {"A_real": 2, "A_imag": 2, "B": 4, "C": 4, "P": 4}
# What A_real = log(-Re Lambda) is, from the parameter under each of the original's transforms.
REAL_TRANSFORMS = {
    "exp": lambda stored: stored,
    "none": lambda stored: stored.log(),
    "softplus": lambda stored: nn.functional.softplus(stored).log(),
    "sigmoid": nn.functional.logsigmoid,
}


def modernise(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and config in the terms of version 4; what is of version 4 comes back as it is.

    - `state_dict`: of a backbone or a language model, any prefix.
    - `config`: as for `load_reference`. `real_transform` (exp, none, softplus, sigmoid) is the transform of A_real;
      the result has none left. With a log_dt in the state dict, `dt_transform` is exp.

    Raises ValueError for an unknown transform, for dt_transform other than exp beside log_dt, and for kernels with
    parameters of their own for w and Q (hurwitz: false), which do not keep A = diag(Lambda) - P P^*.
    """
    config = dict(config)
    transform = config.pop("real_transform", None) or "exp"
    if transform not in REAL_TRANSFORMS:
        raise ValueError(f"real_transform must be one of {', '.join(REAL_TRANSFORMS)}; got {transform!r}.")
    old = {match[1] for key in state_dict if (match := KERNEL.match(key)) and match[2] == "log_dt"}
    if old and config.setdefault("dt_transform", "exp") != "exp":
        raise ValueError(f"log_dt means dt_transform 'exp'; the config says {config['dt_transform']!r}.")
    modern: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        if match := KERNEL.match(key):
            place, leaf = match[1], match[2]
            if leaf in ("w", "Q"):
                raise ValueError(f"{key}: kernels that learn w and Q (hurwitz: false) have no counterpart here.")
            if leaf in ("omega", "z"):  # Fourier nodes, cached.
                continue
            name = LEAVES.get(leaf, leaf)
            modern[f"{place}layer.layer.kernel.{name}"] = _value(leaf, name, tensor, place in old, transform)
        elif match := SKIP.match(key):
            modern[f"{match[1]}layer.layer.D"] = tensor.reshape(1, -1) if tensor.dim() == 1 else tensor
        else:
            modern[key] = tensor
    return modern, config


def _value(leaf: str, name: str, tensor: Tensor, old: bool, transform: str) -> Tensor:
    while tensor.dim() < AXES.get(name, 0):
        tensor = tensor.unsqueeze(0)
    if name == "inv_dt" and tensor.dim() == 1:
        return tensor.unsqueeze(-1)
    if leaf == "w_imag" or (leaf == "A_imag" and old):
        return -tensor
    if name == "A_real" and leaf != "log_w_real" and transform != "exp":
        log_magnitude = REAL_TRANSFORMS[transform](tensor.double()).to(tensor.dtype)
        if not log_magnitude.isfinite().all():
            raise ValueError(f"real_transform {transform!r}: a real part of Lambda is not negative.")
        return log_magnitude
    return tensor
