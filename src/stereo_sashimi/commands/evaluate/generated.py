"""The part of the page about generated audio: how far it is from the reference, in which unit, and what that means."""

from collections.abc import Mapping
from typing import Any

# What a metric says, by the first part of its name; its unit stands in the table.
MEANINGS = {
    "loudness_lufs": "Loudness (ITU-R BS.1770). 1 LUFS is 1 dB.",
    "silent_share": "Part of the samples within one step of 16-bit PCM around zero.",
    "clipped_share": "Part of the samples at the ends of 16-bit PCM.",
    "centroid_hz": "Middle of the spectrum: how bright a sound is.",
    "flatness": "Of the spectrum: 0 of tones, 1 of white noise.",
    "fall_db": "Energy of the first half of a window over that of the second: how a sound dies away.",
    "crest_db": "Largest sample over the root mean square.",
    "side_mid_db": "Energy of L - R over L + R: the wider the image, the higher; 0 dB for unrelated channels.",
    "level_difference_db": "Energy of left over right; 0 dB is balanced.",
    "mono_loss_db": "Energy that a mix of both channels keeps: 0 dB all of it, -3 dB of unrelated channels.",
    "correlation": "Of left and right in a band (Hz): 1 equal, 0 unrelated, -1 inverted.",
    "coherence": "How far one channel follows from the other in a band (Hz), whatever delay lies between: 0 to 1.",
    "phase_difference": "Left against right in a band (Hz), -pi to pi; positive where right comes later.",
}
_UNITS = {"1": "", "share": "of 1"}


def by_family(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics in the order of MEANINGS, so that all bands of one stand together."""
    families = list(MEANINGS)
    return dict(sorted(metrics.items(), key=lambda item: families.index(item[0].split("/")[0])))


def meanings(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Those of the metrics that were measured."""
    return {name: MEANINGS[name] for name in dict.fromkeys(metric.split("/")[0] for metric in metrics)}


def distance_rows(metrics: Mapping[str, Mapping[str, Any]], nothing: str) -> list[list[str]]:
    """A head, then a row for each metric: unit, distance, floor, KS, median and quartiles of both sides."""
    rows = [["", "unit", "distance", "floor", "KS", "generated", "reference"]]
    for name, metric in metrics.items():
        numbers = [nothing if metric[key] is None else f"{metric[key]:.3g}" for key in ("distance", "floor", "ks")]
        sides = [
            f"{side['median']:.3g} ({side['quartiles'][0]:.3g} to {side['quartiles'][1]:.3g})"
            if side["windows"]
            else nothing
            for side in (metric["generated"], metric["reference"])
        ]
        rows.append([name, _UNITS.get(metric["unit"], metric["unit"]), *numbers, *sides])
    return rows
