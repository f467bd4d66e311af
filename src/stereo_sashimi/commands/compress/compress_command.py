"""`compress.py`: WAV and FLAC files <-> .ssc files, without loss. The codec itself is in stereo_sashimi.codec."""

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from stereo_sashimi.audio.io import write_whole
from stereo_sashimi.codec import pcm_files as files
from stereo_sashimi.codec.batch_coder import BatchCoder
from stereo_sashimi.codec.coding import check_model, decode_blocks, encode
from stereo_sashimi.codec.container import MODES, FileHeader, Segment, unpack
from stereo_sashimi.commands.cli import keys
from stereo_sashimi.commands.shared.checks import check_keys, check_writable
from stereo_sashimi.commands.shared.loading import load_model
from stereo_sashimi.commands.shared.progress import Meter
from stereo_sashimi.commands.shared.runs import relative
from stereo_sashimi.generation.scoring import score
from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.schema import check_type
from stereo_sashimi.signals import Stopped, listening

ACTIONS = ("encode", "decode", "verify", "info")
SUFFIX = ".ssc"
# Of a recording, for what segments cost.
COST_SECONDS = 4.0
# Short segments take as long as long ones.
COST_SEGMENTS = 64


def run(cfg: DictConfig) -> Path | None:
    """Do what `cfg` says; the file that was written. Signals that end it raise SystemExit and leave nothing behind."""
    check_keys(cfg, keys("compress"))
    for key in ("verify", "segment_cost", "overwrite"):
        check_type(cfg[key], bool, key)
    if cfg.action not in ACTIONS:
        raise ValueError(f"action must be one of {', '.join(ACTIONS)}; got {cfg.action!r}.")
    source = Path(str(cfg.input))
    # Path.is_file raises where a folder may not be looked into.
    if not os.path.isfile(source):
        raise ValueError(f"There is no file {source}. Give one: input=<file>.")
    try:
        with listening():
            return _encode(cfg, source) if cfg.action == "encode" else _decode(cfg, source)
    except Stopped as stopped:
        stopped.leave("Interrupted; nothing was written.")


def _encode(cfg: DictConfig, source: Path) -> Path:
    output = _output(cfg, source, SUFFIX, (SUFFIX,))
    model = _load(cfg)
    pcm, spec, envelope = files.read(source, model.spec)
    if spec.sample_rate != model.spec.sample_rate:
        print(f"{source} has {spec.sample_rate} Hz, the model {model.spec.sample_rate}: coded as it is, only worse.")
    started = time.perf_counter()
    with Meter("encoding", spec.sample_rate, len(pcm)) as meter:
        given: dict[str, Any] = {key: cfg[key] for key in ("segment_frames", "lanes", "verify")}
        data = encode(model, pcm, sample_rate=spec.sample_rate, envelope=envelope, on_frames=meter.add, **given)
    seconds = time.perf_counter() - started
    write_whole(output, data)
    header, segments, _ = unpack(data)
    size, original = len(data), source.stat().st_size
    verified = ", verified" if cfg.verify else ""
    print(f"{relative(output)}  {size:,} bytes  {size / max(1, original):.1%} of {source.name}{verified}")
    if pcm.size:
        rate = pcm.size / seconds
        print(f"{8 * size / pcm.size:.3f} bits/sample  {_kinds(segments)}  {rate:,.0f} samples/s")
        if cfg.segment_cost and header.n_segments > 1:
            try:
                _print_cost(model, pcm, header)
            except Stopped as stopped:
                stopped.leave(f"Interrupted; {relative(output)} is complete.")
    return output


def _decode(cfg: DictConfig, source: Path) -> Path | None:
    data, writes = source.read_bytes(), cfg.action == "decode"
    header, segments, envelope = unpack(data, str(source))
    if cfg.action == "info":
        _print_info(source, data, header, segments)
        return None
    output = _output(cfg, source, ".wav", files.SUFFIXES) if writes else None
    model = _load(cfg)
    samples = header.frames * header.spec.n_channels
    started = time.perf_counter()
    with Meter("decoding", header.spec.sample_rate, header.frames) as meter:
        blocks = decode_blocks(model, data, name=str(source), on_frames=meter.add)
        if output is None:
            for _ in blocks:
                pass
        else:
            files.write(output, blocks, header, envelope, str(source))
    rate = samples / (time.perf_counter() - started)
    if output is None:
        print(f"{source} is whole: {header.frames:,} frames decode to what was coded  {rate:,.0f} samples/s")
        return None
    print(f"{relative(output)}  {header.frames:,} frames  {rate:,.0f} samples/s")
    return output


def _output(cfg: DictConfig, source: Path, suffix: str, allowed: tuple[str, ...]) -> Path:
    output = source.with_suffix(suffix) if cfg.output is None else Path(str(cfg.output))
    if output.suffix.lower() not in allowed:
        raise ValueError(f"output must end in {' or '.join(allowed)} for action={cfg.action}; got {output}.")
    if not output.parent.is_dir():
        raise ValueError(f"output={output}: there is no folder {output.parent}. Make it, or give another one.")
    check_writable(output.parent, "output")
    if output.resolve() == source.resolve():
        raise ValueError(f"output and input are the same file, {source}. Give another output=<file>.")
    if output.exists() and not cfg.overwrite:
        raise ValueError(f"{output} is there already. Give another output=<file>, or overwrite=true.")
    return output


def _load(cfg: DictConfig) -> LanguageModel:
    model = load_model(cfg.checkpoint, cfg.paths.runs)[1]
    # Before the file: a model that codes no PCM would refuse any.
    check_model(model)
    if (waiting := BatchCoder.preparation(model)) is not None:
        print(f"codec: {waiting}", flush=True)
    return model


def _kinds(segments: list[Segment]) -> str:
    counts = Counter(MODES[segment.mode] for segment in segments)
    return f"{len(segments)} segments (" + ", ".join(f"{counts[mode]} {mode}" for mode in MODES if counts[mode]) + ")"


def _print_cost(model: LanguageModel, pcm: Any, header: FileHeader) -> None:
    """What it costs that the model starts anew at every segment, against a state that is carried on."""
    length = header.segment_frames
    # Whole segments, at least two: the first one costs nothing.
    count = min(max(2, round(COST_SECONDS * header.spec.sample_rate / length)), COST_SEGMENTS)
    part = pcm[: count * length]
    carried = score(model, part).nats
    anew = score(model, part, length).nats
    if carried > 0:
        print(
            f"segments of {length:,} frames cost {anew / carried - 1:+.2%} against a state that is carried on (first "
            f"{len(part) / header.spec.sample_rate:.3g} s)"
        )


def _print_info(source: Path, data: bytes, header: FileHeader, segments: list[Segment]) -> None:
    spec = header.spec
    names = {1: "mono", 2: "stereo"}
    seconds = header.frames / spec.sample_rate
    print(f"{source}  {len(data):,} bytes, coded by stereo-sashimi {header.package}")
    print(f"audio     {names[spec.n_channels]}  {spec.sample_rate} Hz  {spec.bits} bit  {header.frames:,} frames")
    print(f"          {seconds:.2f} s  {'the header of a WAV file is kept' if header.envelope else 'samples only'}")
    print(f"decoded   {header.pcm_bytes:,} bytes of samples, {header.pcm_bytes / len(data):,.2f} times this file")
    print(f"segments  {header.segment_frames:,} frames each  {_kinds(segments)}")
    print(f"weights   {header.weights}\nprobe     {header.probe}\npcm       {header.pcm}")
