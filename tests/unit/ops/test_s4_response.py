"""How the response of an S4 layer is computed: decided once, refused when it cannot run, without effect on results."""

import sys

import pytest
import torch

from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.s4 import S4, S4Config, S4DConfig
from stereo_sashimi.ops import s4_response
from stereo_sashimi.ops.cpu import scan
from stereo_sashimi.ops.discretize import Discrete
from stereo_sashimi.ops.kernels import keops, krylov, triton
from stereo_sashimi.ops.s4_response import KERNELS, describe, resolve, respond


@pytest.mark.parametrize(
    ("backend", "config", "batch", "length", "device", "expected"),
    [
        ("auto", S4Config(d_state=4), 1, 9, "cpu", "scan"),
        ("auto", S4DConfig(d_state=4), 1, 9, "cpu", "scan"),
        ("auto", S4Config(d_state=4), 2, 9, "cpu", "kernel by scan"),
        ("auto", S4Config(d_state=4), 2, s4_response.MAX_STEPPED + 1, "cpu", "kernel by krylov"),
        ("auto", S4DConfig(d_state=4), 2, 9, "cpu", "kernel by krylov"),
        ("auto", S4Config(d_state=4), 1, 9, "meta", "kernel by krylov"),
        ("krylov", S4Config(d_state=4), 1, 9, "cpu", "kernel by krylov"),
        ("recurrent", S4Config(d_state=4), 2, 9, "cpu", "scan"),
        ("recurrent", S4Config(d_state=4), 2, 1, "cpu", "kernel by scan"),
    ],
)
def test_how_a_response_is_computed(backend, config, batch, length, device, expected, monkeypatch):
    """On CPUs `auto` steps through single clips, and makes the kernels of DPLR layers by steps up to MAX_STEPPED."""
    seen = []

    def noting(name, function):
        return lambda *args: (seen.append(name), function(*args))[1]

    for module, name in ((scan, "scan"), (krylov, "krylov")):
        noted = noting(f"kernel by {name}", module.kernel)
        monkeypatch.setattr(module, "kernel", noted)
        monkeypatch.setitem(KERNELS, {"scan": "recurrent"}.get(name, name), noted)
    monkeypatch.setattr(scan, "scan", noting("scan", scan.scan))
    ssm = Discrete(*(None if field is None else field.to(device) for field in config.build(2).discretize()))
    respond(backend, ssm, torch.zeros(batch, length, 2, device=device), None)
    assert seen[0] == expected
    assert "recurrent" in describe(resolve("auto"))


@pytest.mark.parametrize("name", ["krylov", "reference"])
def test_a_named_backend_is_itself(name):
    assert resolve(name) == describe(name) == name
    assert name in KERNELS


@pytest.mark.parametrize("name", ["", "Krylov"])
def test_an_unknown_backend_is_refused_with_the_choices(name):
    choices = "backend must be one of auto, keops, krylov, recurrent, reference, triton"
    for build in (
        resolve,
        lambda backend: S4(4, S4Config(d_state=4), backend=backend),
        lambda backend: SashimiConfig(d_model=4, n_layers=1, pool=(2,)).build(backend=backend),
    ):
        with pytest.raises(ValueError, match=choices) as caught:
            build(name)
        assert repr(name) in str(caught.value)


@pytest.fixture
def fresh_probes():
    for module in (keops, triton):
        module.probe.cache_clear()
    yield
    for module in (keops, triton):
        module.probe.cache_clear()


@pytest.mark.usefixtures("fresh_probes")
def test_triton_is_chosen_by_name():
    pytest.importorskip("triton")
    assert resolve("triton") == "triton"


@pytest.mark.usefixtures("fresh_probes")
@pytest.mark.parametrize(
    ("module", "sums", "message"),
    [
        (keops, ImportError("no module named pykeops"), r"no module named pykeops.*pip install.*backend=auto"),
        (keops, 0.0, "wrong sums"),
        (triton, RuntimeError("Failed to find C compiler"), "C compiler"),
        (triton, 3.0, "wrong sums"),
    ],
)
def test_what_does_not_run_or_computes_nonsense_is_refused(monkeypatch, module, sums, message):
    def broken(v, a, w):
        if isinstance(sums, Exception):
            raise sums
        return torch.full((1, 1, 1), sums, dtype=torch.complex128)

    name = module.__name__.rpartition(".")[2]
    monkeypatch.setattr(triton, "interpreted", lambda: True)
    monkeypatch.setattr(module, f"{name}_sum", broken)
    with pytest.raises(s4_response.BackendError, match=message):
        resolve(name)


@pytest.mark.usefixtures("fresh_probes")
def test_without_triton_or_a_cuda_device_it_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with monkeypatch.context() as patch:
        patch.setattr(triton, "interpreted", lambda: False)
        with pytest.raises(s4_response.BackendError, match=r"needs a CUDA device.*backend=auto.*TRITON_INTERPRET=1"):
            resolve("triton")
    # What Python does for a module that is None here.
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "stereo_sashimi.ops.kernels.triton_programs", raising=False)
    monkeypatch.delattr(sys.modules["stereo_sashimi.ops.kernels"], "triton_programs", raising=False)
    with pytest.raises(s4_response.BackendError, match=r"needs the package triton.*pip install triton.*backend=auto"):
        resolve("triton")
