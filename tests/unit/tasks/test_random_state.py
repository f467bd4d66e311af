"""Generators go through a checkpoint file and come out as they were."""

import random

import numpy as np
import torch

from stereo_sashimi.tasks.random_state import capture, from_plain, restore, to_plain

CPU = torch.device("cpu")


def draw() -> list[float]:
    # Normal deviates come in pairs: numpy and python keep the second.
    return [float(torch.randn(())), float(np.random.standard_normal()), random.gauss(0, 1), random.random()]  # noqa: NPY002


def test_all_generators_go_on_where_they_were(tmp_path):
    kept = capture(CPU)
    try:
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        random.seed(5)
        draw()
        torch.save(to_plain(capture(CPU)), tmp_path / "state.pt")
        expected = [draw() for _ in range(3)]
        restore(from_plain(torch.load(tmp_path / "state.pt", weights_only=True)), CPU)
        assert [draw() for _ in range(3)] == expected
        assert draw() != expected[0]
    finally:
        restore(kept, CPU)


def test_a_cuda_state_is_left_out_on_a_cpu():
    cpu, _, numpy, python = capture(CPU)
    restore((cpu, torch.zeros(16, dtype=torch.uint8), numpy, python), CPU)
    assert capture(CPU)[1] is None
