"""Configs of experts that learn in a few frames: of every part some, and one of the least."""

from stereo_sashimi.experts.plan import ExpertsConfig

SMALL = ExpertsConfig(
    own=(6, 9),
    other=(4, 2),
    forgetting=(0.99, 0.98),
    every=(4, 1),
    steps=(0.1, 0.02),
    orders=(32, 16),
    repeats=128,
    match=16,
    search=32,
)
TINY = ExpertsConfig(own=(6,), other=(4,), forgetting=(0.99,), every=(4,), steps=(0.1,), orders=(16,), repeats=0)
