"""The page of an evaluation: evaluation.json and the audio files as one HTML file that needs nothing else.

The layout is in `page.html.jinja`; here numbers become text, pictures and audio become data: URIs.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from markupsafe import Markup

from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.commands.evaluate.recordings import Track
from stereo_sashimi.commands.shared.pages import PageTable, picture_uri, render_page, sound_uri
from stereo_sashimi.metrics.lossless import APART
from stereo_sashimi.plots.bits_curve import bits_curve
from stereo_sashimi.plots.quartiles import quartile_ranges
from stereo_sashimi.plots.sheet import sheet
from stereo_sashimi.spec import LN2, AudioSpec, bits_per_byte

MOST_PICTURED = 20
EXCERPT_SECONDS = 10
# The coder whose average is drawn in every curve.
COMPARED = "flac -8"
NOTHING = "\N{EN DASH}"
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

Plain = dict[str, Any]


def write_page(evaluation: Plain, sources: Mapping[str, Track], path: Path) -> None:
    """Write the page of an evaluation: numbers, curves, pictures and players in one HTML file without scripts.

    The first MOST_PICTURED tracks get pictures, and a player of at most EXCERPT_SECONDS from their middle, read again
    from `sources`, by their "file". Where a file is gone, changed or unreadable the page says so.
    Raises AudioError if the page cannot be written.
    """
    pictured = evaluation["tracks"][:MOST_PICTURED]
    page = render_page(
        "evaluate/page.html.jinja",
        {"plain": plain, "count": count},
        **evaluation,
        config=list(_leaves(evaluation["model"])),
        seconds=_seconds(evaluation["tracks"]),
        contexts_table=contexts_table(evaluation),
        pooled_table=pooled_table(evaluation),
        gain=gain_table(evaluation),
        distances=generated_section(evaluation["generated"]),
        tracks_table=tracks_table(evaluation),
        pictured=((track, _panels(evaluation, track, sources[track["file"]])) for track in pictured),
        n_pictured=len(pictured),
        compared=COMPARED,
    )
    write_whole(path, page)


def pooled_table(evaluation: Plain) -> PageTable:
    """All tracks together: a row for each context of the model and each lossless coder, the fewest bits in bold."""
    pooled, names, spec = evaluation["pooled"], list(_channels(evaluation)), evaluation["spec"]
    entries = {
        f"model, {context_label(name, spec['sample_rate'])}": pooled["contexts"][name]
        for name in evaluation["contexts"]
    }
    entries |= _coders(pooled["lossless"])
    fewest = min(entry["bits_per_sample"] for entry in entries.values())
    rows = []
    for label, entry in entries.items():
        bits = entry["bits_per_sample"]
        row = [label, three(bits), interval(entry["interval"]), three(bits_per_byte(bits, spec["bits"]))]
        row += [three(entry.get("channels", {}).get(name)) for name in names]
        rows.append([_bold(cell) for cell in row] if bits == fewest else row)
    return PageTable(["", "bits/sample", "95 % interval", "bits/byte", *names], rows)


def contexts_table(evaluation: Plain) -> PageTable | None:
    """What a longer context saves, against the main one; None for one context."""
    contexts, pooled = evaluation["contexts"], evaluation["pooled"]["contexts"]
    labels = [context_label(name, evaluation["spec"]["sample_rate"]) for name in contexts]
    bits = [pooled[name]["bits_per_sample"] for name in contexts]
    against = [NOTHING, *(f"{value - bits[0]:+.3f}" for value in bits[1:])]
    rows = [list(row) for row in zip(labels, map(three, bits), against, strict=True)]
    return PageTable(["context", "bits/sample", f"against {labels[0]}"], rows) if len(rows) > 1 else None


def gain_table(evaluation: Plain) -> PageTable | None:
    """With coupling, without, and the gain; None without a second model."""
    gain, tracks, channels = evaluation["pooled"]["cross_channel_gain"], evaluation["tracks"], _channels(evaluation)
    if gain is None:
        return None
    coupled = np.array(list(channels.values()))
    nats = np.sum([track["independent"]["channel_nats"] for track in tracks], axis=0)
    independent = nats / LN2 / sum(track["frames"] for track in tracks)
    last = ["gain", f"{gain['bits_per_sample']:+.3f}", interval(gain["interval"], "+.3f")]
    rows = [
        ["channels coupled", three(coupled.mean()), NOTHING, *map(three, coupled)],
        ["channels independent", three(independent.mean()), NOTHING, *map(three, independent)],
        [_bold(cell) for cell in (*last, *(f"{saved:+.3f}" for saved in independent - coupled))],
    ]
    return PageTable(["", "bits/sample", "95 % interval", *(name.partition(" | ")[0] for name in channels)], rows)


def tracks_table(evaluation: Plain) -> PageTable:
    """A row for each track and one for all of them; the fewest bits of a row are bold."""
    tracks, pooled, context = evaluation["tracks"], evaluation["pooled"], evaluation["contexts"][0]
    coders = list(dict.fromkeys(chain.from_iterable(_coders(track["lossless"]) for track in tracks)))

    def row(name: str, some: list[Plain], values: list[float | None]) -> list[str]:
        fewest = min(value for value in values if value is not None)
        return [name, f"{_seconds(some):,.2f}", *(_bold(three(v)) if v == fewest else three(v) for v in values)]

    rows = []
    for number, track in enumerate(tracks, 1):
        name, samples = track["file"], track["frames"] * track["n_channels"]
        bits = [math.fsum(track["contexts"][context]["channel_nats"]) / LN2]
        bits += [track["lossless"].get(coder) for coder in coders]
        link = Markup('<a href="#track-{}">{}</a>').format(number, name) if number <= MOST_PICTURED else name
        rows.append(row(link, [track], [None if value is None else value / samples for value in bits]))
    if len(tracks) > 1:
        # A coder that lacks a track has no total.
        totals = [pooled["contexts"][context], *(pooled["lossless"].get(coder) for coder in coders)]
        rows.append(row("all tracks", tracks, [total and total["bits_per_sample"] for total in totals]))
    return PageTable(["track", "seconds", "model", *coders], rows)


def generated_section(generated: Plain | None) -> Plain | None:
    """Distances of generated audio as a table, what each metric means, and both sides as a picture."""
    if generated is None:
        return None
    families = list(MEANINGS)
    # All bands of one stand together.
    metrics = dict(sorted(generated["metrics"].items(), key=lambda item: families.index(item[0].split("/")[0])))
    rows = []
    for name, metric in metrics.items():
        numbers = [NOTHING if metric[key] is None else f"{metric[key]:.3g}" for key in ("distance", "floor", "ks")]
        sides = [_quartiles(metric[side]) for side in ("generated", "reference")]
        rows.append([name, _UNITS.get(metric["unit"], metric["unit"]), *numbers, *sides])
    return {
        "table": PageTable(["", "unit", "distance", "floor", "KS", "generated", "reference"], rows),
        "meanings": {name: MEANINGS[name] for name in dict.fromkeys(metric.split("/")[0] for metric in metrics)},
        "picture": picture_uri(quartile_ranges(metrics), "png"),
    }


def _quartiles(side: Plain) -> str:
    """The median of one side, and in brackets its quartiles."""
    if not side["windows"]:
        return NOTHING
    low, high = side["quartiles"]
    return f"{side['median']:.3g} ({low:.3g} to {high:.3g})"


def _coders(lossless: Plain) -> Plain:
    """Each coder once: what its choice of mid/side saves is for the JSON."""
    return {name: bits for name, bits in lossless.items() if not name.endswith(APART)}


def _panels(evaluation: Plain, track: Plain, source: Track) -> Plain:
    """Curve, picture, player and place of one track; "problem" says why there is only a curve, or is None."""
    panels: Plain = {"problem": None}
    shaded, rate = None, track["sample_rate"]
    try:
        pcm = source.read(AudioSpec(**evaluation["spec"]))
        length = min(len(pcm), EXCERPT_SECONDS * rate)
        start = (len(pcm) - length) // 2
        pcm = pcm[start : start + length]
        place = f"the whole track, {_clock(len(pcm), rate)}"
        if len(pcm) < track["frames"]:
            end = start + len(pcm)
            shaded = start / rate, end / rate
            place = f"{_clock(start, rate)} to {_clock(end, rate)} of {_clock(track['frames'], rate)}"
            place += f" (frames {start:,} to {end:,})"
        panels["player"] = sound_uri(pcm, rate)
        panels["picture"] = picture_uri(sheet(pcm, rate, f"Excerpt: {place}"), "webp")
        panels["place"] = place
    except (ValueError, OSError, soundfile.SoundFileError) as error:
        # The numbers of an evaluation of hours are worth their page, whatever became of one file.
        panels["problem"], shaded = str(error), None
    coder = track["lossless"].get(COMPARED)
    average = None if coder is None else (COMPARED, coder / (track["frames"] * track["n_channels"]))
    bits = np.asarray(track["bits_each_second"], dtype=np.float64)
    curve = bits_curve(bits, track["frames"], rate, list(_channels(evaluation)), average=average, excerpt=shaded)
    return panels | {"curve": picture_uri(curve, "png")}


def context_label(name: str, sample_rate: int) -> str:
    """A context for people: "state carried", or "segments of 12,288 frames (0.28 s)"."""
    if not name.isdecimal():
        return f"state {name}"
    return f"segments of {int(name):,} frames ({int(name) / sample_rate:.2g} s)"


def _channels(evaluation: Plain) -> dict[str, float]:
    """Bits/sample of "mono", or of "left" and, depending on the coupling, "right" or "right | left"."""
    channels: dict[str, float] = evaluation["pooled"]["contexts"][evaluation["contexts"][0]]["channels"]
    return channels


def _leaves(value: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    """Every value in nested mappings as text, with the keys that lead to it."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{before}{key}.")
        else:
            yield f"{before}{key}", plain(inner)


def plain(value: object) -> str:
    """A value of JSON for people: four digits of a float, all of an integer, a list with commas, None as a dash."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain, value))
    return str(value)


def interval(ends: list[Any] | None, style: str = ".3f") -> str:
    """An interval as text, or a dash."""
    return NOTHING if ends is None else f"{ends[0]:{style}} to {ends[1]:{style}}"


def three(value: float | None) -> str:
    """Three decimals, or a dash."""
    return NOTHING if value is None else f"{value:.3f}"


def count(number: int, thing: str) -> str:
    """As in "1 track" and "1,000 frames"."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def _bold(text: str) -> str:
    return Markup("<strong>{}</strong>").format(text)


def _seconds(tracks: list[Plain]) -> float:
    return sum(track["frames"] / track["sample_rate"] for track in tracks)


def _clock(frames: int, sample_rate: int) -> str:
    return f"{frames / sample_rate:,.2f} s"
