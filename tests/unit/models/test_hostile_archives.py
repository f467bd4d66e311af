"""Checkpoints made to take memory or time: refused within a budget, by every reader, and no honest file is."""

import io
import pickle
import signal
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from limits import memory_of_at_most
from stereo_sashimi.commands.train.resume import check_resume
from stereo_sashimi.interop.pickled import lookup, read_lightning
from stereo_sashimi.models.checkpoint import CheckpointError, load, read


@contextmanager
def budget(seconds: int = 10) -> Iterator[None]:
    """End with MemoryError or TimeoutError what takes more than this, or a GiB; seconds are those of the processor."""

    def late(*_: object) -> None:
        raise TimeoutError

    handler = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        with memory_of_at_most(1 << 30):
            yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


def described(**fields: Any) -> dict[str, Any]:
    """A checkpoint with these further hyper_parameters."""
    return {"state_dict": {"w": torch.zeros(1)}, "hyper_parameters": {"model": {}, **fields}}


def saved(path: Path, content: Any) -> None:
    torch.save(content, path)


def archived(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED, **more: bytes) -> None:
    """An archive as of torch.save, with another data.pkl."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {"data.pkl": pickled, "byteorder": b"little", "version": b"3\n", **more}.items():
            archive.writestr(f"archive/{name}", content)


class Call:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def nested(times: int, again: Callable[[Any], Any], innermost: Any = 1) -> Any:
    for _ in range(times):
        innermost = again(innermost)
    return innermost


def filled_late(path: Path) -> None:
    """Each list is put into the next before it holds anything."""
    lists: list[list[Any]] = [[] for _ in range(40)]
    for outer, inner in pairwise(lists):
        outer += [inner] * 10
    saved(path, described(a=lists[0]))


def with_itself(path: Path) -> None:
    content = described()
    content["hyper_parameters"]["model"]["again"] = content["hyper_parameters"]
    saved(path, content)


def deflated_tensor(path: Path) -> None:
    """256 KB that are 256 MB."""
    whole = io.BytesIO()
    torch.save(described(), whole)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as copy:
        for member in archive.infolist():
            if not member.filename.endswith("data/0"):
                copy.writestr(member.filename, archive.read(member))
        with copy.open("archive/data/0", "w", force_zip64=True) as file:
            for _ in range(256):
                file.write(bytes(1 << 20))


def two_directories(path: Path) -> None:
    """Its end names a directory that not every reader takes."""
    archived(path, pickle.dumps({}, 2))
    path.write_bytes(b"x" * 100 + path.read_bytes())


def calls_of(function: str, argument: bytes, times: int) -> bytes:
    """A list of calls, all with one object in the memo."""
    head = b"\x80\x02" + argument + b"\x85q\x00"
    return head + b"c" + function.replace(".", "\n").encode() + b"\nq\x01](" + b"h\x01h\x00R" * times + b"e\x86."


A_DICT = b"}(" + b"".join(b"M" + n.to_bytes(2, "little") + b"N" for n in range(50_000)) + b"u"
A_LIST = b"](" + b"N" * 50_000 + b"e"
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "3 MB of references": (lambda path: archived(path, b"\x80\x02]q\x00(" + b"h\x00" * 1_500_000 + b"e."), "steps"),
    "lists that laugh": (lambda path: saved(path, described(a=nested(40, lambda x: [x] * 10))), "repeated ones"),
    "dictionaries that laugh": (
        lambda path: saved(path, described(a=nested(40, lambda x: dict.fromkeys("abcdefgh", x)))), "repeated ones"),
    # (((1, 1), (1, 1)), ..), whose hash takes 2**60 steps, as a key.
    "a key that doubles": (
        lambda path: archived(path, b"\x80\x02}K\x01" + b"q\x00h\x00\x86" * 60 + b"Ns."), "repeated ones"),
    "texts that repeat": (lambda path: saved(path, described(a=["x" * 10**6] * 10**4)), "repeated ones"),
    "filled late": (filled_late, "values, repeated ones"),
    "contains itself": (with_itself, "contain themselves"),
    "deep": (lambda path: saved(path, described(a=nested(80, lambda x: [x]))), "more than 64 deep"),
    "a deflated tensor": (deflated_tensor, r"data\.pkl is compressed"),
    "a deflated pickle": (lambda path: archived(path, bytes(1 << 28), zipfile.ZIP_DEFLATED), "is compressed"),
    "a pickle of 20 MB": (lambda path: archived(path, bytes(20_000_000)), r"data\.pkl has 20000000 bytes"),
    "a large call": (lambda path: saved(path, described(a=Call(bytearray, 10**10))), "bytearray"),
    "an empty tensor": (lambda path: saved(path, described(a=Call(torch.Tensor, 10**10))), r"torch\.\S*Tensor"),
    "a slow codec": (lambda path: archived(path, calls_of("_codecs.encode", b"X\x01\0\0\0\xc2", 1)), "damaged"),
    "copies of a dictionary": (lambda path: archived(path, calls_of("collections.Counter", A_DICT, 10**5)), "steps"),
    "copies of a list": (lambda path: archived(path, calls_of("__builtin__.set", A_LIST, 10**5)), "steps"),
    "two directories": (two_directories, "no archive as torch.save writes"),
    "names in two cases": (
        lambda path: archived(path, pickle.dumps({}, 2), **{"data/0": b"x", "DATA/a": b"x"}), "names that torch.save"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_within_a_budget(tmp_path, name):
    path = tmp_path / "hostile.ckpt"
    make, message = HOSTILE[name]
    make(path)
    assert path.stat().st_size < 21_000_000
    for reader in (load, read_lightning):
        with budget(), pytest.raises(CheckpointError, match=rf"hostile\.ckpt .*{message}"):
            reader(path)


def test_resuming_goes_through_the_same_door(tmp_path):
    make, message = HOSTILE["deep"]
    make(tmp_path / "hostile.ckpt")
    with budget(), pytest.raises(CheckpointError, match=message):
        check_resume(str(tmp_path / "hostile.ckpt"), None, None)  # type: ignore[arg-type]


def test_a_tensor_in_a_set_is_not_taken_apart(tmp_path):
    saved(tmp_path / "set.ckpt", described(a=Call(set, torch.zeros(10**6))))
    with budget(), pytest.raises(CheckpointError, match=r"set\.ckpt is damaged .*builtins\.set is called"):
        read(tmp_path / "set.ckpt")


@pytest.mark.parametrize("value", ["${.k}" + "." * 10**6, "${" + "." * 10**6 + "!}", "${a1.k.k.k.k}"])
def test_references_between_settings_end(value):
    tree = {f"a{n}": {"k": f"${{a{n + 1}.k.k.k}}"} for n in range(2000)} | {"a": value}
    with budget(), pytest.raises(CheckpointError, match="leave a"):
        lookup(tree, "a.k.k")


def test_no_honest_file_is_refused(tmp_path):
    """Thousands of parameters with AdamW's state, averaged weights, and all that torch saves as plain fields."""
    content = described(pool=[4, 4], betas=(0.9, 0.999))
    names = [f"model.backbone.down.{n}.layer.weight" for n in range(1000)]
    content["state_dict"] = OrderedDict((name, torch.zeros(2)) for name in names)
    content["current_model_state"] = {name: torch.zeros(2) for name in names}
    moments = {
        n: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)} for n in range(1000)
    }
    content["optimizer_states"] = [{"state": moments, "param_groups": [{"params": list(range(1000))}]}]
    plain = {"milestones": Counter([3, 5]), "size": torch.Size([2]), "seen": {1, 2}, "raw": b"\xff" * 99}
    content["lr_schedulers"] = [plain]
    content["parameter"] = torch.nn.Parameter(torch.zeros(2))
    torch.save(content, tmp_path / "honest.ckpt")
    with budget():
        back = read(tmp_path / "honest.ckpt")
    assert back["lr_schedulers"] == content["lr_schedulers"]
    assert list(back["state_dict"]) == names
