"""`stereo-sashimi report`: what a run learnt and sounds like, in text.

Reads run.json and the samples' JSON files; writes report.md into the run folder and prints it.
"""

import json
import sys
from pathlib import Path

from omegaconf import DictConfig

from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.commands.shared.runs import STATUS_FILE, newest_finished

BITS = "val/bits_per_sample"


def report(folder: Path) -> str:
    """The report of one run folder, as Markdown. Raises ValueError if it holds no run."""
    path = folder / STATUS_FILE
    if not path.is_file():
        raise ValueError(
            f"{folder} is no run: it has no {STATUS_FILE}. Give a run folder, or a folder of finished runs."
        )
    result = json.loads(path.read_text())
    spec, decoder = result["model"]["spec"], result["model"]["decoder"]
    lines = [
        f"# Run {folder.name}",
        "",
        f"{result['status']}, {result.get('steps', 0)} steps; {spec['n_channels']} channels, {spec['sample_rate']} Hz, "
        f"{spec['bits']} bit; decoder {decoder['kind']}, {decoder['coupling']}",
    ]
    before, after = result.get("validation_before"), result.get("validation_after")
    if before is not None:
        lines += ["", "| validation | bits/sample |", "|---|---|", f"| before training | {_bits(before)} |"]
    if after is not None:
        lines.append(f"| after training | {_bits(after)} |")
    if before is not None and after is not None:
        lines.append(f"| gain | {before[BITS] - after[BITS]:.3f} |")
    if samples := sorted(folder.glob("samples/*.json")):
        head = "| sample | seconds | bits/sample | peak dBFS | silent | clipped | correlation |"
        lines += ["", head, "|" + "---|" * 7]
    return "\n".join([*lines, *map(_row, samples)]) + "\n"


def _bits(numbers: dict[str, float]) -> str:
    channels = [f"{k.removeprefix(BITS + '/')} {v:.3f}" for k, v in numbers.items() if k.startswith(BITS + "/")]
    return f"{numbers[BITS]:.3f}" + (f" ({', '.join(channels)})" if channels else "")


def _row(path: Path) -> str:
    """The numbers of one sample, from the JSON file beside it."""
    sample = json.loads(path.read_text())
    audio = sample["audio"]

    def over_channels(name: str, form: str) -> str:
        values = [v for k, v in audio.items() if k == name or k.startswith(name + "/")]
        return " ".join("none" if v is None else format(v, form) for v in values)

    cells = (
        str(path.parent / sample.get("file", f"{path.stem}.wav")),
        f"{sample['seconds']:.2f}",
        f"{sample['bits_per_sample']['pooled']:.3f}",
        over_channels("peak_dbfs", ".1f"),
        over_channels("silent_share", ".1%"),
        over_channels("clipped_share", ".1%"),
        over_channels("correlation", ".2f") or "none",
    )
    return f"| {' | '.join(cells)} |"


def run(cfg: DictConfig) -> None:
    """Print the report of a run folder, or of the newest finished run in a folder of runs, and keep it there."""
    given = Path(str(cfg.run))
    folder = given if (given / STATUS_FILE).is_file() else newest_finished(given)
    text = report(folder)
    write_whole(folder / "report.md", text.encode())
    sys.stdout.write(text)
