"""`stereo-sashimi report`: what a run learnt and sounds like, as text and as one HTML page with players.

Reads run.json, the losses of the CSV logger, and the samples with their JSON files; writes report.html into the run
folder and prints the same numbers. The layout of the page is in `report.html.jinja`.
"""

import csv
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig

from stereo_sashimi.audio.io import read_pcm, write_whole
from stereo_sashimi.commands.cli import keys
from stereo_sashimi.commands.shared.checks import check_keys
from stereo_sashimi.commands.shared.pages import PageTable, picture_uri, render_page, sound_uri
from stereo_sashimi.commands.shared.runs import STATUS_FILE, newest_finished, relative, shown
from stereo_sashimi.plots.learning_curve import learning_curve
from stereo_sashimi.plots.sheet import sheet

PAGE = "report.html"
# Samples with a player and a picture; the table has all.
MOST_PICTURED = 24
_BITS = "bits_per_sample"
_COLUMNS = ["sample", "seconds", "bits/sample", "peak dBFS", "silent", "clipped", "correlation"]


class Report(NamedTuple):
    """What is reported of a run.

    - `title`, `facts`: lines of text. `validation`, `samples`: tables; without rows where there is nothing.
    - `sounds`: the audio file of each row of `samples`.
    """

    title: str
    facts: str
    validation: PageTable
    samples: PageTable
    sounds: list[Path]


def report(folder: Path, others: Iterable[Path] = ()) -> Report:
    """The report of one run folder, and of the samples in `others`. Raises ValueError if it holds no run."""
    path = folder / STATUS_FILE
    if not path.is_file():
        raise ValueError(
            f"{folder} is no run: it has no {STATUS_FILE}. Give a run folder, or a folder of finished runs."
        )
    result = json.loads(path.read_text())
    spec, decoder = result["model"]["spec"], result["model"]["decoder"]
    facts = (
        f"{result['status']}, {result.get('steps', 0)} steps; {spec['n_channels']} channels, {spec['sample_rate']} Hz, "
        f"{spec['bits']} bit; decoder {decoder['kind']}, {decoder['coupling']}"
    )
    before, after = result.get("validation_before"), result.get("validation_after")
    rows = [[name, _bits(bits)] for name, bits in (("before training", before), ("after training", after)) if bits]
    if before is not None and after is not None:
        rows.append(["gain", f"{before[f'val/{_BITS}'] - after[f'val/{_BITS}']:.3f}"])
    found = [path for place in (folder / "samples", *others) for path in sorted(place.glob("*.json"))]
    samples = [(path, json.loads(path.read_text())) for path in found]
    sounds = [path.parent / sample.get("file", f"{path.stem}.wav") for path, sample in samples]
    return Report(
        f"Run {folder.name}",
        facts,
        PageTable(["validation", "bits/sample"], rows),
        PageTable(_COLUMNS, [_row(file, sample) for file, (_, sample) in zip(sounds, samples, strict=True)]),
        sounds,
    )


def as_text(found: Report) -> str:
    """A report as Markdown."""
    lines = [f"# {found.title}", "", found.facts]
    for table in (found.validation, found.samples):
        if table.rows:
            lines += [
                "",
                *(f"| {' | '.join(cells)} |" for cells in (table.head, ["---"] * len(table.head), *table.rows)),
            ]
    return "\n".join(lines) + "\n"


def write_report(found: Report, folder: Path) -> Path:
    """Write a report as HTML, with the learning curve and players, into the run folder; returns the file."""
    curve = learning_curve(*_losses(folder))
    page = render_page(
        "report/report.html.jinja",
        {},
        **found._asdict(),
        curve=None if curve is None else picture_uri(curve, "png"),
        panels=list(map(_panel, found.sounds[:MOST_PICTURED])),
    )
    path = folder / PAGE
    write_whole(path, page)
    return path


def _losses(folder: Path) -> list[list[tuple[float, float]]]:
    """(step, bits/sample) of training and of validation, as the CSV logger kept them; empty where it kept none."""
    found: dict[str, list[tuple[float, float]]] = {"train": [], "val": []}
    for path in sorted(folder.glob("csv/metrics*.csv")):
        with open(path, newline="") as file:
            for line in csv.DictReader(file):
                for split, points in found.items():
                    if value := line.get(f"{split}/{_BITS}"):
                        points.append((float(line["step"]) + 1, float(value)))
    return list(found.values())


def _panel(path: Path) -> dict[str, str | None]:
    """Player and picture of one sample; "problem" says why there is none, or is None."""
    panel: dict[str, str | None] = {"name": relative(path), "problem": None}
    try:
        pcm, rate = read_pcm(path)[0], json.loads(path.with_suffix(".json").read_text())["spec"]["sample_rate"]
        return panel | {
            "player": sound_uri(pcm, rate),
            "picture": picture_uri(sheet(pcm, rate, shown(path.stem)), "webp"),
        }
    except (ValueError, OSError, KeyError) as error:
        return panel | {"problem": str(error)}


def _bits(numbers: dict[str, float]) -> str:
    key = f"val/{_BITS}"
    channels = [f"{k.removeprefix(key + '/')} {v:.3f}" for k, v in numbers.items() if k.startswith(key + "/")]
    return f"{numbers[key]:.3f}" + (f" ({', '.join(channels)})" if channels else "")


def _row(file: Path, sample: dict[str, Any]) -> list[str]:
    """The numbers of one sample, from the JSON file beside it."""
    audio = sample["audio"]

    def over_channels(name: str, form: str) -> str:
        values = [v for k, v in audio.items() if k == name or k.startswith(name + "/")]
        return " ".join("none" if v is None else format(v, form) for v in values)

    return [
        str(file),
        f"{sample['seconds']:.2f}",
        f"{sample[_BITS]['pooled']:.3f}",
        over_channels("peak_dbfs", ".1f"),
        over_channels("silent_share", ".1%"),
        over_channels("clipped_share", ".1%"),
        over_channels("correlation", ".2f") or "none",
    ]


def run(cfg: DictConfig) -> None:
    """Report a run folder, or the newest finished run in a folder of runs: text printed, the page kept there."""
    check_keys(cfg, keys("report"))
    given = Path(str(cfg.run))
    folder = given if (given / STATUS_FILE).is_file() else newest_finished(given)
    others = [Path(str(path)) for path in (cfg.sounds if isinstance(cfg.sounds, ListConfig) else [cfg.sounds])]
    for path in others:
        if not any(path.glob("*.json")):
            raise ValueError(f"sounds={path} holds no samples. Give a folder that generate.py wrote.")
    found = report(folder, others)
    path = write_report(found, folder)
    sys.stdout.write(f"{as_text(found)}\npage {path.resolve()}\n")
