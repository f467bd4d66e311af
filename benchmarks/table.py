"""The tables that the benchmarks print, from the rows that they print as JSON."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.config import Named

# One line of JSON: plain numbers, strings, lists and dictionaries.
Row = dict[str, Any]

NAME = 24  # width of the first column


class Table(NamedTuple):
    """Lines above the first row, and those of each row; both from a row and all configurations of the table."""

    heading: Callable[[Row, Sequence[Named]], list[str]]
    lines: Callable[[Row, Sequence[Named]], list[str]]


def _train_heading(row: Row, chosen: Sequence[Named]) -> list[str]:
    return [
        f"{_machine(row)}  median of {row['repeats']} steps",
        f"{'configuration':<{_width(chosen)}}{'s a step':>10}{'fastest':>10}{'samples/s':>14}{'peak GiB':>10}"
        f"{'of floor':>10}",
    ]


def _train_lines(row: Row, chosen: Sequence[Named]) -> list[str]:
    """The step of one configuration, and below it its rooms: seconds, share of the step, floor."""
    lines = [
        f"{row['config']:<{_width(chosen)}}{row['seconds_per_step']:>10.4f}{row['seconds_min']:>10.4f}"
        f"{row['audio_samples_per_s']:>14,.0f}{row['peak_gib']:>10.2f}{row['share_of_floor']:>10.1%}"
    ]
    floors: Mapping[str, float] = row["floor"]
    for room, seconds in row["rooms"].items():
        floor = f"floor {floors[room]:.4g}" if room in floors else ""
        beside = "  beside the step" if room == "data" else ""
        share = seconds / row["seconds_per_step"]
        lines.append(f"  {room:<{NAME}}{seconds:>10.4f}{share:>8.1%}  {floor}{beside}".rstrip())
    return lines


def _data_heading(_: Row, chosen: Sequence[Named]) -> list[str]:
    return [
        f"{'configuration':<{_width(chosen)}}{'workers':>8}{'loader samples/s':>18}{'training samples/s':>20}"
        f"{'loading, of a step':>20}"
    ]


def _data_lines(row: Row, chosen: Sequence[Named]) -> list[str]:
    return [
        f"{row['config']:<{_width(chosen)}}{row['num_workers']:>8}{row['loader_samples_per_s']:>18,.0f}"
        f"{row['training_samples_per_s']:>20,.0f}{row['loading_share_of_step']:>20.2%}"
    ]


def _generate_heading(row: Row, chosen: Sequence[Named]) -> list[str]:
    prefill = "" if row["prefill_frames_per_s"] is None else f"{'prefill/s':>12}"
    return [
        f"{_machine(row)}  median of {row['repeats']} windows",
        f"{'configuration':<{_width(chosen)}}{'engine':<12}{'batch':>6}{'frames/s':>12}{'fastest':>12}"
        f"{'samples/s':>14}{'x reference':>13}{'of floor':>10}{'ready s':>9}{'peak GiB':>10}{prefill}",
    ]


def _generate_lines(row: Row, chosen: Sequence[Named]) -> list[str]:
    ratio = row["ratio_to_reference"]
    times = "-" if ratio is None else f"{ratio:.1f}"
    prefill = "" if row["prefill_frames_per_s"] is None else f"{row['prefill_frames_per_s']:>12,.0f}"
    return [
        f"{row['config']:<{_width(chosen)}}{row['engine']:<12}{row['batch']:>6}{row['frames_per_s']:>12,.1f}"
        f"{row['frames_per_s_max']:>12,.1f}{row['samples_per_s']:>14,.0f}{times:>13}{row['share_of_floor']:>10.1%}"
        f"{row['ready_seconds']:>9.2f}{row['peak_gib']:>10.2f}{prefill}"
    ]


def _machine(row: Row) -> str:
    load = " ".join(f"{value:g}" for value in row["load"])
    return f"{row['device']}  torch {row['torch']}  load {load} before the start"


def _width(chosen: Sequence[Named]) -> int:
    return 2 + max(NAME, *(len(named.name) for named in chosen))


TRAIN_TABLE = Table(_train_heading, _train_lines)
DATA_TABLE = Table(_data_heading, _data_lines)
GENERATE_TABLE = Table(_generate_heading, _generate_lines)
