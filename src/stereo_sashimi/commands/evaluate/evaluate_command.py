"""`evaluate.py`: bits that a model needs for recordings; writes evaluation.json, .csv, .html and a file per track."""

import csv
import functools
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.commands.cli import keys
from stereo_sashimi.commands.evaluate import evaluate_options as options
from stereo_sashimi.commands.evaluate import recordings
from stereo_sashimi.commands.evaluate.recordings import Track
from stereo_sashimi.commands.evaluate.track_scorer import TrackScorer
from stereo_sashimi.commands.shared.checks import check_keys, make_folder
from stereo_sashimi.commands.shared.loading import device_of, load_model, model_line
from stereo_sashimi.commands.shared.progress import Meter
from stereo_sashimi.commands.shared.runs import name_of, relative
from stereo_sashimi.metrics.totals import TrackResult, channel_labels, pooled
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.ops import s4_response
from stereo_sashimi.signals import Stopped, listening
from stereo_sashimi.version import __version__


def run(cfg: DictConfig) -> Path | None:
    """Evaluate as `cfg` says. Returns evaluation.json, or None while tracks of other shards are missing.

    Ctrl-C, SIGTERM and SIGHUP raise SystemExit with 128 and the signal's number; what was reached is saved.
    """
    check_keys(cfg, keys("evaluate"))
    options.check(cfg)
    try:
        with listening():
            return _run(cfg)
    except Stopped as stopped:
        stopped.leave("Interrupted. The same command goes on from here.")


def _run(cfg: DictConfig) -> Path | None:
    files, device = recordings.files(cfg.data, options.excluded(cfg)), device_of(cfg.device)
    path, model = load_model(cfg.checkpoint, cfg.paths.runs, cfg.backend.name)
    backend, key = s4_response.describe(s4_response.resolve(cfg.backend.name)), "checkpoint_independent"
    names, independent = {"checkpoint": name_of(path), key: None}, None
    lines = [f"checkpoint {names['checkpoint']}", model_line(model), f"backend {backend}  device {device}"]
    if cfg[key] is not None:
        other_path, independent = load_model(cfg[key], cfg.paths.runs, cfg.backend.name, key)
        options.check_pair(model, independent)
        independent = independent.to(device)
        names[key] = name_of(other_path)
        lines.append(f"{key} {names[key]}")
    print("\n".join(lines), flush=True)
    spec, why = model.spec, options.not_pcm(model.spec)
    if why is not None:
        print(f"bits are those of the model's codes ({why}), not of PCM", flush=True)
    elif spec.bits == 8:
        print("bits are those of the top byte of each 16-bit sample, the model's 8 bits", flush=True)
    if cfg.baselines and why is not None:
        print(f"baselines are left out: coders of PCM have nothing to do with codes of {why}", flush=True)
    tracks = recordings.tracks(files, spec, cfg.max_seconds, options.conversions(cfg))
    converted = Counter(what for track in tracks for what in track.converted)
    for what, count in converted.items():
        print(f"{count} of {len(tracks)} files {what}", flush=True)
    out = make_folder(options.out_folder(cfg.out, path, cfg.paths.runs), "out")
    baselines, folder = cfg.baselines and why is None, make_folder(out / "tracks", "out")
    contexts = options.contexts(cfg.segment_frames)
    scorer = TrackScorer(model.to(device), independent, contexts, baselines, folder)
    part, of = options.shard(cfg.shard)
    mine = tracks[part - 1 :: of]
    if cfg.overwrite:
        for track in mine:
            scorer.forget(track)
    todo = [track for track in mine if scorer.finished(track) is None]
    if len(todo) < len(mine):
        print(f"{len(mine) - len(todo)} of {len(mine)} tracks are done already; overwrite=true scores them again")
    if todo:
        print(f"evaluating {len(todo)} of {len(tracks)} tracks", flush=True)
        frames = sum(track.frames for track in todo) * len(scorer.passes)
        threads = torch.get_num_threads()
        # More threads add in another order, which moves the last bits of a total.
        torch.set_num_threads(1)
        try:
            with Meter("evaluating", spec.sample_rate, frames) as meter:
                for track in todo:
                    _print_track(scorer.score(track, meter.add))
        finally:
            torch.set_num_threads(threads)
    results = [result for track in tracks if (result := scorer.finished(track)) is not None]
    if len(results) < len(tracks):
        missing = f"{len(tracks) - len(results)} of {len(tracks)} tracks are missing"
        print(f"{missing}; the call that ends last writes totals")
        return None
    facts = names | {
        "model_sha256": scorer.model_sha256,
        "spec": spec.to_dict(),
        "model": model.config.to_plain(),
        "contexts": list(contexts),
        "converted": dict(converted),
    }
    return _write(cfg, facts, model, results, tracks, out)


def _write(
    cfg: DictConfig,
    facts: dict[str, Any],
    model: LanguageModel,
    results: list[TrackResult],
    tracks: list[Track],
    out: Path,
) -> Path:
    """Write and print the totals."""
    totals = functools.partial(
        pooled, spec=model.spec, labels=channel_labels(model.spec, model.config.decoder.coupling)
    )
    generated = None
    if cfg.generated is not None:
        # Imported here: only this needs it.
        from stereo_sashimi.metrics.distances import compare

        generated = compare(recordings.in_folder(str(cfg.generated), "generated"), [track.path for track in tracks])
    evaluation = {
        "format": "stereo-sashimi evaluation",
        "version": 1,
        "package_version": __version__,
        **facts,
        "tracks": [vars(result) for result in results],
        "pooled": totals(results),
        "generated": generated,
    }
    path = out / "evaluation.json"
    write_whole(path, (json.dumps(evaluation, indent=1, allow_nan=False) + "\n").encode())
    write_whole(
        out / "evaluation.csv",
        _csv(evaluation["pooled"], {result.file: totals([result]) for result in results}).encode(),
    )
    print("\n".join(_table(evaluation["pooled"])))
    written = [path, out / "evaluation.csv"]
    if cfg.report:
        from stereo_sashimi.commands.evaluate.page import write_page

        written.append(out / "evaluation.html")
        write_page(evaluation, {track.file: track for track in tracks}, written[-1])
    print("\n".join(relative(file) for file in written), flush=True)
    return path


def _print_track(result: TrackResult) -> None:
    """One line a track."""
    main = next(iter(result.contexts))
    coders = [f"{name} {bits / result.samples:.3f}" for name, bits in list(result.lossless.items())[:1]]
    parts = [f"{result.file}  {result.frames / result.sample_rate:.2f} s", _bits(result.bits(main) / result.samples)]
    print("  ".join(parts + coders), flush=True)


def _bits(value: float, interval: Sequence[float] | None = None) -> str:
    around = "" if interval is None else f"  [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{value:.3f} bits/sample{around}"


def _table(pooled: dict[str, Any]) -> list[str]:
    """The totals for people; in brackets 95 % intervals over tracks."""
    rows = []
    for name, context in pooled["contexts"].items():
        channels = ", ".join(f"{label} {bits:.3f}" for label, bits in context["channels"].items())
        what = name if name == options.CARRIED else f"{name} frames"
        rows.append((f"model, {what}", f"{_bits(context['bits_per_sample'], context['interval'])}  ({channels})"))
    if (gain := pooled["cross_channel_gain"]) is not None:
        rows.append(("cross-channel gain", _bits(gain["bits_per_sample"], gain["interval"])))
    rows += [(name, _bits(one["bits_per_sample"], one["interval"])) for name, one in pooled["lossless"].items()]
    width = max(len(name) for name, _ in rows)
    return [f"pooled over {pooled['tracks']} tracks, {pooled['frames']:,} frames; in brackets 95 % over tracks"] + [
        f"  {name:{width}}  {text}" for name, text in rows
    ]


def _csv(totals: dict[str, Any], tracks: dict[str, dict[str, Any]]) -> str:
    """A row a track, which is the total over itself, and one of totals; bits per sample."""
    contexts, lossless = list(totals["contexts"]), list(totals["lossless"])
    labels = list(totals["contexts"][contexts[0]]["channels"])
    independent = ["cross-channel gain"] if totals["cross_channel_gain"] is not None else []
    rows: list[list[Any]] = [["file", "frames", *contexts, *labels, *independent, *lossless]]
    for file, one in [*tracks.items(), ("pooled", totals)]:
        row = [file, one["frames"], *(one["contexts"][name]["bits_per_sample"] for name in contexts)]
        row += [one["contexts"][contexts[0]]["channels"][label] for label in labels]
        row += [one["cross_channel_gain"]["bits_per_sample"] for _ in independent]
        rows.append(row + [one["lossless"][name]["bits_per_sample"] for name in lossless])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
