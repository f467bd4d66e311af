"""`stereo-sashimi report`: what a run learnt and sounds like, in text.

Reads run.json and the samples' JSON files; writes report.md into the run folder and prints it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.commands.shared.runs import STATUS_FILE, newest_finished


def report(folder: Path) -> str:
    """The report of one run folder, as Markdown. Raises ValueError if it holds no run."""
    path = folder / STATUS_FILE
    if not path.is_file():
        raise ValueError(
            f"{folder} is no run: it has no {STATUS_FILE}. Give a run folder, or a folder of finished runs."
        )
    result = json.loads(path.read_text())
    spec, lines = result["model"]["spec"], [f"# Run {folder.name}", ""]
    lines.append(
        f"{result['status']}, {result.get('steps', 0)} steps; {spec['n_channels']} channels, {spec['sample_rate']} Hz, "
        f"{spec['bits']} bit; decoder {result['model']['decoder']['kind']}, {result['model']['decoder']['coupling']}"
    )
    lines += ["", "| validation | bits/sample |", "|---|---|"] if "validation_before" in result else []
    for when in ("before", "after"):
        if f"validation_{when}" in result:
            lines.append(f"| {when} training | {_bits(result[f'validation_{when}'])} |")
    if "validation_after" in result and "validation_before" in result:
        gain = result["validation_before"]["val/bits_per_sample"] - result["validation_after"]["val/bits_per_sample"]
        lines.append(f"| gain | {gain:.3f} |")
    samples = [
        {"file": f"{p.stem}.wav"} | json.loads(p.read_text()) | {"folder": p.parent}
        for p in sorted(folder.glob("samples/*.json"))
    ]
    if samples:
        lines += [
            "",
            "| sample | seconds | bits/sample | peak dBFS | silent | clipped | correlation |",
            "|" + "---|" * 7,
        ]
    lines += [_row(sample) for sample in samples]
    return "\n".join(lines) + "\n"


def _bits(numbers: dict[str, float]) -> str:
    key = "val/bits_per_sample"
    channels = [f"{k.removeprefix(key + '/')} {v:.3f}" for k, v in numbers.items() if k.startswith(key + "/")]
    return f"{numbers[key]:.3f}" + (f" ({', '.join(channels)})" if channels else "")


def _row(sample: dict[str, Any]) -> str:
    audio = sample["audio"]

    def over_channels(name: str, form: str) -> str:
        values = [v for k, v in audio.items() if k == name or k.startswith(name + "/")]
        return " ".join("none" if v is None else format(v, form) for v in values)

    correlation = audio.get("correlation")
    cells = (
        str(sample["folder"] / sample["file"]),
        f"{sample['seconds']:.2f}",
        f"{sample['bits_per_sample']['pooled']:.3f}",
        over_channels("peak_dbfs", ".1f"),
        over_channels("silent_share", ".1%"),
        over_channels("clipped_share", ".1%"),
        "none" if correlation is None else f"{correlation:.2f}",
    )
    return "| " + " | ".join(cells) + " |"


def run(cfg: DictConfig) -> None:
    """Print the report of a run folder, or of the newest finished run in a folder of runs, and keep it there."""
    given = Path(str(cfg.run))
    folder = given if (given / STATUS_FILE).is_file() else newest_finished(given)
    text = report(folder)
    write_whole(folder / "report.md", text.encode())
    sys.stdout.write(text)
