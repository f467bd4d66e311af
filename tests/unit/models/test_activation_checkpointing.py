"""Activation checkpointing: a way of running. The same losses, gradients and states to the bit, in less memory."""

import pytest
import torch
from torch import Tensor

from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.nn import CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.nn.block import Residual
from tiny_config import S4D, tiny_config

BACKBONES = {
    "plain": {},
    "unet": {"unet": True, "norm": "scalar", "pool_weight_norm": True},
    "s4d": {"layer": S4D},
    "dropout": {"dropout": 0.2, "dropres": 0.3},
}
HEADS = {"dml": DMLHeadConfig("autoregressive"), "categorical": CategoricalHeadConfig("autoregressive")}


def build(fields: dict, checkpointing: bool, channels: int = 2, head: str = "dml") -> LanguageModel:
    torch.manual_seed(0)
    config = tiny_config(channels, head=HEADS[head], **{"n_layers": 2} | fields)
    return config.build(activation_checkpointing=checkpointing).train()


def codes_of(model: LanguageModel, length: int = 23) -> Tensor:
    return torch.randint(256, (2, length, model.spec.n_channels), generator=torch.Generator().manual_seed(1))


def calls(model: LanguageModel) -> list[torch.nn.Module]:
    """The list that every call of a residual block's layer is written to."""
    seen: list[torch.nn.Module] = []
    for module in model.modules():
        if isinstance(module, Residual):
            module.layer.register_forward_pre_hook(lambda layer, args: seen.append(layer))
    return seen


def losses_and_gradients(model: LanguageModel, steps: int = 2) -> list[Tensor]:
    torch.manual_seed(7)
    found = []
    for _ in range(steps):
        model.zero_grad()
        loss = -model.log_prob(codes_of(model)).mean()
        loss.backward()
        found += [loss.detach(), *(p.grad for p in model.parameters())]
    # What comes after has to draw the same numbers.
    return [*found, torch.rand(1)]


# Each pair of backbone, channels and head.
@pytest.mark.parametrize(
    ("name", "channels", "head"),
    [
        *((name, channels, head) for name in ("plain", "s4d") for channels, head in ((1, "dml"), (2, "categorical"))),
        *(
            (name, channels, head)
            for name in ("unet", "dropout")
            for channels, head in ((2, "dml"), (1, "categorical"))
        ),
    ],
)
def test_losses_and_gradients_are_equal_to_the_bit(name, channels, head):
    plain, twice = (build(BACKBONES[name], checkpointing, channels, head) for checkpointing in (False, True))
    expected, found = losses_and_gradients(plain), losses_and_gradients(twice)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_dropout_matters_here():
    first, second = (losses_and_gradients(build(BACKBONES[name], True))[0] for name in ("plain", "dropout"))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", ["plain", "unet", "dropout"])
def test_carried_segments_too(name):
    results = []
    for checkpointing in (False, True):
        model = build(BACKBONES[name], checkpointing)
        torch.manual_seed(3)
        state = model.initial_state(2)
        total = torch.zeros(())
        for segment in codes_of(model).split(9, dim=1):
            hidden, state = model(segment, state)
            total = total - model.score(hidden, segment).log_prob.mean()
        # Through the states: the gradient of the last segment reaches the first.
        total.backward()
        results.append(
            [total.detach(), *(p.grad for p in model.parameters()), *(x for x in state.layers if x is not None)]
        )
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_every_block_runs_twice_and_only_in_training():
    model = build(BACKBONES["unet"], True)
    seen = calls(model)
    blocks = [step.module.layer for step in model.backbone.schedule() if isinstance(step.module, Residual)]
    loss = model.log_prob(codes_of(model)).mean()
    assert seen == blocks
    loss.backward()
    assert len(seen) == 2 * len(blocks)
    assert seen[len(blocks) :] == blocks[::-1]
    for run in (
        lambda: model.eval().log_prob(codes_of(model)).mean().backward(),
        lambda: torch.no_grad()(model.train().log_prob)(codes_of(model)),
    ):
        seen.clear()
        run()
        assert seen == blocks


def test_one_tensor_a_block_is_kept():
    """Of a block, what the backward pass finds stored is its input."""

    def kept(checkpointing: bool, n_layers: int) -> int:
        model = build({"n_layers": n_layers, "pool": ()}, checkpointing)
        sizes = {}

        def pack(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        hidden = model.embedding(codes_of(model, 400))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out, _ = model.backbone(hidden)
        assert out.requires_grad
        return sum(sizes.values()) // (hidden.numel() * hidden.element_size())

    # S4 and FF in each layer, and the input of the norm at the end.
    assert [kept(True, n_layers) for n_layers in (1, 3)] == [2 + 1, 6 + 1]
    assert kept(False, 3) - kept(False, 1) > 2 * 10
