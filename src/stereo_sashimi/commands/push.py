"""Put a model on the Hugging Face Hub, as an exported one. The keys are in configs/push.yaml."""

import tempfile
from pathlib import Path

from omegaconf import DictConfig

from stereo_sashimi.commands.export import export
from stereo_sashimi.commands.shared.loading import model_line
from stereo_sashimi.commands.shared.runs import find_checkpoint
from stereo_sashimi.models.checkpoint import load
from stereo_sashimi.models.exported import CONFIG, read_header
from stereo_sashimi.models.hub import split, upload
from stereo_sashimi.models.model_files import HUB
from stereo_sashimi.schema import check_type

_CARD = """\
---
library_name: stereo-sashimi
tags: [audio, stereo, sashimi]
---

# {name}

{model}. {trained}

```bash
pip install 'stereo-sashimi[hub]'
stereo-sashimi generate checkpoint=hub:{repo}
```

No licence is given yet. Its owner adds one above: `license: <name>`.
"""


def push(
    checkpoint: str, to: str, revision: str | None = None, private: bool | None = None, message: str | None = None
) -> str:
    """Put the model of a run, .ckpt file or exported folder into the repository `to`; returns its name with the commit.

    Raises ValueError that says what to do: for a name that is none, a model that cannot be read, and as `upload`.
    """
    name = to.removeprefix(HUB)
    if "@" in name:
        raise ValueError(f"to={to} has a revision in it. Write to={name.partition('@')[0]} revision=..")
    repo, _ = split(name)
    path = find_checkpoint(checkpoint, "")
    with tempfile.TemporaryDirectory() as temporary:
        exported = path.suffix == ".safetensors"
        folder = path.parent if exported else export(str(path), str(Path(temporary, "model")))
        model, training = load(folder), read_header(folder / CONFIG).training
        steps = "" if training.steps is None else f"Trained for {training.steps:,} steps. "
        bits = training.validation_bits_per_sample
        trained = steps + ("" if bits is None else f"Validation: {bits:.3f} bits per sample.")
        card = _CARD.format(name=repo.partition("/")[2], repo=repo, model=model_line(model), trained=trained).replace(
            "  ", ", "
        )
        message = message or f"{training.checkpoint or path.name}. {steps}".strip()
        commit = upload(folder, repo, card, revision=revision, private=private, message=message)
    return f"{HUB}{repo}@{commit}"


def run(cfg: DictConfig) -> None:
    """Push as `cfg` says."""
    private = check_type(cfg.private, bool | None, "private")
    revision, message = (None if cfg[key] is None else str(cfg[key]) for key in ("revision", "message"))
    name = push(str(cfg.checkpoint), str(cfg.to), revision, private, message)
    print(f"{name}  load it with stereo_sashimi.load({name.partition('@')[0]!r})")
