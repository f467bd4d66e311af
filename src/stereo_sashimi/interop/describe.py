"""What model a checkpoint of the original holds: what its tensors show, and what its configuration claims.

Both speak in the fields of `load_reference`'s config. Tensors show all sizes and the wiring; only the configuration
knows transforms (`dt_transform`), the discretisation of diagonal layers, and the audio (quantization, rate).
"""

import re
from collections.abc import Container, Mapping
from typing import Any

from torch import Tensor

from stereo_sashimi.interop.pickled import lookup
from stereo_sashimi.models.locate import CheckpointError

NAMES = {"sashimi": "sashimi_modular", "sashimi_standalone": "sashimi_standalone", "unet": "unet_modular"}
# Field -> keys of the original's configuration, the first that is there and not null counts.
CLAIMS = {
    "type": ("model._name_",),
    "d_model": ("model.d_model",),
    "n_layers": ("model.n_layers",),
    "pool": ("model.pool",),
    "expand": ("model.expand",),
    "ff": ("model.ff",),
    "unet": ("model.unet",),
    "d_state": ("model.layer.d_state", "model.d_state"),
    "dt_transform": ("model.layer.dt_transform", "model.dt_transform"),
    "real_transform": ("model.layer.real_transform", "model.layer.real_type"),
    "mode": ("model.layer.mode", "model.mode"),
    "init": ("model.layer.init", "model.layer.measure", "model.init"),
    "disc": ("model.layer.disc", "model.disc"),
    "bits": ("dataset.bits",),
    "quantization": ("dataset.quantization",),
    "sample_rate": ("dataset.target_sr",),
    "pad_len": ("dataset.pad_len",),
}
# What is the same in all models here. Null, or not being there, is the original's own default.
FIXED = {
    "model.prenorm": (True, "blocks normalise first"),
    "model.residual": ("R", "residual branches are added with weight one"),
    "model.interp": (0, "levels are not interpolated"),
    "model.act_pool": (None, "pools have no activation"),
    "model.pool_mode": ("linear", "pools are linear"),
    "model.output_head": ("categorical", "the fork's other heads cannot be run by it either"),
    "model.layer.activation": ("gelu", "S4 layers end in GELU and GLU"),
    "model.layer.bidirectional": (False, "the model is causal"),
    "model.layer.gate": (None, "S4 layers have no further gate"),
    "model.layer.bottleneck": (None, "S4 layers have no bottleneck"),
    "model.layer.mult_act": (None, "S4 layers have no further gate"),
    "model.layer.bandlimit": (None, "kernels are not band-limited"),
    "model.layer.dt_fast": (False, "step sizes go through dt_transform only"),
    "model.layer.imag_transform": ("none", "the imaginary part of Lambda is stored as it is"),
    "dataset.is_stereo": (False, "the fork's stereo models read both channels in turns, as one sequence"),
}
# What the original's data sets do where their configuration is silent.
QUANTIZATION = {"qautoaudio": "linear", "sc09": "mu-law"}
CHECKED = ("type", "d_model", "n_layers", "pool", "expand", "ff", "unet", "d_state", "n_ssm", "mode", "bits")


def claimed(hyper_parameters: Any, given: Container[str] = ()) -> dict[str, Any]:
    """Fields that the original's configuration states, without those in `given`. Empty without a configuration.

    Raises CheckpointError for a model that has no counterpart here, and for a field that cannot be resolved.
    """
    if not isinstance(hyper_parameters, dict) or not isinstance(hyper_parameters.get("model"), dict):
        return {}
    for key, (value, reason) in FIXED.items():
        found = lookup(hyper_parameters, key)
        if found is not None and found != value:
            raise CheckpointError(f"its {key} is {found!r}; only {value!r} has a counterpart here: {reason}.")
    claims: dict[str, Any] = {}
    for field, keys in CLAIMS.items():
        if field in given:
            continue
        values = (lookup(hyper_parameters, key) for key in keys)
        value = next((value for value in values if value is not None and value != "???"), None)
        if value is not None:
            claims[field] = value
    name = claims.pop("type", None)
    if name is not None and name not in NAMES:
        raise CheckpointError(f"its model._name_ is {name!r}; only {', '.join(NAMES)} have a counterpart here.")
    if name is not None:
        claims["type"] = f"lm_{NAMES[name]}"
    # Null is a value here: one copy a channel.
    missing = object()
    if "n_ssm" not in given and (n_ssm := lookup(hyper_parameters, "model.layer.n_ssm", missing)) is not missing:
        claims["n_ssm"] = n_ssm
    if "mode" not in given and lookup(hyper_parameters, "model.layer._name_") == "s4d":
        claims.setdefault("mode", "diag")
    if claims.get("mode") in ("nplr", "s4"):
        claims["mode"] = "dplr"
    if str(claims.get("init", "legs")).removeprefix("diag-") not in ("legs", "lin", "inv"):
        del claims["init"]  # Mixtures; trained weights do not care.
    claims.setdefault("dt_transform", "exp")
    if (data := lookup(hyper_parameters, "dataset._name_")) in QUANTIZATION:
        claims.setdefault("quantization", QUANTIZATION[data])
    return claims


def shown(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields that the tensors of a language model (names of version 4) show. Raises CheckpointError, naming a key."""
    shape = {key.removeprefix("model."): tuple(tensor.shape) for key, tensor in state_dict.items()}
    table = next((k for k in ("encoder.0.weight", "encoder.0.embedding.weight") if k in shape), None)
    if table is None or "decoder.0.output_transform.weight" not in shape:
        lacking = "encoder.0.weight" if table is None else "decoder.0.output_transform.weight"
        raise CheckpointError(
            f"its state_dict has no {lacking}, so it is no language model over codes. For a backbone alone use "
            "stereo_sashimi.interop.load_reference(state_dict, config)."
        )
    rows, width = _take(shape, table)
    if rows != 1 << (rows.bit_length() - 1):
        raise CheckpointError(f"{table} has {rows} rows, which is no power of two: it is no model over PCM codes.")
    scalar = any(key.endswith("norm.norm.m") for key in shape)
    pools = [
        shape[key][:2]
        for key in sorted(shape, key=lambda key: [int(number) for number in re.findall(r"\d+", key)])
        if re.fullmatch(r"d_layers\.\d+\.linear\.(weight|weight_v)", key)
    ]
    # Without pools the wirings are one.
    normed = not pools or any(key.endswith("linear.weight_g") for key in shape)
    kind = "sashimi_standalone" if not scalar else "sashimi_modular" if normed else "unet_modular"
    pool, expand, low = [], set(), width
    for out, inside in pools:
        if out % low or inside % low:
            raise CheckpointError(f"a pool of shape ({out}, {inside}) does not fit its width of {low}.")
        pool.append(inside // low)
        expand.add(out // low)
        low = out
    if len(expand) > 1:
        raise CheckpointError(f"its levels grow by different factors ({sorted(expand)}); only one is possible here.")
    center = {int(match[1]) for key in shape if (match := re.match(r"c_layers\.(\d+)\.", key))}
    inside, _ = _take(shape, "c_layers.1.layer.ff.0.0.weight")
    _, half = _take(shape, "c_layers.0.layer.layer.kernel.A_real")
    fields: dict[str, Any] = {
        "type": f"lm_{kind}",
        "bits": rows.bit_length() - 1,
        "d_model": width,
        "n_layers": len(center) // 2,
        "pool": pool,
        "expand": expand.pop() if expand else 2,
        "ff": inside // low,
        "d_state": 2 * half,
        "n_ssm": _copies(shape),
        "mode": "dplr" if "c_layers.0.layer.layer.kernel.P" in shape else "diag",
    }
    if kind == "sashimi_standalone":
        fields["unet"] = any(re.match(r"d_layers\.\d+\.layer\.", key) for key in shape)
    if fields["mode"] == "dplr" and "c_layers.0.layer.layer.kernel.l_kernel" not in shape:
        raise CheckpointError("its kernels do not say for which length C is stored (l_kernel, before version 4: L).")
    return fields


def agree(shown: Mapping[str, Any], claims: Mapping[str, Any], source: str) -> None:
    """Raise CheckpointError, with both values, for the first claim that the tensors contradict."""
    for field in CHECKED:
        if field not in claims or field not in shown:
            continue
        claim = list(claims[field]) if field == "pool" else claims[field]
        if claim != shown[field]:
            raise CheckpointError(
                f"{source} says {field}={claim!r}, but its tensors are of {field}={shown[field]!r}. If the tensors are "
                f"right, correct the description; else this is the description of another file."
            )


def _copies(shape: Mapping[str, tuple[int, ...]]) -> int | None:
    pairs = {
        (shape[key][-2], shape[key.removesuffix("A_real") + "inv_dt"][0])
        for key in shape
        if key.endswith("kernel.A_real") and key.removesuffix("A_real") + "inv_dt" in shape
    }
    copies = {copies for copies, _ in pairs}
    if all(copies == width for copies, width in pairs):
        return None
    if len(copies) > 1:
        raise CheckpointError(f"its layers have different numbers of copies (n_ssm {sorted(copies)}).")
    return copies.pop()


def _take(shape: Mapping[str, tuple[int, ...]], key: str) -> tuple[int, ...]:
    """The first two sizes of a tensor that must be there."""
    if len(shape.get(key, ())) < 2:
        raise CheckpointError(f"its state_dict has no {key} of 2 axes, so it is no SaShiMi of the original.")
    return shape[key][:2]
