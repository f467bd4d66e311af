"""The tables that the benchmarks print."""

from collections.abc import Mapping, Sequence

from stereo_sashimi.app.bench.config import Named
from stereo_sashimi.app.bench.measure import Row

NAME = 24  # width of the first column


def train_heading(row: Row, chosen: Sequence[Named]) -> list[str]:
    """Two lines above the rows of `bench train`: the machine, and the columns."""
    load = " ".join(f"{value:g}" for value in row["load"])
    return [
        f"{row['device']}  torch {row['torch']}  load {load} before the start  median of {row['repeats']} steps",
        f"{'configuration':<{_width(chosen)}}{'s a step':>10}{'fastest':>10}{'samples/s':>14}{'peak GiB':>10}"
        f"{'of floor':>10}",
    ]


def train_lines(row: Row, chosen: Sequence[Named]) -> list[str]:
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


def data_heading(chosen: Sequence[Named]) -> str:
    """The columns of `bench data`."""
    return (
        f"{'configuration':<{_width(chosen)}}{'workers':>8}{'loader samples/s':>18}{'training samples/s':>20}"
        f"{'loading, of a step':>20}"
    )


def data_line(row: Row, chosen: Sequence[Named]) -> str:
    """One configuration of `bench data`."""
    return (
        f"{row['config']:<{_width(chosen)}}{row['num_workers']:>8}{row['loader_samples_per_s']:>18,.0f}"
        f"{row['training_samples_per_s']:>20,.0f}{row['loading_share_of_step']:>20.2%}"
    )


def _width(chosen: Sequence[Named]) -> int:
    return 2 + max(NAME, *(len(named.name) for named in chosen))
