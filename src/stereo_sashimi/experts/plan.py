"""The sizes of a bank of experts, and where each of their numbers stands in the state that the loops carry."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from stereo_sashimi.ops.cpu.constants import SIMD_WIDTH

# Logistics of the reference mixture: one vector. Features of a channel: one less, and behind them the error.
N_MIXTURES, N_FEATURES = SIMD_WIDTH, SIMD_WIDTH - 1
# Means, log scales and log weights of the mixture, features, and, once the code is known, the error.
N_FRAME = 3 * N_MIXTURES + N_FEATURES + 1
# Past errors among the features.
PAST_ERRORS = 4
# Rates of the running means of |error|, fastest first, and the one that errors and features are measured in.
SPREAD_RATES = (1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2048)
MAIN_SPREAD = 2
# Scales of the reference mixture's logistics, in spreads.
FACTORS = (0.4, 0.65, 1.0)
# Order and step size of the last stage of all, which predicts the error of the mixed prediction.
LAST_ORDER, LAST_STEP = 32, 0.002
# Experts whose distance from the mixed prediction has room among the features.
SHOWN_EXPERTS = N_FEATURES - 1 - (len(SPREAD_RATES) - 1) - PAST_ERRORS - 1
# Spreads below this, in LSB, count as this.
SMALLEST_SPREAD = 0.05
# Past inputs of one stage of a cascade.
MAX_ORDER = 32768
MAX_REPEATS = 2**22
# Ridge of all least squares; a frame weighs (running |error| + FLOOR)**-0.75.
RIDGE, FLOOR = 1.0, 2.0
# Rate of the running |error| of those that mix, and what it is at least.
BLEND_RATE, SMALLEST_ERROR = 1 / 64, 0.01
# At first least squares are solved with every frame, and one frame more lies in between after every so many.
YOUNG = 512
# What fades stops here: in silence it would become subnormal, which takes processors 100 times as long.
TINY = 1e-100
# Share of the reference mixture's weights that each frame deals out evenly, and the least mass that counts.
SHARE, SMALLEST_MASS = 0.002, 1e-9
# Frames between two moves of the histories to the front of their room.
SLACK = 256
# Frames of a repetition that are read, half of them before the place that answers to now; forgetting of the least
# squares that reads them; the least correlation that counts as a repetition.
REPEATED, REPEAT_FORGETTING, REPEAT_LEAST = 16, 0.996, 0.15
# Frames between two solutions of that one, and of the least squares that mix.
REPEAT_EVERY, MIX_EVERY = 16, 2
# The front of a row's state: where the windows of all histories begin, the number of frames, and within a frame how
# many channels were asked about (`ask` and `hear` in `loops.py`), and the bases of each; frames since the repetition.
HEADER, POSITION, FRAMES, ASKED, BASES, LAG = SIMD_WIDTH, 0, 1, 2, 3, SIMD_WIDTH - 1


@dataclass(frozen=True)
class ExpertsConfig:
    """A bank of experts for each channel, all of which read past codes as signed amplitudes.

    Least squares with forgetting, one for each of:

    - `own`, `other`: past codes of the channel itself and of each other channel that it reads.
    - `forgetting`: what a frame counts less with every frame behind it, below 1.
    - `every`: frames between two solutions.

    One cascade of normalised LMS stages (NLMS) behind each of the first of them; a stage predicts what is left over:

    - `steps`: step size of each cascade, in (0, 1).
    - `orders`: past inputs that its stages read, multiples of 16; the last one reads the other channels' as well.

    - `repeats`: frames, so many past ones are searched for what is heard again (loops, samples); 0 for no search. One
      more least squares predicts from there what the first of them leaves over.
    - `match`: frames that are compared; `search`: frames between two searches.

    - `mixing`: forgetting of each of the least squares that mix all of these; what they say is averaged.

    Raises ValueError, naming the field, for any other value.
    """

    own: tuple[int, ...] = (32, 32, 16, 4)
    other: tuple[int, ...] = (16, 16, 8, 4)
    forgetting: tuple[float, ...] = (0.998, 0.9998, 0.98, 0.998)
    every: tuple[int, ...] = (4, 32, 8, 8)
    steps: tuple[float, ...] = (0.1, 0.02)
    orders: tuple[int, ...] = (1024, 256, 32)
    repeats: int = 262144
    match: int = 512
    search: int = 2048
    mixing: tuple[float, ...] = (0.98, 0.995, 0.9985, 0.9997)

    def __post_init__(self) -> None:
        for name in ("own", "other", "forgetting", "every", "steps", "orders", "mixing"):
            # Lists come from YAML and JSON.
            object.__setattr__(self, name, tuple(getattr(self, name)))
        lengths = {name: len(getattr(self, name)) for name in ("own", "other", "forgetting", "every")}
        if len(set(lengths.values())) > 1 or not self.own:
            raise ValueError(f"experts: own, other, forgetting and every need as many values each; got {lengths}.")
        if len(self.steps) > len(self.own):
            raise ValueError(f"experts.steps has {len(self.steps)} cascades for {len(self.own)} least squares.")
        fits = self.match >= REPEATED and 4 * self.match <= self.repeats <= MAX_REPEATS and self.search >= 1
        if self.repeats and not fits:
            raise ValueError(
                f"experts.repeats must be 0, or 4 times experts.match to {MAX_REPEATS}, match at least {REPEATED} and "
                f"search at least 1; got repeats={self.repeats}, match={self.match}, search={self.search}."
            )
        if not 1 <= len(self.mixing) <= SIMD_WIDTH // 2:
            raise ValueError(f"experts.mixing must have 1 to {SIMD_WIDTH // 2} values; got {self.mixing}.")
        if self.n_mixed > SIMD_WIDTH:
            raise ValueError(
                f"experts: at most {SIMD_WIDTH} predictions can be mixed (least squares, stages of all cascades, the "
                f"repetition); these are {self.n_mixed}."
            )
        for name, low, high in (("own", 1, 64), ("other", 0, 64), ("every", 1, 1024)):
            if not all(low <= value <= high for value in getattr(self, name)):
                raise ValueError(f"experts.{name} must hold {low} to {high}; got {getattr(self, name)}.")
        for name in ("forgetting", "steps", "mixing"):
            if not all(0 < value < 1 for value in getattr(self, name)):
                raise ValueError(f"experts.{name} must lie between 0 and 1; got {getattr(self, name)}.")
        if not all(0 < order <= MAX_ORDER and order % SIMD_WIDTH == 0 for order in self.orders):
            raise ValueError(f"experts.orders must be multiples of {SIMD_WIDTH} up to {MAX_ORDER}; got {self.orders}.")

    @property
    def n_mixed(self) -> int:
        """Predictions that are mixed: those of the least squares, of all stages, of the repetition."""
        return len(self.own) + len(self.steps) * len(self.orders) + (self.repeats > 0)

    @property
    def n_experts(self) -> int:
        """The mixed prediction, the least squares, the cascades."""
        return 1 + len(self.own) + len(self.steps)

    def mixture(self) -> list[tuple[int, int, float]]:
        """The reference mixture: expert, spread and scale in spreads of each logistic.

        Four spreads around the mixed prediction, and some logistics around other experts.
        """
        around = [(0, spread, factor) for spread in (1, 2, 3, 4) for factor in FACTORS]
        rest = range(N_MIXTURES - len(around))
        return around + [(1 + i % (self.n_experts - 1), MAIN_SPREAD, FACTORS[1]) for i in rest]


class Plan(NamedTuple):
    """A bank of experts as the loops read it. Places are those in a channel's part of a row's state."""

    n_channels: int
    coupled: bool  # whether a channel reads the codes of those before it in the same frame
    n_levels: int
    loudness: float  # log of a spread that is one LSB of 16 bits; of fewer bits, one of theirs
    least_squares: np.ndarray  # LEAST_SQUARES
    stages: np.ndarray  # STAGE: of all cascades one after the other, then the last stage of all
    n_stages: int  # of one cascade
    repeat: np.ndarray  # LEAST_SQUARES, one or none: that of the repetition
    repeats: int
    search: int
    match: int
    rest: int  # what the first least squares left over of the last `repeats` frames, in turn
    past: int  # the codes of these frames
    n_mixed: int
    prior: np.ndarray  # weights of what is mixed, before anything is learnt
    mixture: np.ndarray  # COMPONENT
    history: int  # past codes
    window: int  # as many as any of the least squares reads
    values: int  # what each expert predicts
    mixed: int  # what is mixed
    mixes: np.ndarray  # LEAST_SQUARES: those that mix
    blend: int  # what each of them predicts and its running |error|, and what these predict together
    spreads: int
    posterior: int  # weights of the reference mixture's logistics
    channel: int  # numbers of a channel
    scratch: int  # room of a row to solve equations in, behind the header and the channels
    size: int  # of a row


LEAST_SQUARES = np.dtype(
    [(name, np.int64) for name in ("own", "other", "inputs", "width", "every", "x", "rows", "w", "error")]
    + [("forgetting", np.float64)],
    align=True,
)
STAGE = np.dtype(
    [(name, np.int64) for name in ("order", "others", "x", "w", "found")] + [("step", np.float64)], align=True
)
COMPONENT = np.dtype([("expert", np.int64), ("spread", np.int64), ("log_factor", np.float64)], align=True)


@lru_cache
def plan_of(config: ExpertsConfig, n_channels: int, n_levels: int, coupled: bool) -> Plan:
    """What the loops read; `coupled`: a channel reads the codes of those before it in the same frame."""
    room, others = _Room(), n_channels - 1
    window = _up(max(*config.own, *config.other))
    history = room.take(window + SLACK)
    least_squares = np.zeros(len(config.own), LEAST_SQUARES)
    for i, forgetting in enumerate(config.forgetting):
        inputs = config.own[i] + config.other[i] * others
        width = _up(inputs)
        places = room.least_squares(inputs, width, config.every[i])
        least_squares[i] = (config.own[i], config.other[i], inputs, width, config.every[i], *places, forgetting)
    repeat = np.zeros(int(config.repeats > 0), LEAST_SQUARES)
    for i in range(len(repeat)):
        inputs = REPEATED * n_channels
        width = _up(inputs)
        places = room.least_squares(inputs, width, REPEAT_EVERY)
        repeat[i] = (REPEATED, REPEATED, inputs, width, REPEAT_EVERY, *places, REPEAT_FORGETTING)
    sizes = [(order, step) for step in config.steps for order in config.orders]
    stages = np.zeros(len(sizes) + 1, STAGE)
    for i, (order, step) in enumerate([*sizes, (LAST_ORDER, LAST_STEP)]):
        reads = others if i < len(sizes) and i % len(config.orders) == len(config.orders) - 1 else 0
        # `found`: its prediction, the power of its inputs.
        stages[i] = (order, reads, room.take(order + SLACK), room.take(order * (1 + reads)), room.take(2), step)
    mixes = np.zeros(len(config.mixing), LEAST_SQUARES)
    for i, forgetting in enumerate(config.mixing):
        places = room.least_squares(config.n_mixed, SIMD_WIDTH, MIX_EVERY)
        mixes[i] = (config.n_mixed, 0, config.n_mixed, SIMD_WIDTH, MIX_EVERY, *places, forgetting)
    rest = [room.take(2 * SIMD_WIDTH) for _ in range(5)]
    mixture = np.array([(e, spread, np.log(factor)) for e, spread, factor in config.mixture()], COMPONENT)
    solved = np.concatenate([least_squares, repeat])
    scratch = max((SIMD_WIDTH + 3) * SIMD_WIDTH, *(int(max(r["inputs"] + 3, r["every"]) * r["width"]) for r in solved))
    over, past = room.take(config.repeats), room.take(config.repeats)
    single = dict(zip(("values", "mixed", "blend", "spreads", "posterior"), rest, strict=True))
    return Plan(
        n_channels=n_channels,
        coupled=coupled,
        n_levels=n_levels,
        loudness=max(0.0, math.log(n_levels / 65536)),
        least_squares=least_squares,
        stages=stages,
        n_stages=len(config.orders),
        repeat=repeat,
        repeats=config.repeats,
        search=config.search,
        match=config.match,
        rest=over,
        past=past,
        n_mixed=config.n_mixed,
        prior=prior_of(config),
        mixture=mixture,
        history=history,
        window=window,
        mixes=mixes,
        channel=room.size,
        scratch=HEADER + n_channels * room.size,
        size=HEADER + n_channels * room.size + scratch,
        **single,
    )


def _up(n: int) -> int:
    """The next multiple of SIMD_WIDTH."""
    return -(-n // SIMD_WIDTH) * SIMD_WIDTH


def prior_of(config: ExpertsConfig) -> np.ndarray:
    """The first least squares and the mean of the cascades."""
    prior = np.zeros(SIMD_WIDTH)
    prior[0] = 1.0
    stages = len(config.steps) * len(config.orders)
    prior[len(config.own) : len(config.own) + stages] = 1 / max(1, len(config.steps))
    return prior


class _Room:
    """Hands out places for so many numbers, each at a multiple of SIMD_WIDTH."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, numbers: int) -> int:
        place, self.size = self.size, self.size + _up(numbers)
        return place

    def least_squares(self, inputs: int, width: int, every: int) -> tuple[int, int, int, int]:
        """Inputs; frames that wait, gains, targets; weights, cross-covariance, covariance; error and count."""
        return (
            *(self.take(width), self.take(every * (width + 2))),
            *(self.take((2 + inputs) * width), self.take(2)),
        )
