"""Bad folders, files and options of training: one message that names the culprit and the remedy, nothing lost.

Bad checkpoints, prompts and options of sampling are in `test_bad_checkpoints.py`.
"""

import builtins
import json
import re
from pathlib import Path

import bad_folders as bad
import pytest
from running import keep_seeds

from stereo_sashimi.audio import io
from stereo_sashimi.audio.io import write_pcm
from stereo_sashimi.commands.cli import main
from stereo_sashimi.commands.generate.generate_command import run as generate
from stereo_sashimi.commands.train.train_command import train

CASES: list[tuple[str, tuple[str, ...], str]] = [
    ("missing", (), r"there is no folder .*data.*\n.*dataset\.path.*`python preprocess/musdb18stereo_wav\.py --sam"),
    ("missing", ("dataset=sonicpi",), r"there is no folder .*data.*\n.*make it: `python preprocess/sonicpi\.py --root"),
    ("missing", ("dataset=folder",), r"there is no folder .*data\.\n  Set dataset\.path \(.*\)\.\n$"),
    ("a_file", (), r"data is a file; dataset\.path names a folder.*\n.*Set dataset\.path="),
    ("empty", (), r"holds 0 audio files .*at least 3.*\n.*train/, valid/ and test/"),
    ("two_files", (), r"holds 2 audio files"),
    ("without_valid", (), r"valid/ is empty.*\n.*Put audio files"),
    ("two_valids", (), r"has both valid/ and val/; keep one"),
    ("folder_with_a_file_name", (), r"train/ is empty.*\n.*Put audio files \(\.wav, \.flac, \.ogg\) into"),
    ("dangling_link", (), r"link\.wav: there is no such file"),
    ("mono", (),
     r"is_stereo=true but clip voice\.wav has 1 channel.*\n.*dataset\.is_stereo=false.*dataset\.upmix=true"),
    ("three_channels", (), r"clip lcr\.wav has 3 channels; 1 \(mono\) and 2 .*\n.*Convert"),
    ("three_channels", ("dataset.is_stereo=false",), r"clip lcr\.wav has 3 channels.*\n.*Convert"),
    ("six_channels", (), r"clip surround\.wav has 6 channels.*\n.*Convert"),
    ("not_a_number", (), r"train\.wav: NaN or infinity in frame 70"),
    ("infinite", (), r"train\.wav: NaN or infinity in frame 7; write the file again"),
    ("wide", (), r"train\.wav: 24-bit samples.*\n.*dataset\.requantize=true"),
    ("wider", (), r"train\.wav: 32-bit samples; 16 bits or fewer.*\n.*dataset\.requantize=true"),
    ("truncated", (), r"train\.wav: the file ends early.*100 bytes.*\n.*fetch or make it again"),
    ("truncated_flac", (), r"music\.flac: cannot decode frames 19999 to 20000.*\n.*cut off: fetch or make it again"),
    ("truncated_ogg", (), r"music\.ogg: the file ends early.*\n.*fetch or make it again"),
    ("zero_bytes", (), r"train\.wav: the file is empty \(0 bytes\)\.\n.*make it again"),
    ("not_audio", (), r"train\.wav: not an audio file.*\n.*Convert it to 16-bit WAV or FLAC"),
    ("no_frames", (), r"none of 1 files has any audio; .*train\.wav has 0 frames\.\n.*files with audio"),
    ("no_frames", ("dataset.drop_last=false",), r"none of 1 files has any audio; .*train\.wav has 0 frames"),
    ("one_frame", (), r"none of 1 files has sample_len=64.*train\.wav, has 1\.\n.*sample_len to 1.*drop_last=false"),
    ("mixed_rates", (), r"other\.wav has 48000 Hz|has 44100 Hz, but .*48000 Hz"),
    ("good", ("dataset.sample_len=201",),
     r"none of 1 files has sample_len=201.*has 200.*\n.*dataset\.sample_len to 200"),
    ("good", ("dataset.sample_len=-1",), r"dataset\.sample_len must be 1 or more; got -1"),
    ("good", ("dataset.sample_len=1.5",), r"dataset\.sample_len must be an integer; got 1\.5"),
    ("good", ("dataset.bits=24",), r"dataset\.bits must be 8 or 16, .*; got 24\. .*dataset\.requantize=true"),
    ("good", ("dataset.split=random",), r"dataset\.split must be one of order, hash; got 'random'"),
    ("good", ("dataset.exclude=[none.wav]",), r"dataset\.exclude names 'none\.wav', but .* has no such audio file"),
    ("good", ("dataset.exclude=none.wav",), r"dataset\.exclude must be a list of texts; got 'none\.wav'"),
    ("good", ("dataset.bits=abc",), r"dataset\.bits must be an integer; got 'abc'"),
    ("good", ("dataset.sample_rate=0",), r"sample_rate must be at least 1 Hz; got 0"),
    ("good", ("dataset.drop_last=maybe",), r"dataset\.drop_last must be true or false; got 'maybe'"),
    ("good", ("dataset.is_stereo=2",), r"dataset\.is_stereo must be true or false; got 2"),
    ("good", ("dataset.train_percentage=88.0",), r"dataset\.train_percentage must be between 0 and 1; got 88"),
    ("good", ("dataset.quantization=ulaw",), r"quantization must be one of linear, mu-law; got 'ulaw'"),
    ("good", ("dataset.normalize=loud",), r"normalize must be one of none, peak, minmax; got 'loud'"),
    ("good", ("dataset.context_len=64",), r"dataset\.context_len must be below dataset\.sample_len=64"),
    ("good", ("dataset.sample_len=300", "dataset.context_len=200", "dataset.drop_last=false"),
     r"longest clip for train has 200 frames.*first 200\.\n.*dataset\.context_len to 199"),
    ("good", ("dataset.path=null",), r"dataset\.path must be text; got None"),
    ("good", ("decoder.coupling=both",), r"decoder\.coupling must be one of independent, autoregressive; got 'both'"),
    ("good", ("decoder.n_mixtures=0",), r"decoder\.n_mixtures must be an integer of at least 1; got 0"),
    ("good", ("task.metrics=[bpb,accuracy]",),
     r"task\.metrics has accuracies, but decoder=dml .*task\.metrics=\[bpb\]"),
    ("good", ("task.metrics=[acuracy]",), r"task\.metrics has no 'acuracy'; allowed: bpb"),
    ("good", ("task.metrics=bpb",), r"task\.metrics must be a list of texts; got 'bpb'"),
    ("good", ("model.norm=batch",), r"model\.norm must be .*'batch'"),
    ("good", ("model.pool=4",), r"model\.pool must be a list of integers; got 4"),
    ("good", ("model.n_layers=two",), r"model\.n_layers must be an integer; got 'two'"),
    ("good", ("model.layer.d_state=5",), r"d_state must be even.*got 5"),
    ("good", ("model.layer.dt_transform=log",), r"dt_transform must be softplus or exp; got 'log'"),
    ("good", ("encoder.merge=mean",), r"encoder\.merge must be one of concat, sum, mix, none; got 'mean'"),
    ("good", ("optimizer.lr=-1.0",), r"optimizer\.lr .*must be positive; got -1"),
    ("good", ("optimizer.lr=0.0",), r"optimizer\.lr .*must be positive; got 0"),
    ("good", ("optimizer.lr=fast",), r"optimizer\.lr must be a finite number; got 'fast'"),
    ("good", ("scheduler.warmup_steps=9",), r"warmup_steps < total_steps; got 9 and 3"),
    ("good", ("loader.batch_size=0",), r"loader\.batch_size must be 1 or more; got 0"),
    ("good", ("loader.batch_size=two",), r"loader\.batch_size must be an integer; got 'two'"),
    ("good", ("trainer.max_steps=many",), r"trainer\.max_steps must be an integer; got 'many'"),
    ("good", ("train.mode=least",), r"train\.mode must be min or max; got 'least'"),
    ("good", ("train.seed=-1",), r"train\.seed must be 0 or more; got -1"),
    ("good", ("backend.name=cuda",), r"backend must be one of auto, .*; got 'cuda'"),
    ("good", ("checkpoint=absent.ckpt",), r"checkpoint=absent\.ckpt: there is no file absent\.ckpt\. Give"),
    ("good", ("trainer.accumulate_grad_batches=0",), r"trainer\.accumulate_grad_batches must be at least 1; got 0"),
    ("good", ("train.validate_before=true", "trainer.limit_val_batches=0"),
     r"trainer\.limit_val_batches=0 leaves nothing to validate"),
]  # fmt: skip
# What only shows when the samples are read: the run has begun, and says that it failed.
LATE = ("not_a_number", "infinite")


def settings(folder: Path, small: tuple[str, ...]) -> tuple[str, ...]:
    return (
        *small, "experiment=audio/sashimi-sample", "scheduler.total_steps=3", "scheduler.warmup_steps=1",
        "logger=none", "train.validate_before=false", f"dataset.path={folder / 'data'}", f"paths.run={folder / 'run'}",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "message"), CASES, ids=[f"{name} {' '.join(options)}" for name, options, _ in CASES]
)
def test_the_message_names_the_culprit(refusal, small, tmp_path, name, options, message):
    bad.make(name, tmp_path / "data")
    error = refusal("train", *settings(tmp_path, small), *options)
    assert re.search(message, error), error
    if name in LATE:
        assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
        assert not list(tmp_path.glob("run/checkpoints/*"))
    else:
        assert not (tmp_path / "run").exists(), "no half run"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        # Without this, the cases above could fail for another reason than theirs.
        ("good", ()),
        ("silent", ()),
        ("silent", ("dataset.normalize=minmax",)),
        ("silent", ("dataset.normalize=peak", "dataset.bits=8", "dataset.quantization=mu-law")),
        ("one_frame", ("dataset.drop_last=false",)),
        ("no_frames", ("dataset.sample_rate=22050", "dataset.path=${paths.data_dir}/more")),
    ],
    ids=["good", "silence", "silence, minmax", "silence, peak", "one frame", "an empty file among others"],
)
def test_what_is_unusual_but_good(composed, small, tmp_path, monkeypatch, name, options):
    bad.make(name, tmp_path / "data")
    bad.make(name, tmp_path / "more")
    write_pcm(tmp_path / "more" / "train" / "music.wav", bad.noise(frames=500), 44100)
    keep_seeds(monkeypatch)
    cfg = composed("train", *settings(tmp_path, small), f"paths.data_dir={tmp_path}", *options)
    assert train(cfg)["status"] == "finished"


def test_a_file_without_permission(refusal, small, tmp_path, monkeypatch):
    bad.good(tmp_path / "data")

    def refuse(path, *args, **kwargs):
        if Path(path).name == "train.wav":
            raise PermissionError(13, "Permission denied", str(path))
        return builtins.open(path, *args, **kwargs)

    # The superuser, as which tests often run, may read everything.
    monkeypatch.setattr(io, "open", refuse, raising=False)
    error = refusal("train", *settings(tmp_path, small))
    assert re.search(r"train\.wav: cannot read the file \(Permission denied\)", error)


@pytest.mark.parametrize("run", ["file/run", "file"])
def test_a_run_folder_that_cannot_be(refusal, small, tmp_path, run):
    bad.good(tmp_path / "data")
    (tmp_path / "file").write_text("mine")
    error = refusal("train", *settings(tmp_path, small), f"paths.run={tmp_path / run}")
    assert re.search(rf"paths\.run=.*{run} cannot be made: .*Give a folder that can be written: paths\.run=", error)


def test_any_path_can_be_given_in_quotes(composed, small, tmp_path, monkeypatch):
    folder = tmp_path / "Ünïcödé = a,b (it's) [x] {y} #1"
    bad.good(folder / "data")
    keep_seeds(monkeypatch)
    quoted = [f'{key}="{folder / name}"' for key, name in (("dataset.path", "data"), ("paths.run", "run"))]
    result = train(composed("train", *settings(tmp_path, small), *quoted))
    assert result["status"] == "finished"
    assert Path(result["last"]).resolve().is_relative_to(folder)
    again = f'paths.run="{folder / "again"}"'
    resumed = composed("train", *settings(tmp_path, small), *quoted, again, "scheduler.total_steps=3",
                       f'checkpoint="{folder / "run" / "checkpoints" / "last.ckpt"}"')  # fmt: skip
    assert train(resumed)["status"] == "finished"
    wav = f'out="{folder / "out"}"', f'checkpoint="{folder / "run"}"', f'prompt="{folder / "data/test/test.wav"}"'
    (made,) = generate(composed("generate", "seconds=0.001", "prompt_seconds=0.001", "device=cpu", *wav))
    assert made.parent == folder / "out"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model.d_modle=3", r"^ValueError: Unknown key model\.d_modle\. Did you mean model\.d_model\?\n$"),
        ("dataset.path=/a=b", r"dataset\.path=/a=b cannot be read.*\n.*Write 'dataset\.path=\"/a=b\"'"),
        ("dataset.path=/nowhere/at all", r"there is no folder /nowhere/at all\.\n.*Set dataset\.path"),
    ],
)
def test_the_command_itself(tmp_path, monkeypatch, capsys, argument, message):
    monkeypatch.chdir(tmp_path)
    keep_seeds(monkeypatch)
    with pytest.raises(SystemExit) as stopped:
        main("train", [argument, f"paths.runs={tmp_path / 'runs'}"])
    err = capsys.readouterr().err
    assert stopped.value.code == 1
    assert re.search(message, err), err
    assert not list(tmp_path.rglob("*.ckpt")) + list(tmp_path.rglob("run.json"))
