"""warm_start: a mono model's parameters as the beginning of a stereo model (or of any number of channels).

The rule is one sentence: on audio whose channels are all alike, the new model gives every channel the
log-probabilities of the old one. How, for each `encoder.merge`, from a table E and a backbone of width d:

  none    every parameter as it is
  sum     tables E / n_channels                     mix     tables E, the mix averages them
  concat  tables E; linear maps block-diagonal, one block a channel; all else repeated for each channel. So each
          channel runs through a mono backbone of its own, and they meet only in the norms' statistics, until
          training fills the blocks between them

Heads read their own channel, and a coupling starts without effect.
"""

import dataclasses

import torch
from torch import Tensor, nn

from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.models.no_backbone import NoBackboneConfig
from stereo_sashimi.nn.heads.categorical_head import CategoricalHead
from stereo_sashimi.nn.heads.head import Head
from stereo_sashimi.nn.heads.logistic_mixture_head import DMLHead
from stereo_sashimi.nn.s4 import S4


@torch.no_grad()
def warm_start(model: LanguageModel, source: LanguageModel) -> None:
    """Overwrite the parameters of `model` with those of `source`.

    - `source`: of the same channels, encoder and decoder (all is copied); or a model of one channel at a time, which
      is mono or has `encoder.merge: none`.

    Rate, dropout, pad_len and normalisation may differ. Raises ValueError naming the first field that must not.
    """
    if _same_shape(model, source):
        model.load_state_dict(source.state_dict())
        return
    _check(model, source)
    n_channels = model.spec.n_channels
    assert source.embedding is not None
    assert model.embedding is not None
    (table,) = source.embedding.tables.parameters()
    table = source.embedding.mix(table)
    for ours in model.embedding.tables.parameters():
        ours.copy_(table / n_channels if model.config.encoder.merge == "sum" else table)
    if isinstance(model.embedding.mix, nn.Linear):
        identity = torch.eye(table.shape[1], dtype=table.dtype)
        model.embedding.mix.weight.copy_(identity.repeat(1, n_channels) / n_channels)
        model.embedding.mix.bias.zero_()
    old = dict(source.backbone.named_parameters())
    for name, ours in model.backbone.named_parameters():
        # What keeps its shape at every width is shared by channels: channel h uses state space copy h mod n_ssm.
        same = ours.shape == old[name].shape
        ours.copy_(old[name] if same else _widened(source.backbone, name, old[name], n_channels))
    _copy_head(model.head, source.head)


def _widened(backbone: nn.Module, name: str, tensor: Tensor, n_channels: int) -> Tensor:
    """A parameter of a backbone that is `n_channels` times as wide."""
    layer, _, leaf = name.rpartition(".")
    parent = backbone.get_submodule(layer.rpartition(".")[0])
    # The two halves of a gated linear unit are widened each on its own.
    gated = isinstance(parent, S4) and backbone.get_submodule(layer) is parent.output
    parts = tensor.chunk(2) if gated else (tensor,)
    if leaf in ("weight", "weight_v") and tensor.dim() == 2:
        return torch.cat([torch.block_diag(*[part] * n_channels) for part in parts])
    return torch.cat([part.repeat(n_channels, *[1] * (tensor.dim() - 1)) for part in parts])


def _copy_head(head: Head, source: Head) -> None:
    old = source.channels[0]
    assert isinstance(old, nn.Linear)
    for channel, ours in enumerate(head.channels):
        assert isinstance(ours, nn.Linear)
        width = old.in_features
        # Behind concat the channel's own features begin at channel * width; else all channels share them.
        first = channel * width if ours.in_features > width else 0
        ours.weight.zero_()
        ours.weight[:, first : first + width] = old.weight
        ours.bias.copy_(old.bias)
    assert isinstance(head, DMLHead | CategoricalHead)
    coupled = head.couplers if isinstance(head, DMLHead) else [mixer.get_submodule("outer") for mixer in head.mixers]
    for module in coupled:
        for parameter in module.parameters():
            parameter.zero_()


def _same_shape(model: LanguageModel, source: LanguageModel) -> bool:
    ours, old = ({name: p.shape for name, p in m.state_dict().items()} for m in (model, source))
    return (
        ours == old
        and model.spec.n_channels == source.spec.n_channels
        and model.config.encoder.merge == source.config.encoder.merge
        and _fields(model) == _fields(source)
    )


def _check(model: LanguageModel, source: LanguageModel) -> None:
    if source.experts is not None or model.experts is not None:
        raise ValueError(
            "init_from begins a model with adaptive experts only with one of the very same channels, experts, encoder, "
            "model and decoder. Train this one from its start: it begins with what the experts say."
        )
    if source.n_sequences != source.spec.n_channels:
        raise ValueError(
            f"init_from holds a model of {source.spec.n_channels} channels with encoder.merge="
            f"{source.config.encoder.merge} and coupling {source.config.decoder.coupling}; this run has "
            f"{model.spec.n_channels} with {model.config.encoder.merge} and {model.config.decoder.coupling}. Give a "
            "mono model, one with encoder.merge=none, or one of the very same encoder and decoder."
        )
    if source.config.encoder.table == "waveform" and source.config.encoder.merge == "mix":
        raise ValueError(
            "init_from holds a mono model with encoder.table=waveform and encoder.merge=mix, whose mixed rows are no "
            "combination of features. Give one with encoder.merge=concat, sum or none."
        )
    for name, value in _fields(model).items():
        if _fields(source).get(name) != value:
            raise ValueError(
                f"init_from holds a model with {name}={_fields(source).get(name)!r}; this run has {value!r}. Set it "
                "to the same value."
            )


def _fields(model: LanguageModel) -> dict[str, object]:
    """What two models must agree in, under the names of their configs."""
    config = model.config
    fields: dict[str, object] = {
        "dataset.bits": config.spec.bits,
        "dataset.quantization": config.spec.quantization,
        "encoder.d_model": config.encoder.d_model,
        "encoder.table": config.encoder.table,
        "decoder": config.decoder.kind,
        "experts": config.experts,
        "decoder.n_mixtures": getattr(config.decoder, "n_mixtures", None),
    }
    if isinstance(config.model, NoBackboneConfig):
        return fields
    backbone = dataclasses.replace(config.model, dropout=0.0, dropres=0.0)
    return fields | {f"model.{f.name}": getattr(backbone, f.name) for f in dataclasses.fields(backbone)}
