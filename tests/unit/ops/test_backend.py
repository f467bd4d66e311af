"""Which kernel backend runs: one choice, refused when it cannot run, and without effect on results."""

import pytest
import torch

from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.s4 import S4, S4Config, S4DConfig
from stereo_sashimi.ops import backend
from stereo_sashimi.ops.discretize import Discrete
from stereo_sashimi.ops.kernels import keops


def test_auto_steps_through_single_clips_on_cpus_only():
    dplr, diagonal = S4Config(d_state=4).build(2).discretize(), S4DConfig(d_state=4).build(2).discretize()
    short = torch.zeros(1, 9, 2)
    assert backend.steps("auto", dplr, short)
    assert not backend.steps("auto", dplr, short.expand(2, -1, -1))
    assert backend.steps("auto", diagonal, short)
    assert not backend.steps("krylov", dplr, short)
    on_gpu = Discrete(*(field.to("meta") for field in dplr))
    assert not backend.steps("auto", on_gpu, short.to("meta"))
    assert "recurrent" in backend.describe(backend.resolve("auto"))


@pytest.mark.parametrize("name", ["krylov", "reference"])
def test_a_named_backend_is_itself(name):
    assert backend.resolve(name) == name
    assert name in backend.KERNELS


@pytest.mark.parametrize("name", ["cuda", "", "Krylov", "Triton"])
def test_an_unknown_backend_is_refused_with_the_choices(name):
    with pytest.raises(
        ValueError, match="backend must be one of auto, keops, krylov, recurrent, reference, triton"
    ) as caught:
        backend.resolve(name)
    assert repr(name) in str(caught.value)


def test_layers_and_models_refuse_it_when_they_are_built():
    with pytest.raises(ValueError, match="backend"):
        S4(4, S4Config(d_state=4), backend="fast")
    with pytest.raises(ValueError, match="backend"):
        SashimiConfig(d_model=4, n_layers=1, pool=(2,)).build(backend="fast")


@pytest.fixture
def fresh_probe():
    backend._probe_keops.cache_clear()
    yield
    backend._probe_keops.cache_clear()


@pytest.mark.usefixtures("fresh_probe")
def test_a_backend_that_cannot_run_raises_and_says_what_to_do(monkeypatch):
    def broken(v: torch.Tensor, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        raise ImportError("no module named pykeops")

    monkeypatch.setattr(keops, "keops_sum", broken)
    with pytest.raises(RuntimeError, match="backend=auto") as caught:
        backend.resolve("keops")
    assert "no module named pykeops" in str(caught.value)
    assert "pip install" in str(caught.value)


@pytest.mark.usefixtures("fresh_probe")
def test_a_backend_that_computes_nonsense_is_refused(monkeypatch):
    monkeypatch.setattr(keops, "keops_sum", lambda v, a, w: torch.zeros(1, 1, 1, dtype=torch.complex128))
    with pytest.raises(RuntimeError, match="wrong sums"):
        backend.resolve("keops")


@torch.no_grad()
@pytest.mark.parametrize("config", [S4Config(d_state=8), S4DConfig(d_state=8)], ids=["s4", "s4d"])
def test_the_choice_changes_no_result(config):
    fast = S4(4, config).double()
    slow = S4(4, config, backend="reference").double()
    slow.load_state_dict(fast.state_dict())
    x = torch.randn(2, 23, 4, dtype=torch.float64)
    assert fast.backend != slow.backend
    torch.testing.assert_close(slow(x)[0], fast(x)[0], rtol=0, atol=1e-11)
    state = torch.randn(2, 4, 4, dtype=torch.complex128)
    torch.testing.assert_close(slow(x, state), fast(x, state), rtol=0, atol=1e-11)
