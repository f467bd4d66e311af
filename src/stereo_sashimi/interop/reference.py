"""Checkpoints of the original S4 repository (state-spaces/s4) -> our modules.

`load_reference` builds the module and fills it; `convert` translates the state dict alone, differentiably, so that
a test can compare gradients with respect to the original's own parameters. Key names are in `keys.py`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stereo_sashimi.interop.keys import rename
from stereo_sashimi.interop.versions import modernise
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.models.weights import MAX_D_STATE
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig
from stereo_sashimi.nn.s4 import S4, S4Config, S4DConfig, SSMParameters
from stereo_sashimi.ops.discretize import bilinear
from stereo_sashimi.ops.kernels import krylov
from stereo_sashimi.spec import AudioSpec

# Values of the dense state matrices that are held at once where C is solved for (32 MiB).
MATRIX_VALUES = 2**22
BACKBONES = ("sashimi_modular", "sashimi_standalone", "unet_modular")
KINDS = ("s4block", *BACKBONES, *(f"lm_{kind}" for kind in BACKBONES))


def load_reference(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> nn.Module:
    """Build our module from a state dict of the original implementation.

    - `state_dict`: the original's tensors, float32 or float64; the module gets the same precision. Where C was stored
      for one length (`l_kernel > 0`), the plain C is recovered in float64, and what float32 cannot hold of it is kept
      beside it, so that `.double()` on the result is exact too.
      Backbones and language models may have the names of version 4 or of those before (`versions.py`).
    - `config`: `type` is one of s4block, sashimi_modular, sashimi_standalone, unet_modular, or one of these three after
      "lm_" for a whole language model, with the original's names for the rest: d_model, n_layers, pool, expand, ff,
      unet, d_state, n_ssm, dt_transform, real_transform, mode, init, disc, bits, quantization, sample_rate, pad_len.

    Returns S4, Sashimi or LanguageModel in eval mode, called as `y, state = module(u, state)` on (batch, length, ..).
    Raises ValueError for an unknown type, a config field that is missing, and keys that are missing, left over or of
    another shape.
    """
    if config.get("type") in KINDS[1:]:
        state_dict, config = modernise(state_dict, config)
    # Without memory, until it is known that the tensors are as large as the config says.
    with torch.device("meta"):
        blank = build(config)
    renamed, _ = _rename(state_dict, config)
    expected = dict(blank.named_parameters())
    missing, left_over = sorted(expected.keys() - renamed.keys()), sorted(renamed.keys() - expected.keys())
    if missing or left_over:
        raise ValueError(
            f"This state dict is not a {config['type']!r} of the given config: {len(missing)} parameters are missing "
            f"({', '.join(missing[:3])}), {len(left_over)} are left over ({', '.join(left_over[:3])})."
        )
    for name, parameter in expected.items():
        if parameter.shape != renamed[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(renamed[name].shape)} in the state dict, but the config gives "
                f"{tuple(parameter.shape)}; check d_model, n_layers, pool, d_state and n_ssm."
            )
    module = build(config).to(max((t.dtype for t in renamed.values()), key=lambda dtype: torch.finfo(dtype).bits))
    with torch.no_grad():
        converted = convert(state_dict, config)
        module.load_state_dict(converted)
        exact = convert({k: t.double() if t.is_floating_point() else t for k, t in state_dict.items()}, config)
        for name, ssm in module.named_modules():
            if isinstance(ssm, SSMParameters):
                key = f"{name}.C" if name else "C"
                remainder = exact[key] - converted[key].double()
                ssm.C_remainder = remainder if bool(remainder.any()) else None
    return module.eval()


def build(config: Mapping[str, Any]) -> nn.Module:
    """The module that a reference config describes, freshly initialised."""
    kind = config.get("type")
    if kind not in KINDS:
        raise ValueError(f"config['type'] must be one of {', '.join(KINDS)}; got {kind!r}.")
    required = ("d_model", "d_state") if kind == "s4block" else ("d_model", "d_state", "n_layers", "pool")
    language_model = kind.startswith("lm_")
    for field in (*required, "bits") if language_model else required:
        if field not in config:
            raise ValueError(f"The config of a {kind!r} lacks {field!r}.")
    if config["d_state"] > MAX_D_STATE:
        raise ValueError(f"d_state must be at most {MAX_D_STATE}; got {config['d_state']}.")
    layer = _layer(config)
    if kind == "s4block":
        return S4(config["d_model"], layer)
    body = kind.removeprefix("lm_")
    standalone = body == "sashimi_standalone"
    backbone = SashimiConfig(
        d_model=config["d_model"],
        n_layers=config["n_layers"],
        pool=tuple(config["pool"]),
        expand=config.get("expand", 2),
        ff=config.get("ff", 2),
        unet=body == "unet_modular" or bool(config.get("unet", False)),
        norm="layer" if standalone else "scalar",
        pool_weight_norm=body == "sashimi_modular",
        layer=layer,
    )
    if not language_model:
        return backbone.build()
    # The original scales every clip by its own minimum and maximum and keeps neither: only mu-law 16 kHz is known.
    spec = AudioSpec(
        sample_rate=config.get("sample_rate", 16000),
        n_channels=1,
        bits=config["bits"],
        quantization=config.get("quantization", "mu-law"),
        normalize="minmax",
    )
    encoder, decoder = EmbeddingConfig(d_model=config["d_model"]), CategoricalHeadConfig()
    pad_len = config.get("pad_len") or 0
    return LanguageModelConfig(spec=spec, encoder=encoder, model=backbone, decoder=decoder, pad_len=pad_len).build()


def convert(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our parameter names and shapes from the original's, differentiable in every tensor."""
    converted, lengths = _rename(state_dict, config)
    for prefix, length in lengths.items():
        if length > 0:
            converted[prefix + "C"] = _plain_c(converted, prefix, length, _layer(config))
    return converted


def _rename(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Our names and shapes with the original's values, and the length that each C (by its prefix) is stored for."""
    renamed, lengths = {}, {}
    for key, tensor in state_dict.items():
        name = rename(key, config)
        if name.endswith("ssm.l_kernel"):
            lengths[name.removesuffix("l_kernel")] = int(tensor)
        else:
            renamed[name] = _reshape(name, tensor)
    return renamed, lengths


def _layer(config: Mapping[str, Any]) -> S4Config:
    body = config["type"].removeprefix("lm_")
    standalone = body == "sashimi_standalone"
    n_ssm = config.get("n_ssm", None if body in ("sashimi_standalone", "unet_modular") else 1)
    dt_transform = config.get("dt_transform", "exp" if standalone else "softplus")
    if config.get("mode", "dplr") == "diag":
        return S4DConfig(
            d_state=config["d_state"],
            n_ssm=n_ssm,
            dt_transform=dt_transform,
            init=config.get("init", "diag-lin").removeprefix("diag-"),
            discretization=config.get("disc", "zoh"),
        )
    return S4Config(d_state=config["d_state"], n_ssm=n_ssm, dt_transform=dt_transform)


def _reshape(name: str, tensor: Tensor) -> Tensor:
    """Drop the axes of size one that the original keeps (kernel channels, 1x1 convolutions)."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf in ("D", "B", "C", "P"):
        return tensor.squeeze(0)
    if leaf == "inv_dt" or (leaf == "weight" and tensor.dim() == 3):
        return tensor.squeeze(-1)
    return tensor


def _plain_c(converted: Mapping[str, Tensor], prefix: str, length: int, layer: S4Config) -> Tensor:
    """Solve C (I - A_bar^length) = C~ for the plain output matrix C, in float64."""
    stored = converted[prefix + "C"]
    value = {name: converted[prefix + name].to(torch.float64) for name in ("A_real", "A_imag", "P", "B", "C", "inv_dt")}
    d_model = stored.shape[0]
    copies = d_model // value["A_real"].shape[0]
    lam = torch.complex(-value["A_real"].exp(), -value["A_imag"]).repeat(copies, 1)
    p, b = (torch.view_as_complex(value[name]).repeat(copies, 1) for name in "PB")
    dt = value["inv_dt"].exp() if layer.dt_transform == "exp" else nn.functional.softplus(value["inv_dt"])
    c_tilde = torch.view_as_complex(value["C"])
    size = 2 * lam.shape[-1]
    identity = torch.eye(size, dtype=torch.float64, device=stored.device)
    solved = []
    # A dense matrix a channel: some at once, that a file of many large ones asks for no more memory than it holds.
    for some in torch.arange(d_model).split(max(1, MATRIX_VALUES // size**2)):
        system = bilinear(lam[some], p[some], b[some], c_tilde[some], dt[some])
        power = torch.linalg.matrix_power(krylov.dense(system), length)
        row = torch.cat([c_tilde[some].real, -c_tilde[some].imag], dim=-1)
        solved.append(torch.linalg.solve((identity - power).mT, row.unsqueeze(-1)).squeeze(-1))
    re, im = torch.cat(solved).chunk(2, dim=-1)
    return torch.stack([re, -im], dim=-1).to(stored.dtype)
