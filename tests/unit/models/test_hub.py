"""Models on the Hub, against a stand-in server: up and down to the bit; a hostile repository; no connection."""

import json
import sys

import pytest
import torch
from exported_models import make, same_bits
from hub_server import Hub, serving

import stereo_sashimi
from stereo_sashimi.commands.cli import main
from stereo_sashimi.commands.pull import pull
from stereo_sashimi.commands.push import push
from stereo_sashimi.commands.shared.runs import find_checkpoint, name_of, results_folder
from stereo_sashimi.models.exported import Training, save
from stereo_sashimi.models.locate import CheckpointError, model_file

# huggingface_hub beside the HTTP library that it uses.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "some-one/small.model"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The server, and huggingface_hub as it is when HF_ENDPOINT, HF_HOME and HF_TOKEN name it."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with serving() as (hub, address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        # Large files by LFS; the server knows no Xet.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        yield hub


@pytest.fixture
def stored(hub, folder) -> Hub:
    """The server with `folder` in it."""
    hub.commit(REPO, {path.name: path.read_bytes() for path in folder.iterdir()})
    return hub


def resolved(hub: Hub) -> set[str]:
    return {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}


def test_up_and_down_to_the_bit(hub, model, folder, tmp_path):
    name = push(str(folder), REPO)
    files = hub.files(REPO, "main")
    assert set(files) == {"config.json", "model.safetensors", "README.md"}
    for path in folder.iterdir():
        assert files[path.name] == path.read_bytes()
    card = files["README.md"].decode()
    assert f"checkpoint=hub:{REPO}" in card
    assert "license:" not in card.split("---")[1]
    assert name == f"hub:{REPO}@{hub.refs[REPO, 'main']}"
    assert same_bits(stereo_sashimi.load(f"hub:{REPO}"), model)
    assert pull(REPO, tmp_path / "pulled") == name
    assert {path.name: path.read_bytes() for path in (tmp_path / "pulled").iterdir()} == files
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_a_card_is_never_written_over_with_a_generated_one(hub, folder):
    push(str(folder), REPO)
    hub.commit(REPO, {"README.md": b"license: mine"})
    push(str(folder), REPO, message="again")
    assert hub.files(REPO, "main")["README.md"] == b"license: mine"
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    push(str(folder), REPO)
    assert b"mit" in hub.files(REPO, "main")["README.md"]


def test_revisions_are_branches_and_commits(hub, model, folder, tmp_path):
    first = push(str(folder), REPO, revision="v1")
    torch.manual_seed(5)
    other = make(merge="sum")
    push(str(save(other, tmp_path / "other", training=Training(steps=1200))), REPO)
    assert b"1,200 steps" in hub.files(REPO, "main")["README.md"]
    assert same_bits(stereo_sashimi.load(f"hub:{REPO}"), other)
    for name in (first, f"hub:{REPO}@v1"):
        assert same_bits(stereo_sashimi.load(name), model)
        path = find_checkpoint(name, "")
        assert name_of(path) == first
        assert results_folder(path, "runs").as_posix() == "runs/some-one--small.model"


def test_a_public_repository_is_not_taken_for_a_private_one(hub, folder):
    push(str(folder), REPO, private=False)
    asked = len(hub.asked)
    with pytest.raises(CheckpointError, match=f"{REPO} is public already"):
        push(str(folder), REPO, private=True)
    assert not any("/commit/" in path for path in hub.asked[asked:])
    push(str(folder), "some-one/secret", private=True)
    assert hub.private["some-one/secret"]


def test_the_commands(hub, folder, tmp_path, capsys):
    main("push", [f"checkpoint={folder}", f"to={REPO}", "revision=v2", "message='a b'"])
    assert capsys.readouterr().out.startswith(f"hub:{REPO}@{hub.refs[REPO, 'v2']}  load it")
    main("pull", [f"from={REPO}@v2", f"out={tmp_path / 'x'}"])
    assert f"from hub:{REPO}@{hub.refs[REPO, 'v2']}" in capsys.readouterr().out
    assert stereo_sashimi.load(tmp_path / "x").spec.n_channels == 2


def test_only_the_files_of_a_model_are_fetched(stored, tmp_path):
    stored.commit(REPO, {"pytorch_model.bin": b"\x80pickle", "modeling.py": b"raise SystemExit", "../x": b"y"})
    pull(REPO, tmp_path / "pulled")
    assert resolved(stored) == {"config.json", "model.safetensors", "README.md"}
    assert {path.name for path in (tmp_path / "pulled").iterdir()} == {"config.json", "model.safetensors"}


def test_a_description_that_names_code_is_refused(stored, tmp_path):
    config = json.loads(stored.files(REPO, "main")["config.json"])
    config["model"]["_target_"] = "os.system"
    stored.commit(REPO, {"config.json": json.dumps(config).encode()})
    with pytest.raises(CheckpointError, match=r"Unknown key model\._target_"):
        pull(REPO, tmp_path / "pulled")
    assert "model.safetensors" not in resolved(stored)
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "README.md"])
def test_a_file_that_is_too_large_is_not_fetched(stored, tmp_path, file):
    stored.commit(REPO, {"README.md": b"card"})
    stored.claims[file] = 10**15
    with pytest.raises(CheckpointError, match=rf"its {file} has 1000000000000000 bytes, .* at most \d+\. It is not"):
        pull(REPO, tmp_path / "pulled")
    assert not any(path.startswith("GET") and path.endswith(file) for path in stored.asked)
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize(
    "name",
    ["small", "../x", "a/..", "a/b/c", "/a/b", "a/b@../../x", "a/b@", "a\\b", "a/b@v1/../..", "ä/b", "a/b@-x", ""],
)
def test_names_that_are_none(hub, tmp_path, folder, name):
    with pytest.raises(CheckpointError, match="is no name on the Hub"):
        pull(name, tmp_path / "pulled")
    with pytest.raises(ValueError, match=r"is no name on the Hub|has a revision in it"):
        push(str(folder), name)
    assert hub.asked == []


def test_what_is_there_is_not_replaced(stored, folder):
    with pytest.raises(ValueError, match="is there already"):
        pull(REPO, folder)
    with pytest.raises(ValueError, match="cannot be made: Not a directory"):
        pull(REPO, folder / "config.json" / "x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some-one/absent", "has no model some-one/absent, or it is private"),
        (f"{REPO}@absent", f"{REPO} has no revision absent"),
        ("some-one/empty", "some-one/empty has no config.json"),
        ("some-one/half", "some-one/half has no model.safetensors"),
    ],
)
def test_what_is_not_there(stored, tmp_path, name, message):
    stored.commit("some-one/empty", {"README.md": b""})
    stored.commit("some-one/half", {"config.json": stored.files(REPO, "main")["config.json"]})
    with pytest.raises(CheckpointError, match=message):
        stereo_sashimi.load(f"hub:{name}")


def test_without_a_connection_the_copy_is_taken(stored, model, monkeypatch):
    from huggingface_hub import constants

    stereo_sashimi.load(f"hub:{REPO}")
    closed = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", closed + "/{repo_id}/resolve/{revision}/{filename}")
    assert same_bits(stereo_sashimi.load(f"hub:{REPO}"), model)
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1:9 cannot be reached, and there is no copy of a/b here"):
        model_file("hub:a/b")
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1:9 cannot be reached"):
        push(str(model_file(f"hub:{REPO}")), REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="cannot be reached as HF_HUB_OFFLINE is set"):
        model_file("hub:a/b")


def test_pushing_needs_a_token_that_may_write(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(CheckpointError, match="refuses this token for some-one/small"):
        push(str(folder), REPO)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(CheckpointError, match=r"needs a token that may write.*hf auth login.*HF_TOKEN"):
        push(str(folder), REPO)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"not installed\. pip install 'stereo-sashimi\[hub\]'"):
        model_file(f"hub:{REPO}")
