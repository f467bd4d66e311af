"""Lists of configurations that the benchmarks know by name; each command offers its own.

A configuration is a tuple of overrides of train.py; `key=a,b` stands for two. Overrides of the command line are added
to it, and replace those of the same key.
"""

from collections.abc import Mapping
from itertools import product

Overrides = tuple[str, ...]
Presets = Mapping[str, Mapping[str, Overrides]]

MONO: Overrides = ("experiment=audio/sashimi-musdb18mono",)
CATEGORICAL: Overrides = ("experiment=audio/sashimi-musdb18stereo",)
DML: Overrides = ("experiment=audio/sashimi-dml-musdb18stereo",)
# Ways to run one model on a GPU, the last two against the first three.
RUNS: Mapping[str, Overrides] = {
    "eager-fp32": (),
    "eager-bf16": ("trainer.precision=bf16-mixed",),
    "compiled-bf16": ("trainer.precision=bf16-mixed", "compile=true"),
    "reference-fp32": ("backend=reference",),
    "triton-fp32": ("backend=triton",),
}


def _clips(frames: int, batch: int = 1) -> Overrides:
    return (f"loader.batch_size={batch}", f"dataset.sample_len={frames}")


TRAIN: Presets = {
    "baseline": {
        "mono-8192": (*MONO, "dataset.bits=8", *_clips(8192)),
        "mono-12288": (*MONO, "dataset.bits=8", *_clips(12288)),
        "mono-8192-unet": (*MONO, "dataset.bits=8", "model=sashimi_unet", *_clips(8192)),
        "mono-8192-s4d": (*MONO, "dataset.bits=8", "model/layer=s4d", *_clips(8192)),
        "mono-8192-16bit": (*MONO, "dataset.bits=16", *_clips(8192)),
    },
    "stereo": {
        "categorical-concat-12288": (*CATEGORICAL, *_clips(12288)),
        "categorical-sum-12288": (*CATEGORICAL, "encoder.merge=sum", *_clips(12288)),
        "dml-8192": (*DML, *_clips(8192)),
        "dml-65536": (*DML, *_clips(65536)),
    },
    "long": {
        "dml-131072-checkpointed": (*DML, "activation_checkpointing=true", *_clips(131072)),
    },
    "gpu": {
        f"{head}-batch{batch}-{run}": (*base, "trainer=gpu", *how, f"loader.batch_size={batch}")
        for (head, base), batch, (run, how) in product(
            {"categorical": CATEGORICAL, "dml": DML}.items(), (1, 8, 64), RUNS.items()
        )
    },
}

# Streams in a batch: one, and where the weights are shared by several.
ONE, SEVERAL = "loader.batch_size=1", "loader.batch_size=1,8"

GENERATE: Presets = {
    "generate": {
        "mono": (*MONO, "dataset.bits=8", SEVERAL),
        "mono-s4d": (*MONO, "dataset.bits=8", "model/layer=s4d", SEVERAL),
        "mono-unet": (*MONO, "dataset.bits=8", "model=sashimi_unet", SEVERAL),
        "mono-16bit": (*MONO, "dataset.bits=16", ONE),
        "dml-sum": (*DML, "encoder.merge=sum", SEVERAL),
        "dml-sum-coupled": (*DML, "encoder.merge=sum", "decoder.coupling=autoregressive", SEVERAL),
        "dml-concat": (*DML, ONE),
        "dml-none": (*DML, "encoder.merge=none", ONE),
        "categorical-concat": (*CATEGORICAL, ONE),
    },
    "generate-gpu": {
        head: (*base, "trainer=gpu", "loader.batch_size=1,4,16,64,256")
        for head, base in {"dml": DML, "categorical": CATEGORICAL}.items()
    },
}
