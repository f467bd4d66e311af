"""A description and its weights -> a LanguageModel, for any file that holds both. Nothing in a file is trusted.

A description can name sizes that no machine holds: the model is made only as far as its file has weights for it, and
where that is not far enough the two are compared on torch's meta device, without memory.
"""

import dataclasses
import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from stereo_sashimi.models.language_model import LanguageModel, current_names
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.model_files import CheckpointError as CheckpointError
from stereo_sashimi.models.no_backbone import NoBackboneConfig
from stereo_sashimi.nn.s4 import SSMParameters
from stereo_sashimi.schema import check_type, refuse_unknown

# Start codes are no weights, so no file bounds them; these are six minutes at 44.1 kHz.
MAX_PAD_LEN = 1 << 24
# Blocks cost time, and HiPPO matrices d_state**2 memory, beyond what their weights say.
MAX_BLOCKS = 1000
MAX_D_STATE = 1024
# What a model may have more than four times the numbers of its file, while it is made.
SLACK = 1 << 20
DTYPES = (torch.float32, torch.float64)
# Digits of C below its precision (`nn/s4.py`); no parameter, and not always there.
REMAINDER = "C_remainder"


def describe(plain: Any, where: str) -> LanguageModelConfig:
    """The model that the plain fields of a file describe; `where` names the file. Raises CheckpointError."""
    try:
        if isinstance(plain, dict):
            refuse_unknown(plain, [f.name for f in dataclasses.fields(LanguageModelConfig)], "model")
            pad_len = check_type(plain.get("pad_len", 0), int, "pad_len")
            if pad_len > MAX_PAD_LEN:
                raise ValueError(f"pad_len must be at most {MAX_PAD_LEN}; got {pad_len}.")
        config = LanguageModelConfig.from_plain(plain)
        if isinstance(config.model, NoBackboneConfig):
            return config
        if config.model.n_layers * (1 + 2 * len(config.model.pool)) > MAX_BLOCKS:
            raise ValueError(f"n_layers on all levels must be at most {MAX_BLOCKS} blocks.")
        if config.model.layer.d_state > MAX_D_STATE:
            raise ValueError(f"d_state must be at most {MAX_D_STATE}; got {config.model.layer.d_state}.")
        return config
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{where}: its model description is not valid: {error}") from error


def build(config: LanguageModelConfig, weights: Mapping[str, Any], where: str, backend: str) -> LanguageModel:
    """The described model with these weights, in their precision and in eval mode.

    - `weights`: named as in `state_dict`, all float32 or all float64; the remainders of C may be among them.
    - `where`: names the file. `backend`: see `ops/s4_response.py`.

    Raises CheckpointError for weights that are missing, left over, or of another shape or type than described.
    """
    weights = current_names(weights)
    # The initial values are overwritten: loading must not move the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        try:
            with _at_most(SLACK + 4 * sum(map(_numbers, weights.values()))):
                model = config.build(backend)
        except (ValueError, TypeError, RuntimeError, OverflowError):
            # Says in words for people why these are not its weights. If they are, it is the backend that raises.
            check(config, weights, where)
            model = config.build(backend)
    _compare(model, weights, where)
    dtype = next(tensor.dtype for name, tensor in weights.items() if not _is_remainder(name))
    model = model.to(dtype)
    model.load_state_dict({name: tensor for name, tensor in weights.items() if not _is_remainder(name)})
    for name, tensor in weights.items():
        if _is_remainder(name):
            model.get_submodule(name.rpartition(".")[0]).C_remainder = tensor.clone()
    return model.eval()


def _numbers(weight: object) -> int:
    return weight.numel() if isinstance(weight, Tensor) else 0


@contextmanager
def _at_most(numbers: int) -> Iterator[None]:
    """Raise ValueError as soon as the modules that this thread makes inside have more parameters.

    torch and this package register a large parameter before they fill it, so that it takes no memory yet. A model on
    the meta device takes none at all, but has torch load its compiler, which takes longer than all else.
    """
    thread, made = threading.get_ident(), 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal made
        if threading.get_ident() == thread:
            made += parameter.numel()
            if made > numbers:
                raise ValueError(f"The model has more than {numbers} parameters.")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def collect(model: nn.Module) -> dict[str, Tensor]:
    """All weights of a model, also the remainders of C, as `build` takes them: contiguous copies on the CPU."""
    named = dict(model.state_dict())
    for prefix, module in model.named_modules():
        if isinstance(module, SSMParameters) and module.C_remainder is not None:
            named[f"{prefix}.{REMAINDER}"] = module.C_remainder
    # Parameters that share memory are written twice, and shared again by the model that is built.
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in named.items()}


def fingerprint(model: LanguageModel) -> str:
    """SHA-256, in hexadecimal, of a model's weights alone: of the sorted SHA-256 of each, without repeats.

    Coded files name their model by it (docs/codec.md), so names, shapes, sharing and description have no part in it.
    """
    digests = set()
    for tensor in collect(model).values():
        array = tensor.numpy()
        content = array.astype(array.dtype.newbyteorder("<")).tobytes()
        digests.add(hashlib.sha256(array.dtype.name.encode() + content).digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def blank(config: LanguageModelConfig, where: str) -> LanguageModel:
    """The described model without memory, on torch's meta device. Raises CheckpointError where none can be made."""
    try:
        with torch.device("meta"):
            return config.build()
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        # torch refuses sizes beyond 64 bits with a RuntimeError.
        raise CheckpointError(f"{where}: the model that it describes cannot be made: {error}") from error


def check(config: LanguageModelConfig, weights: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointError unless `weights` are those of the described model; costs no memory."""
    _compare(blank(config, where), weights, where)


def _compare(described: LanguageModel, weights: Mapping[str, Any], where: str) -> None:
    def disagree(text: str) -> CheckpointError:
        return CheckpointError(f"{where}: weights and model description disagree: {text}.")

    expected = dict(described.state_dict())
    for name, module in described.named_modules():
        if isinstance(module, SSMParameters) and f"{name}.{REMAINDER}" in weights:
            expected[f"{name}.{REMAINDER}"] = module.C
    for problem, names in (
        ("is missing", expected.keys() - weights.keys()),
        ("is left over", weights.keys() - expected.keys()),
    ):
        if names:
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise disagree(f"{min(map(str, names))} {problem}{others}")
    dtypes: set[torch.dtype] = set()
    for name, blank_tensor in expected.items():
        tensor = weights[name]
        if not is_whole(tensor):
            raise disagree(f"{name} is no tensor with values of its own")
        if tensor.shape != blank_tensor.shape:
            raise disagree(f"{name} has shape {tuple(tensor.shape)}, described is {tuple(blank_tensor.shape)}")
        if not _is_remainder(name):
            dtypes.add(tensor.dtype)
        if tensor.dtype not in DTYPES or len(dtypes) > 1:
            kinds = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes | {tensor.dtype}))
            raise disagree(f"{name} has another type than the rest ({kinds}); all must be float32, or all float64")
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"{where}: the weight {name} holds NaN or infinity: the run that wrote it broke down. Use an earlier "
                "checkpoint."
            )


def _is_remainder(name: str) -> bool:
    return name.endswith(f".{REMAINDER}")


def is_whole(value: object) -> bool:
    """Whether this is a plain tensor that holds every value it shows: an expanded one can be larger than its file."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )
