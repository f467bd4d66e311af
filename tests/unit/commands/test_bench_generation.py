"""How long a window of generation is, and which engines are measured."""

import pytest
import torch
from benchmarks import generation

from stereo_sashimi.models import SashimiConfig
from stereo_sashimi.models.language_model import LanguageModelConfig
from stereo_sashimi.nn import EmbeddingConfig
from stereo_sashimi.spec import AudioSpec

CPU = torch.device("cpu")


class Clock:
    """Draws `frames_per_s` on a clock of its own, the first call of each length a tenth slower."""

    def __init__(self, frames_per_s: float) -> None:
        self.frames_per_s, self.drawn = frames_per_s, []

    def draw(self, frames: int) -> None:
        self.drawn.append(frames)

    def repeated(self, work, device, *, warmup, repeats):
        work()
        return [1.1 * self.drawn[-1] / self.frames_per_s]


@pytest.mark.parametrize("frames_per_s", [3.0, 100.0, 12_345.0, 1e7])
@pytest.mark.parametrize("stride", [1, 16])
def test_a_window_is_whole_rounds_that_take_long_enough(monkeypatch, frames_per_s, stride):
    clock = Clock(frames_per_s)
    monkeypatch.setattr(generation, "repeated", clock.repeated)
    frames = generation.window_frames(clock.draw, stride, 0.5, CPU)
    assert frames % stride == 0
    assert frames == clock.drawn[-1], "a window of this length has been drawn already"
    assert 1.1 * frames / frames_per_s >= 0.5
    assert frames <= max(2 * 0.5 * frames_per_s, 2 * stride), "not much longer than it has to be"
    assert clock.drawn[0] == stride
    assert len(clock.drawn) < 12


@pytest.mark.parametrize(
    ("engines", "names"),
    [
        (("reference",), ["reference"]),
        (("auto",), ["chosen", "reference"]),
        (("reference", "other", "auto", "chosen"), ["other", "chosen", "reference"]),
    ],
)
def test_each_engine_is_measured_once_and_the_reference_last(monkeypatch, engines, names):
    config = LanguageModelConfig(AudioSpec(44100, 1, 8), EmbeddingConfig(4), SashimiConfig(d_model=4, n_layers=1))

    class Chosen:
        name = "chosen"

    monkeypatch.setattr(generation, "resolve", lambda engine, model: Chosen)
    assert generation._names(engines, config.build()) == names
