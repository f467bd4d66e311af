"""One model for recordings of any format: the coders of a pair of channels and of a single one.

A model that is nothing but adaptive experts and their head knows no rate, no loudness and no width: the same weights
code 8, 16 and 24 bits, and its first channel alone is a mono model. Other models code the channels and bits that they
were made for.
"""

import hashlib
from dataclasses import replace

import torch

from stereo_sashimi.codec.batch_coder import BatchCoder
from stereo_sashimi.codec.container import CodecError
from stereo_sashimi.codec.probe import probe
from stereo_sashimi.generation.engines.compiled.compiled_engine import CompiledEngine
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.weights import fingerprint
from stereo_sashimi.nn.freeze import freeze

# Segments coded at once by a model with a network, whose weights then are read once for all of them.
DEFAULT_BATCH, MAX_BATCH = 32, 256
# By weights, those that the engine has packed, and configurations.
_PROBES: dict[tuple[object, ...], str] = {}


class Coders:
    """The coders of one model for channels in `pairs` and single ones, with `bits` a sample.

    Raises CodecError for a model whose codes are no PCM, or that has other channels or bits and cannot be fitted;
    EngineError for one that the compiled engine does not run.
    """

    def __init__(self, model: LanguageModel, bits: int, n_channels: int, lanes: int | None = None) -> None:
        check_model(model)
        widths = ([2] if n_channels > 1 else []) + ([1] if n_channels % 2 else [])
        if lanes is None:
            lanes = torch.get_num_threads() if is_free(model) else DEFAULT_BATCH
        self.lanes = lanes
        self._coders = {
            width: BatchCoder(CompiledEngine(freeze(fitted(model, width, bits)), lanes)) for width in widths
        }
        self.weights = fingerprint(model)[:32]

    def __getitem__(self, width: int) -> BatchCoder:
        return self._coders[width]

    @property
    def probe(self) -> str:
        """Of all its coders. Computed once a process: a folder of short files would wait for nothing else."""
        engines = [coder.engine for coder in self._coders.values()]
        packed = (hashlib.sha256(engine.program.weights.tobytes()).digest() for engine in engines)
        key = (self.weights, *packed, *(engine.model.config for engine in engines))
        if key not in _PROBES:
            _PROBES[key] = probe(self._coders.values())
        return _PROBES[key]


def is_free(model: LanguageModel) -> bool:
    """Whether a model codes any number of channels and bits: experts and their head alone."""
    return model.experts is not None and model.embedding is None


def fitted(model: LanguageModel, n_channels: int, bits: int) -> LanguageModel:
    """The model for so many channels and bits. Raises CodecError."""
    spec = model.spec
    if (spec.n_channels, spec.bits) == (n_channels, bits):
        return model
    names = {1: "mono (1 channel)", 2: "stereo (2 channels)"}
    if not is_free(model):
        raise CodecError(
            f"the recording has {names[n_channels]} of {bits} bits to be coded, and the model codes "
            f"{names[spec.n_channels]} of {spec.bits}. Use another model; those of profile=.. code all."
        )
    if n_channels > spec.n_channels:
        raise CodecError(f"this model was trained on {names[1]}, and the recording has more. Use a stereo model.")
    config = replace(model.config, spec=replace(spec, n_channels=n_channels, bits=bits))
    # The initial values are overwritten: this must not move the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        other = config.build().to(next(model.parameters()).dtype)
    names_of = other.state_dict().keys()
    other.load_state_dict({name: value for name, value in model.state_dict().items() if name in names_of})
    return other.eval()


def check_model(model: LanguageModel) -> None:
    """Raise CodecError unless the model's codes are PCM and its engine is one that computes alike everywhere."""
    spec = model.spec
    if spec.quantization != "linear" or spec.normalize != "none":
        raise CodecError(
            f"this model reads {spec.quantization} codes with normalize={spec.normalize}, from which PCM does not come "
            "back. Use a model trained with dataset.quantization=linear dataset.normalize=none."
        )
    CompiledEngine.check(model)
