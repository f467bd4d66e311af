"""The experts as mathematics to read, in NumPy and float64; `loops.py` does the same thousands of times faster.

For channel c of a frame, x its code as a signed amplitude, and everything clipped to the range of the codes:

    least squares i   u_i: past codes of c and of the others      p_i = w_i u_i
                      R <- f R + g u u'   r <- f r + g x u       (R + ridge (1 - f)) w = r, now and then
                      g = (1 - f) / (mean |error| + 2)^0.75       between least squares and least absolute errors
    cascade j         x - p_j is the input of its first stage, what that one leaves the input of the next
                      stage: h its past inputs                    q = w h,  w <- w + step (input - q) h / (h h + 1)
    repetition        z(t) = x(t) - p_0(t); z(t - lag - 8) .. z(t - lag + 7) of all channels are the inputs of one more
                      least squares that predicts z(t), x(t - lag) - p_0(t) in place of the last one of c. Now and then
                      lag becomes that of the largest correlation of the last frames of z with any before
    mixed             least squares once more, over (p_0, p_i - p_0, all q, repetition), pulled to `prior` instead of 0;
                      the average of several, weighted by (running |error|)^-8
    value             mixed, and what one more stage predicts of its error
    spreads           running means of |x - value| at five rates
    mixture           logistics around value and experts, scales in spreads; weights by Bayes' rule, and fixed share

Sources: recursive least squares and NLMS as in Haykin, Adaptive Filter Theory (2014), chapters 6 and 10; a cascade of
them behind least squares over both channels as in MPEG-4 RLS-LMS (Liebchen et al. 2005) and in Sac (Sebastian
Lehmann); fixed share: Herbster and Warmuth (1998).
"""

import math

import numpy as np
from scipy.special import expit

from stereo_sashimi.experts.plan import (
    BLEND_RATE,
    FLOOR,
    LAST_ORDER,
    LAST_STEP,
    MAIN_SPREAD,
    MIX_EVERY,
    N_FEATURES,
    N_FRAME,
    N_MIXTURES,
    PAST_ERRORS,
    REPEAT_EVERY,
    REPEAT_FORGETTING,
    REPEAT_LEAST,
    REPEATED,
    RIDGE,
    SHARE,
    SHOWN_EXPERTS,
    SMALLEST_ERROR,
    SMALLEST_MASS,
    SMALLEST_SPREAD,
    SPREAD_RATES,
    YOUNG,
    ExpertsConfig,
    prior_of,
)


class _History:
    """Numbers that came one after the other, zeros before them."""

    def __init__(self) -> None:
        self.numbers: list[float] = []

    def last(self, n: int, delay: int = 0) -> np.ndarray:
        """The last n numbers, the newest at the end; `delay`: but so many."""
        end = len(self.numbers) - delay
        known = self.numbers[max(0, end - n) : max(0, end)]
        return np.array([0.0] * (n - len(known)) + known)


class _LeastSquares:
    """Weighted least squares with forgetting."""

    def __init__(self, prior: np.ndarray, forgetting: float, every: int) -> None:
        self.prior, self.forgetting, self.every = prior, forgetting, every
        self.weights = prior.copy()
        self.covariance, self.cross = np.zeros((len(prior), len(prior))), np.zeros(len(prior))
        self.mean_error, self.waiting = 0.0, 0

    def learn(self, u: np.ndarray, x: float, prediction: float, frames: int) -> None:
        """A frame with inputs u and target x, behind so many `frames`; now and then solved anew, at first with each."""
        f = self.forgetting
        self.mean_error = 0.5 * self.mean_error + 0.5 * abs(x - prediction)
        gain = (1 - f) / (self.mean_error + FLOOR) ** 0.75
        self.covariance = f * self.covariance + gain * np.outer(u, u)
        self.cross = f * self.cross + gain * (x - self.prior @ u) * u
        self.waiting += 1
        if self.waiting >= (self.every if frames < len(u) else min(self.every, 1 + frames // YOUNG)):
            self.waiting = 0
            ridge = RIDGE * (1 - f) * np.eye(len(u))
            self.weights = self.prior + np.linalg.solve(self.covariance + ridge, self.cross)


class _Stage:
    """NLMS over `order` past inputs, and those of the same stage of other channels where it has weights for them."""

    def __init__(self, order: int, n_others: int, step: float) -> None:
        self.order, self.step, self.weights = order, step, np.zeros((1 + n_others) * order)
        self.inputs = _History()

    def predict(self, before: list["_Stage"], after: list["_Stage"], delay: int) -> float:
        """What its next input will be; the stages are those of the channels before and after this one."""
        parts = [stage.inputs.last(self.order, delay) for stage in before]
        parts += [self.inputs.last(self.order), *(stage.inputs.last(self.order) for stage in after)]
        alone = len(self.weights) == self.order
        self.read = parts[len(before)] if alone else np.concatenate(parts)
        self.prediction = float(self.weights @ self.read)
        return self.prediction

    def learn(self, target: float) -> float:
        """Take the input; returns what the prediction left of it."""
        left = target - self.prediction
        self.weights += self.step * left / (self.read @ self.read + 1) * self.read
        self.inputs.numbers.append(target)
        return left


class _Channel:
    def __init__(self, config: ExpertsConfig, n_others: int) -> None:
        self.codes = _History()
        sizes = zip(config.own, config.other, config.forgetting, config.every, strict=True)
        self.least_squares = [_LeastSquares(np.zeros(own + n_others * other), f, n) for own, other, f, n in sizes]
        ends = [0] * (len(config.orders) - 1) + [n_others]
        self.stages = [
            _Stage(order, others, step)
            for step in config.steps
            for order, others in zip(config.orders, ends, strict=True)
        ]
        self.rest = _History()
        self.repetition = _LeastSquares(np.zeros(REPEATED * (1 + n_others)), REPEAT_FORGETTING, REPEAT_EVERY)
        prior = prior_of(config)[: config.n_mixed]
        self.mixing = [_LeastSquares(prior, forgetting, MIX_EVERY) for forgetting in config.mixing]
        self.mixing_errors = np.zeros(len(config.mixing))
        self.last = _Stage(LAST_ORDER, 0, LAST_STEP)
        self.spreads = np.ones(len(SPREAD_RATES))
        self.posterior = np.full(N_MIXTURES, 1 / N_MIXTURES)


class ReferenceExperts:
    """The experts of one recording, from its start.

    Args:
        coupled: A channel reads the codes of those before it in the same frame.
    """

    def __init__(self, config: ExpertsConfig, n_channels: int, n_levels: int, coupled: bool) -> None:
        self.config, self.n_levels, self.coupled = config, n_levels, coupled
        self.channels = [_Channel(config, n_channels - 1) for _ in range(n_channels)]
        self.n_frames = self.lag = 0

    def run(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of `codes` (length, channels): what `loops.run` writes, bases and frames."""
        bases, frames = np.zeros(codes.shape, np.int64), np.zeros((*codes.shape, N_FRAME))
        for t, frame in enumerate(codes):
            for c, code in enumerate(frame):
                self.predict(c)
                bases[t, c] = math.floor(self.values[0] + 0.5) + self.n_levels // 2
                frames[t, c, :-1] = self.describe(c)
                frames[t, c, -1] = self.learn(c, int(code))
            self.n_frames += 1
            if self.config.repeats and self.n_frames % self.config.search == 0:
                self.search()
        return bases, frames

    def search(self) -> None:
        """Set the lag, where there is anything alike."""
        n, length = min(self.n_frames, self.config.repeats), self.config.match
        if n < 2 * length:
            return
        z = np.sum([c.rest.last(n) for c in self.channels], axis=0).astype(np.float32).astype(np.float64)
        now = z[-length:]
        places = np.lib.stride_tricks.sliding_window_view(z[:-length], length)
        power, own = (places**2).sum(1), now @ now
        alike = np.where(power >= 1, places @ now / np.sqrt(np.maximum(power, 1) * max(own, 1)), 0)
        if own >= 1 and alike.max() > REPEAT_LEAST:
            self.lag = n - length - int(alike.argmax())

    def predict(self, c: int) -> None:
        """The values of all experts for channel c."""
        own, config = self.channels[c], self.config
        before, after = self.channels[:c], self.channels[c + 1 :]
        # The channels before have this frame's code already; without coupling it is passed over.
        delay = 0 if self.coupled else 1
        self.read = []
        for n_own, n_other in zip(config.own, config.other, strict=True):
            parts = [other.codes.last(n_other, delay) for other in before]
            parts += [other.codes.last(n_other) for other in after]
            self.read.append(np.concatenate([own.codes.last(n_own), *parts]))
        predictions = [self._clip(ls.weights @ u) for ls, u in zip(own.least_squares, self.read, strict=True)]
        found = [
            stage.predict([o.stages[i] for o in before], [o.stages[i] for o in after], delay)
            for i, stage in enumerate(own.stages)
        ]
        n = len(config.orders)
        cascades = [self._clip(predictions[j] + sum(found[n * j : n * (j + 1)])) for j in range(len(config.steps))]
        if self.lag:
            # Of channels before, this frame is known as well.
            order, delay = [own, *before, *after], self.lag - REPEATED // 2
            self.around = np.concatenate([o.rest.last(REPEATED, delay + (o in before)) for o in order])
            # What would be left over if the code were that of then, in place of the last one.
            self.around[REPEATED - 1] = own.codes.last(1, self.lag - 1)[0] - predictions[0]
        if config.repeats:
            found.append(float(own.repetition.weights @ self.around) if self.lag else 0.0)
        self.mixed = np.array([predictions[0], *(p - predictions[0] for p in predictions[1:]), *found])
        self.means = [self._clip(ls.weights @ self.mixed) for ls in own.mixing]
        self.mean = self._clip(np.average(self.means, weights=(own.mixing_errors + SMALLEST_ERROR) ** -8.0))
        self.values = [self._clip(self.mean + own.last.predict([], [], 0)), *predictions, *cascades]

    def describe(self, c: int) -> np.ndarray:
        """Means from the nearest code, log scales and log weights of the reference mixture, and features."""
        own = self.channels[c]
        experts, spreads, factors = map(np.array, zip(*self.config.mixture(), strict=True))
        values, sizes = np.array(self.values), np.maximum(own.spreads, SMALLEST_SPREAD)
        self.places = values[experts] - math.floor(values[0] + 0.5)
        self.log_scales = np.log(sizes[spreads]) + np.log(factors)
        spread = sizes[MAIN_SPREAD]
        loud = np.log(spread) - max(0.0, math.log(self.n_levels / 65536))
        features = [loud / 4 - 1, *np.log(np.delete(sizes, MAIN_SPREAD) / spread)]
        features += [_squashed((value - values[0]) / spread) for value in values[1 : 1 + SHOWN_EXPERTS]]
        features += [_squashed(error / spread) for error in own.last.inputs.last(PAST_ERRORS)[::-1]]
        if self.coupled and c > 0:
            before = self.channels[c - 1]
            now = before.last.inputs.last(1)[0] / max(before.spreads[MAIN_SPREAD], SMALLEST_SPREAD)
            features.append(_squashed(now))
        features += [0.0] * (N_FEATURES - len(features))
        return np.concatenate([self.places, self.log_scales, np.log(own.posterior), features])

    def learn(self, c: int, code: int) -> float:
        """Everything in channel c learns from its code. Returns the error of the best prediction, in spreads."""
        own, x = self.channels[c], float(code - self.n_levels // 2)
        for ls, u, value in zip(own.least_squares, self.read, self.values[1:], strict=False):
            ls.learn(u, x, value, self.n_frames)
        n, rest = len(self.config.orders), x - self.values[1]
        for j in range(len(self.config.steps)):
            left = x - self.values[1 + j]
            for stage in own.stages[n * j : n * (j + 1)]:
                left = stage.learn(left)
        if self.lag:
            own.repetition.learn(self.around, rest, self.mixed[-1], self.n_frames)
        own.rest.numbers.append(rest)
        for ls, mean in zip(own.mixing, self.means, strict=True):
            ls.learn(self.mixed, x, mean, self.n_frames)
        own.mixing_errors += BLEND_RATE * (np.abs(x - np.array(self.means)) - own.mixing_errors)
        own.last.learn(x - self.mean)
        own.posterior *= np.maximum(self._masses(code), SMALLEST_MASS)
        own.posterior = own.posterior / own.posterior.sum() * (1 - SHARE) + SHARE / N_MIXTURES
        error = (x - self.values[0]) / max(own.spreads[MAIN_SPREAD], SMALLEST_SPREAD)
        own.spreads += np.array(SPREAD_RATES) * (abs(x - self.values[0]) - own.spreads)
        own.codes.numbers.append(x)
        return _squashed(error)

    def _masses(self, code: int) -> np.ndarray:
        """What each logistic of the mixture gives to `code`: its cell, the tail beyond it at either end."""
        distance = code - self.n_levels // 2 - math.floor(self.values[0] + 0.5) - self.places
        scale = np.exp(self.log_scales)
        upper, lower = expit((distance + 0.5) / scale), expit(-(distance - 0.5) / scale)
        if code == 0:
            return upper
        return lower if code == self.n_levels - 1 else upper * lower * -np.expm1(-1 / scale)

    def _clip(self, value: float) -> float:
        return min(max(float(value), -self.n_levels / 2), self.n_levels / 2 - 1)


def _squashed(x: float) -> float:
    """x, bent to stay within -4 and 4."""
    return 4 * x / (4 + abs(x))
