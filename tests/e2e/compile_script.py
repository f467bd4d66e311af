"""Run by `test_compile.py` in a process of its own: the tests' checks of shapes would break torch.compile's graphs.

python compile_script.py trace    one graph from codes to features and one for the DML head, for every kind of model
python compile_script.py train NAME    losses of ten compiled steps against ten eager ones
"""

import sys
import warnings

import torch
from torch._dynamo.testing import CompileCounter

from stereo_sashimi.data.dataset import Batch
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn import CategoricalHeadConfig, DMLHeadConfig, EmbeddingConfig, S4DConfig
from stereo_sashimi.nn.s4 import S4Config
from stereo_sashimi.schema import to_plain
from stereo_sashimi.spec import AudioSpec
from stereo_sashimi.tasks import AutoregressiveTask
from stereo_sashimi.tasks.optim import AdamWConfig

HEADS = {"categorical": CategoricalHeadConfig("autoregressive"), "dml": DMLHeadConfig("autoregressive")}
LAYERS = {"s4": S4Config(d_state=4), "s4d": S4DConfig(d_state=4)}


def config(channels: int, head: str, layer: str, merge: str = "concat", **options: object) -> LanguageModelConfig:
    backbone = SashimiConfig(**{"d_model": 4, "n_layers": 1, "pool": (2,), "layer": LAYERS[layer]} | options)
    coupled = HEADS[head] if merge != "none" else type(HEADS[head])()
    return LanguageModelConfig(AudioSpec(44100, channels, 8), EmbeddingConfig(4, merge), backbone, coupled)


def codes_of(channels: int, length: int) -> torch.Tensor:
    return torch.randint(256, (2, length, channels), generator=torch.Generator().manual_seed(1))


CASES = (
    # Channels, head, layer, other options, backend, activation checkpointing, carried state.
    (1, "categorical", "s4", {}, "auto", False, False),
    (2, "categorical", "s4d", {"unet": True}, "krylov", True, True),
    (1, "dml", "s4d", {}, "auto", True, False),
    (1, "dml", "s4", {"unet": True}, "auto", True, True),
    (2, "dml", "s4", {"unet": True}, "krylov", False, False),
    (2, "dml", "s4", {"merge": "none", "norm": "scalar", "pool_weight_norm": True}, "auto", True, False),
    (2, "dml", "s4d", {"merge": "mix", "dropout": 0.1, "dropres": 0.1}, "krylov", True, False),
)


def trace() -> None:
    """The whole way from codes to features and the DML head's loss: fullgraph makes a break an error."""
    for channels, head, layer, options, backend, checkpointing, carried in CASES:
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = config(channels, head, layer, **options).build(backend, checkpointing).train()
        codes = codes_of(channels, 16)
        weight = torch.full((2, 16), 1 / 32)
        state = model.initial_state(2) if carried else None
        counters = [CompileCounter(), CompileCounter()]
        forward, loss = (
            torch.compile(function, fullgraph=True, dynamic=False, backend=counter)
            for function, counter in zip((model.__call__, model.loss), counters, strict=True)
        )
        for _ in range(2):
            hidden, _ = forward(codes, state)
            # The categorical head is not compiled: it has loops of its own, over slices of logits.
            (loss if head == "dml" else model.loss)(hidden, codes, weight, False)[0].backward()
        found = [counter.frame_count for counter in counters]
        assert found == [1, int(head == "dml")], (channels, head, layer, options, backend, found)
        print(channels, head, layer, options, backend, "one graph")


def losses(model: LanguageModelConfig, mixed: bool, compile: bool, checkpointing: bool) -> list[float]:
    """Of ten training steps and a validation step behind them."""
    torch.manual_seed(0)
    options = {"compile": compile, "activation_checkpointing": checkpointing}
    task = AutoregressiveTask(model.to_plain(), to_plain(AdamWConfig()), **options).train()
    assert not [name for name in task.state_dict() if "_orig_mod" in name]
    # Nothing is attached that could take what is logged.
    task.log_dict = task.log = lambda *args, **kwargs: None
    optimizer = task.configure_optimizers()
    batch = Batch(codes_of(model.spec.n_channels, 64), torch.tensor([64, 64]), torch.arange(2))
    found = []
    for step in range(10):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            loss = task.training_step(batch, step)
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    with torch.no_grad():
        found.append(float(task.eval()._loss(batch, "val")))
    return found


STEPS = {
    "dml": (config(2, "dml", "s4"), False, False, 1e-4),
    "categorical": (config(1, "categorical", "s4d", pool=()), False, True, 1e-4),
    "mixed": (config(2, "dml", "s4", pool=()), True, True, 1e-2),
}


def train(name: str) -> None:
    """Compiled losses stay near eager ones, and nothing warns but of complex numbers."""
    model, mixed, checkpointing, tolerance = STEPS[name]
    eager = losses(model, mixed, False, False)
    with warnings.catch_warnings(record=True) as seen:
        # While it is imported and compiles, torch uses deprecated parts of itself.
        warnings.filterwarnings("ignore", ".*torch.jit.*|.*_prims_common.*")
        compiled = losses(model, mixed, True, checkpointing)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    kinds = 2 + 2 * 2 * len(model.model.pool)
    # Each kind of block in training and evaluation, and the DML head.
    assert graphs == 2 * (kinds + (name != "categorical")), graphs
    worst = max(abs(a - b) / abs(a) for a, b in zip(eager, compiled, strict=True))
    assert worst < tolerance, (eager, compiled)
    texts = {str(warning.message) for warning in seen}
    assert all("code generation for complex operators" in text for text in texts), texts
    print(f"{name}: {graphs} graphs, within {worst:.1e}")


{"trace": trace, "train": lambda: train(sys.argv[2])}[sys.argv[1]]()
