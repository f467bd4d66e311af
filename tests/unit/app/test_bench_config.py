"""Which configurations a benchmark measures: presets, choices, patterns, and what is refused."""

import pytest

from stereo_sashimi.app.bench.config import PRESETS, Named, choose, described

STEREO_16, MONO_8 = (2, 16), (1, 8)


def test_overrides_alone_are_one_configuration():
    assert choose(None, "*", ["decoder=dml", "dataset.bits=8"]) == [
        Named("decoder=dml dataset.bits=8", ("decoder=dml", "dataset.bits=8"))
    ]
    assert choose(None, "*", []) == [Named("train.yaml", ())]


def test_lists_of_values_are_multiplied_out_and_named_by_what_differs():
    found = choose(None, "*", ["decoder=dml", "backend=krylov,reference", "dataset.bits=8,16"])
    assert [named.name for named in found] == [
        "backend=krylov dataset.bits=8",
        "backend=krylov dataset.bits=16",
        "backend=reference dataset.bits=8",
        "backend=reference dataset.bits=16",
    ]
    assert found[1].overrides == ("decoder=dml", "backend=krylov", "dataset.bits=16")


def test_a_list_in_brackets_is_one_value():
    (named,) = choose(None, "*", ["model.pool=[2,2]"])
    assert named.overrides == ("model.pool=[2,2]",)


def test_overrides_follow_those_of_a_preset():
    found = choose("stereo", "dml-*", ["trainer=cpu", "optimizer.lr=0.1,0.2"])
    assert [named.name for named in found] == [
        f"dml-{frames} optimizer.lr={lr}" for frames in (8192, 65536) for lr in (0.1, 0.2)
    ]
    assert found[0].overrides == (*PRESETS["stereo"]["dml-8192"], "trainer=cpu", "optimizer.lr=0.1")


@pytest.mark.parametrize(
    ("preset", "only", "overrides", "message"),
    [
        ("stero", "*", [], "no preset 'stero'; choose --preset baseline, stereo, long, gpu"),
        ("stereo", "mono-*", [], r"--only 'mono-\*' matches none of categorical-concat-12288, "),
        (None, "*", ["optimizer.lr=interval(0,1)"], r"optimizer\.lr=a,b"),
        (None, "*", ["dataset.path=a(b"], "cannot be read"),
    ],
)
def test_what_names_nothing_is_refused(preset, only, overrides, message):
    with pytest.raises(ValueError, match=message):
        choose(preset, only, overrides)


@pytest.mark.parametrize(
    ("preset", "name", "form", "frames"),
    [
        ("baseline", "mono-8192", MONO_8, 8192),
        ("baseline", "mono-12288", MONO_8, 12288),
        ("baseline", "mono-8192-unet", MONO_8, 8192),
        ("baseline", "mono-8192-s4d", MONO_8, 8192),
        ("baseline", "mono-8192-16bit", (1, 16), 8192),
        ("stereo", "categorical-concat-12288", STEREO_16, 12288),
        ("stereo", "categorical-sum-12288", STEREO_16, 12288),
        ("stereo", "dml-8192", STEREO_16, 8192),
        ("stereo", "dml-65536", STEREO_16, 65536),
        ("long", "dml-131072-checkpointed", STEREO_16, 131072),
        ("gpu", "dml-batch64-compiled-bf16", STEREO_16, 12288),
        ("gpu", "categorical-batch8-reference-fp32", STEREO_16, 12288),
    ],
)
def test_a_preset_is_what_its_name_says(preset, name, form, frames):
    cfg, datamodule, model = described(PRESETS[preset][name])
    assert (model.spec.n_channels, model.spec.bits) == form
    assert datamodule.sample_len == frames
    assert datamodule.batch_size == (64 if "batch64" in name else 8 if "batch8" in name else 1)
    assert model.model.unet == ("unet" in name)
    assert model.model.layer.kind == ("s4d" if "s4d" in name else "s4")
    assert model.decoder.kind == ("dml" if "dml" in name else "categorical")
    assert model.encoder.merge == ("sum" if "sum" in name else "concat")
    assert (model.model.d_model, model.model.n_layers) == (64, 8)
    assert cfg.trainer.precision == ("bf16-mixed" if "bf16" in name else "32-true")
    assert cfg.compile == ("compiled" in name)
    assert cfg.activation_checkpointing == ("checkpointed" in name)
    assert cfg.backend.name == ("reference" if "reference" in name else "auto")


def test_the_gpu_preset_has_every_combination():
    assert len(PRESETS["gpu"]) == 2 * 3 * 5
