"""A folder of audio as shards, for collections larger than a disk. The keys are in configs/shards.yaml."""

import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stereo_sashimi.commands.shared.errors import as_typed
from stereo_sashimi.commands.shared.overrides import override
from stereo_sashimi.commands.shared.runs import relative
from stereo_sashimi.commands.train.build import build_datamodule
from stereo_sashimi.data.shard_folder import ShardDataModule, write_shards


def run(cfg: DictConfig) -> None:
    """Write the shards that `cfg` describes, and say how to train on them."""
    # The rests of files come along: whoever trains may leave them out.
    cfg.dataset.drop_last = False
    datamodule = build_datamodule(cfg)
    if isinstance(datamodule, ShardDataModule):
        raise ValueError("dataset=shards are shards already. Give the data set that they are to be made of.")
    out = Path(str(cfg.out))
    console = Console(stderr=True)
    columns = (TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TextColumn("clips"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("shards", total=None)
        counts = write_shards(datamodule, out, lambda done, total: bar.update(task, completed=done, total=total))
    print(f"{relative(out)}: " + ", ".join(f"{count:,} {split}" for split, count in counts.items()) + " clips")
    path = shlex.quote(override("dataset.path", str(out.resolve())))
    shape = f"dataset.is_stereo={str(datamodule.d_input == 2).lower()} dataset.sample_len={datamodule.sample_len}"
    print(as_typed(f"train on them: python train.py dataset=shards {path} {shape}"), file=sys.stderr)
