"""How far generated audio is from reference audio: distances between the distributions of the windows' metrics.

1-Wasserstein: how far the values of one side have to move, on average, to become those of the other, in the unit of
the metric. For angles the way leads around a circle: with D = F - G the difference of the distribution functions from
any cut, it is the least integral of |D - a| over all a, and the a is a median of D with respect to length (J. Rabin,
J. Delon, Y. Gousseau, Transportation Distances on the Circle, J. Math. Imaging Vis. 41, 2011, section 3).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy import stats

from stereo_sashimi.audio.io import AudioInfo, open_audio, probe
from stereo_sashimi.metrics.stereo_windows import UNITS, WINDOW_SECONDS, cuts, windows

# The underscore: two of them may have different lengths.
Values = Float64[np.ndarray, " _windows"]

# Windows that are read from a file at once.
_WINDOWS = 60
# Values that differ by rounding are equal: equal channels have correlation 1 or a few 1e-16 less, and the
# Kolmogorov-Smirnov statistic would tell the two apart. Full turns for angles, the metric's unit for the others.
_DECIMALS = 9


def compare(generated: Sequence[Path], reference: Sequence[Path]) -> dict[str, Any]:
    """Distances of every metric of `stereo_windows.windows`, as plain fields for JSON, None where a side has no value.

    - `distance`: 1-Wasserstein in the metric's `unit` (for angles along the circle, at most pi).
    - `ks`: the Kolmogorov-Smirnov statistic from 0 to 1 (for angles Kuiper's, which does not depend on the cut).
    - `floor`: the distance between the odd and the even files of the reference, or windows of a single file.
    - `median`, `quartiles` and `windows` of both sides, for angles outwards from the mean direction.

    Raises ValueError naming the files that cannot be compared.
    """
    sides = {"generated": [Path(path) for path in generated], "reference": [Path(path) for path in reference]}
    first = _check(sides)
    values = {side: [_measure(path) for path in paths] for side, paths in sides.items()}
    return {
        "sample_rate": first.sample_rate,
        "n_channels": first.n_channels,
        "window_seconds": WINDOW_SECONDS,
        **{
            side: {"files": len(files), "windows": sum(len(file["silent_share"]) for file in files)}
            for side, files in values.items()
        },
        "metrics": {
            name: _compare(name, *([file[name] for file in values[side]] for side in ("generated", "reference")))
            for name in values["reference"][0]
        },
    }


def circular_wasserstein(a: Values, b: Values) -> float:
    """1-Wasserstein distance of two sets of angles in radians along the circle, 0 to pi; each set has 1 or more."""
    turns_a, turns_b = _turns(a), _turns(b)
    points = np.unique(np.concatenate([turns_a, turns_b]))
    # From each point to the next one the difference is constant; after the last one comes the first again.
    difference = _difference(turns_a, turns_b, points)
    lengths = np.diff(points, append=points[0] + 1)
    order = np.argsort(difference)
    middle = np.searchsorted(np.cumsum(lengths[order]), lengths.sum() / 2)
    median = difference[order][min(int(middle), len(points) - 1)]
    return float(2 * np.pi * np.sum(lengths * np.abs(difference - median)))


def kolmogorov_smirnov(a: Values, b: Values) -> float:
    """Largest difference of the distribution functions, 0 to 1, of two sets of 1 or more finite values each.

    scipy.stats.ks_2samp also makes a p-value, which divides by 0 for one value on each side.
    """
    a, b = np.sort(a.round(_DECIMALS)), np.sort(b.round(_DECIMALS))
    return float(np.abs(_difference(a, b, np.unique(np.concatenate([a, b])))).max())


def kuiper(a: Values, b: Values) -> float:
    """Kuiper's statistic of two sets of angles in radians: max(F - G) + max(G - F), 0 to 1, the same from any cut.

    N. H. Kuiper, Tests concerning random points on a circle, Proc. K. Ned. Akad. Wet. A 63, 1960. 1 or more each.
    """
    turns_a, turns_b = _turns(a), _turns(b)
    difference = _difference(turns_a, turns_b, np.unique(np.concatenate([turns_a, turns_b])))
    return float(difference.max() - difference.min())


def _check(sides: dict[str, list[Path]]) -> AudioInfo:
    """The first file; raises ValueError unless all of them can be compared with it."""
    if empty := [side for side, paths in sides.items() if not paths]:
        raise ValueError(
            f"there are no {empty[0]} files to compare; one or more are needed.\n"
            "  Name a folder that holds .wav, .flac or .ogg files."
        )
    infos = [probe(path) for paths in sides.values() for path in paths]
    first = infos[0]
    for info in infos:
        if not info.frames:
            raise ValueError(f"{info.path}: the file has 0 frames.\n  Make it again, or take it out of the folder.")
        if info.n_channels > 2:
            raise ValueError(
                f"{info.path}: {info.n_channels} channels; 1 or 2 can be compared.\n  Mix it down, or take it out."
            )
        if info.n_channels != first.n_channels:
            raise ValueError(
                f"{first.path} has {first.n_channels} channels, {info.path} has {info.n_channels}; all files need the "
                "same number.\n  Compare stereo with stereo and mono with mono: take out or convert the others."
            )
        if info.sample_rate != first.sample_rate:
            raise ValueError(
                f"{first.path} has {first.sample_rate} Hz, {info.path} has {info.sample_rate} Hz; all files need the "
                "same sample rate.\n  Resample the reference to the rate of the generated files."
            )
    return first


def _measure(path: Path) -> dict[str, Values]:
    """The windows of one file, read in pieces of whole windows."""
    with open_audio(path) as file:
        rate = file.info.sample_rate
        found = cuts(file.info.frames, rate)
        pieces = []
        for group in (found[i : i + _WINDOWS] for i in range(0, len(found), _WINDOWS)):
            start, end = group[0][0], group[-1][1]
            pieces.append(windows(file.read(start, end - start)[0], rate))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _compare(name: str, generated: list[Values], reference: list[Values]) -> dict[str, Any]:
    """One metric, from an array per file."""
    circular = name.split("/")[0] == "phase_difference"
    several = len(reference) > 1
    halves = [_defined(reference[half::2] if several else [reference[0][half::2]]) for half in (0, 1)]
    a, b = _defined(generated), _defined(reference)
    distance = circular_wasserstein if circular else stats.wasserstein_distance
    statistic = kuiper if circular else kolmogorov_smirnov
    return {
        "distance": float(distance(a, b)) if len(a) and len(b) else None,
        "ks": statistic(a, b) if len(a) and len(b) else None,
        "floor": float(distance(*halves)) if all(map(len, halves)) else None,
        "unit": UNITS[name.split("/")[0]],
        "generated": _summary(a, circular),
        "reference": _summary(b, circular),
    }


def _defined(files: list[Values]) -> Values:
    values = np.concatenate(files)
    return values[~np.isnan(values)]


def _summary(values: Values, circular: bool) -> dict[str, Any]:
    if not len(values):
        return {"median": None, "quartiles": None, "windows": 0}
    centre = float(np.angle(np.exp(1j * values).mean())) if circular else 0.0
    quantiles = np.quantile(_wrap(values - centre) if circular else values, [0.25, 0.5, 0.75])
    lower, median, upper = (float(q) for q in (_wrap(quantiles + centre) if circular else quantiles))
    return {"median": median, "quartiles": [lower, upper], "windows": len(values)}


def _wrap(angles: Values) -> Values:
    """Angles from -pi (included) to pi."""
    return (angles + np.pi) % (2 * np.pi) - np.pi


def _turns(angles: Values) -> Values:
    """Sorted, in full turns from 0 to 1, rounded; -pi and pi are one."""
    return np.sort(np.round(angles / (2 * np.pi), _DECIMALS) % 1)


def _difference(a: Values, b: Values, points: Values) -> Values:
    """Difference of the distribution functions of two sorted sets, at the points."""
    return np.searchsorted(a, points, "right") / len(a) - np.searchsorted(b, points, "right") / len(b)
