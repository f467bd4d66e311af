"""bf16-mixed: which numbers are float32 and which bfloat16, how near the losses stay; and that no step waits."""

from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn import CategoricalHeadConfig, DMLHeadConfig, EmbeddingConfig, S4DConfig
from stereo_sashimi.nn.block import FeedForward, Residual, ScalarNorm
from stereo_sashimi.nn.pooling import DownPool, UpPool
from stereo_sashimi.nn.s4 import S4, S4Config
from stereo_sashimi.ops import s4_response
from stereo_sashimi.ops.kernels import krylov
from stereo_sashimi.schema import to_plain
from stereo_sashimi.spec import AudioSpec
from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks.optim import AdamWConfig

HEADS = {"categorical": CategoricalHeadConfig("autoregressive"), "dml": DMLHeadConfig("autoregressive")}
LAYERS = {"s4": S4Config(d_state=8), "s4d": S4DConfig(d_state=8)}
ONE_LSB = 2 / 65536


def make(channels: int, head: str, layer: str = "s4", norm: str = "layer", bits: int = 8, **options: Any):
    torch.manual_seed(0)
    backbone = SashimiConfig(d_model=16, n_layers=1, pool=(2,), norm=norm, pool_weight_norm=norm == "scalar",
                             layer=LAYERS[layer])  # fmt: skip
    model = LanguageModelConfig(AudioSpec(44100, channels, bits), EmbeddingConfig(16), backbone, HEADS[head])
    task = AutoregressiveTask(model.to_plain(), to_plain(AdamWConfig()), **options).train()
    # Nothing is attached that could take what is logged.
    task.log_dict = task.log = lambda *args, **kwargs: None
    return task, task.configure_optimizers()


def batch_of(channels: int, bits: int = 8, length: int = 96) -> Batch:
    """Two clips of a slow sine and noise."""
    noise = torch.randn(2, length, channels, generator=torch.Generator().manual_seed(5))
    wave = torch.sin(torch.arange(length) / 7).view(1, length, 1) * 0.4 + 0.05 * noise
    codes = ((wave + 1) * 2 ** (bits - 1)).long().clamp(0, 2**bits - 1)
    return Batch(codes, torch.tensor([length, length]), torch.arange(2))


def losses(task: AutoregressiveTask, optimizer: torch.optim.Optimizer, batch: Batch, mixed: bool) -> list[float]:
    found = []
    for step in range(10):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            loss = task.training_step(batch, step)
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


# Here and below each pair of two options.
@pytest.mark.parametrize(
    ("head", "channels", "checkpointing"),
    [("categorical", 1, False), ("categorical", 2, True), ("dml", 1, True), ("dml", 2, False)],
)
def test_losses_stay_within_a_hundredth_of_float32(head, channels, checkpointing):
    batch = batch_of(channels)
    single = losses(*make(channels, head), batch, mixed=False)
    mixed = losses(*make(channels, head, activation_checkpointing=checkpointing), batch, mixed=True)
    assert mixed == pytest.approx(single, rel=1e-2)
    assert mixed != single
    assert single[-1] < 0.99 * single[0]


@pytest.mark.parametrize(
    ("head", "layer", "norm"),
    [
        ("categorical", "s4", "layer"),
        ("categorical", "s4d", "scalar"),
        ("dml", "s4d", "layer"),
        ("dml", "s4", "scalar"),
    ],
)
def test_what_is_float32_and_what_is_bfloat16(monkeypatch, head, layer, norm):
    task, optimizer = make(2, head, layer, norm)
    seen: dict[str, set[torch.dtype]] = defaultdict(set)

    def note(name: str, *values: object) -> None:
        seen[name] |= {value.dtype for value in values if isinstance(value, Tensor)}

    def hook(name: str, module: nn.Module) -> None:
        module.register_forward_hook(
            lambda module, args, result: note(name, *(result if isinstance(result, tuple) else (result,)))
        )

    for module in task.model.backbone.modules():
        if isinstance(module, Residual):
            hook("norms", module.norm)
            hook("residual stream", module)
        elif isinstance(module, (nn.LayerNorm, ScalarNorm)):
            hook("norms", module)
        elif isinstance(module, FeedForward):
            hook("mixing", module.input)
            hook("mixing", module.output)
        elif isinstance(module, S4):
            hook("mixing", module.output)
        elif isinstance(module, (DownPool, UpPool)):
            hook("mixing", module.linear)
            hook("residual stream", module)
    hook("residual stream", task.model.backbone)
    hook("residual stream", task.model.embedding)

    def noted(ssm, length, dtype):
        values = krylov.kernel(ssm, length, dtype)
        note("kernels", values)
        return values

    def respond(backend, ssm, u, state):
        y, after = s4_response.respond("krylov", ssm, u, state)
        note("convolution", u, y)
        note("discretisation", *ssm)
        return y, after

    monkeypatch.setitem(s4_response.KERNELS, "krylov", noted)
    monkeypatch.setattr("stereo_sashimi.nn.s4.respond", respond)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task.training_step(batch_of(2), 0)
        hidden = task.model.hidden_for(batch_of(2).codes)
        note("likelihoods", task.model.score(hidden, batch_of(2).codes).log_prob, loss)
        note("logits", task.model.head.channel_parameters(hidden, batch_of(2).codes[..., :1], 1))
    loss.backward()
    optimizer.step()
    note("parameters", *task.model.parameters())
    note("gradients", *(p.grad for p in task.model.parameters()))
    note("moments", *(value for state in optimizer.state.values() for value in state.values()))
    assert seen.pop("mixing") == {torch.bfloat16}
    # Poles lie next to the unit circle: A_bar is made in double precision.
    assert seen.pop("discretisation") == {torch.complex128}
    assert {name: dtypes for name, dtypes in seen.items() if dtypes != {torch.float32}} == {}
    assert set(seen) == {"norms", "residual stream", "kernels", "convolution", "likelihoods", "logits", "parameters",
                         "gradients", "moments"}  # fmt: skip


def test_a_mean_keeps_every_digit_of_16_bit_audio():
    """bfloat16 has 8 bits: a mean that went through it would jump by hundreds of LSB."""
    task, _ = make(2, "dml", bits=16)
    hidden = torch.randn(1, 200, task.model.backbone.width)
    codes = batch_of(2, 16, 200).codes[:1]
    expected = task.model.head.channel_parameters(hidden, codes[..., :1], 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = task.model.head.channel_parameters(hidden, codes[..., :1], 1)
    assert float((found - expected).detach().abs().max()) < ONE_LSB / 100


class Waits(TorchDispatchMode):
    """Refuses what makes the host wait for numbers of a device: their values, or shapes that depend on them."""

    NAMES = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        assert name not in self.NAMES, f"aten::{name} waits for the device"
        assert name != "index" or not any(i is not None and i.dtype == torch.bool for i in args[1]), (
            "a mask as an index"
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("channels", "head", "bits", "mixed", "layer"),
    [
        (channels, head, bits, mixed, layer)
        for channels, head, bits, crossed in (
            (1, "dml", 16, False), (2, "dml", 8, True), (1, "categorical", 8, True), (2, "categorical", 8, False)
        )
        for mixed, layer in ((False, "s4d" if crossed else "s4"), (True, "s4" if crossed else "s4d"))
    ],
)  # fmt: skip
def test_nothing_in_a_training_step_waits_for_the_device(channels, head, bits, mixed, layer):
    metrics = ["bpb"] if bits == 16 else ["bpb", "accuracy@3"]
    task, optimizer = make(channels, head, layer, bits=bits, metrics=metrics, activation_checkpointing=True,
                           frames_per_batch=192)  # fmt: skip
    batch = batch_of(channels, bits)
    for step in range(2):
        with Waits():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
                loss = task.training_step(batch, step)
            loss.backward()
        optimizer.step()


@pytest.mark.parametrize("wait", [float, bool, torch.nonzero, lambda x: x[x > 0]])
def test_waiting_is_noticed(wait):
    with Waits(), pytest.raises(AssertionError):
        wait(torch.ones(1))
