"""Which configurations a benchmark measures: presets, choices, patterns, and what is refused."""

import pytest
from benchmarks.config import Named, choose, described
from benchmarks.presets import GENERATE, ONE, TRAIN

STEREO_16, MONO_8 = (2, 16), (1, 8)


def test_overrides_alone_are_one_configuration():
    assert choose(TRAIN, None, "*", ["decoder=dml", "dataset.bits=8"]) == [
        Named("decoder=dml dataset.bits=8", ("decoder=dml", "dataset.bits=8"))
    ]
    assert choose(TRAIN, None, "*", []) == [Named("train.yaml", ())]


def test_lists_of_values_are_multiplied_out_and_named_by_what_differs():
    found = choose(TRAIN, None, "*", ["decoder=dml", "backend=krylov,reference", "dataset.bits=8,16"])
    assert [named.name for named in found] == [
        "backend=krylov dataset.bits=8",
        "backend=krylov dataset.bits=16",
        "backend=reference dataset.bits=8",
        "backend=reference dataset.bits=16",
    ]
    assert found[1].overrides == ("decoder=dml", "backend=krylov", "dataset.bits=16")


def test_a_list_in_brackets_is_one_value():
    (named,) = choose(TRAIN, None, "*", ["model.pool=[2,2]"])
    assert named.overrides == ("model.pool=[2,2]",)


def test_overrides_follow_those_of_a_preset():
    found = choose(TRAIN, "stereo", "dml-*", ["trainer=cpu", "optimizer.lr=0.1,0.2"])
    assert [named.name for named in found] == [
        f"dml-{frames} optimizer.lr={lr}" for frames in (8192, 65536) for lr in (0.1, 0.2)
    ]
    assert found[0].overrides == (*TRAIN["stereo"]["dml-8192"], "trainer=cpu", "optimizer.lr=0.1")


def test_an_override_replaces_that_of_the_preset():
    (named,) = choose(TRAIN, "stereo", "dml-8192", ["dataset.sample_len=64"])
    assert named.overrides.count("dataset.sample_len=64") == 1
    assert not [word for word in named.overrides if word.endswith("=8192")]
    found = choose(GENERATE, "generate", "mono", ["loader.batch_size=4"])
    assert [named.name for named in found] == ["mono"]
    assert found[0].overrides[-1] == "loader.batch_size=4"


def test_choices_of_a_preset_are_multiplied_out():
    found = choose(GENERATE, "generate", "mono", [])
    assert [named.name for named in found] == ["mono loader.batch_size=1", "mono loader.batch_size=8"]
    assert choose(GENERATE, "generate", "mono*size=8", [])[0] == found[1]


def test_what_stands_in_front_of_overrides():
    assert choose(GENERATE, None, "*", [], (ONE,)) == [Named("train.yaml", (ONE,))]
    words = ("loader.batch_size=2", "decoder=dml")
    assert choose(GENERATE, None, "*", words, (ONE,)) == [Named(" ".join(words), words)]


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
        choose(TRAIN, preset, only, overrides)


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
    cfg, datamodule, model = described(TRAIN[preset][name])
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
    assert len(TRAIN["gpu"]) == 2 * 3 * 5


@pytest.mark.parametrize(
    ("name", "form", "merge", "batches"),
    [
        ("mono", MONO_8, "concat", [1, 8]),
        ("mono-s4d", MONO_8, "concat", [1, 8]),
        ("mono-unet", MONO_8, "concat", [1, 8]),
        ("mono-16bit", (1, 16), "concat", [1]),
        ("dml-sum", STEREO_16, "sum", [1, 8]),
        ("dml-sum-coupled", STEREO_16, "sum", [1, 8]),
        ("dml-concat", STEREO_16, "concat", [1]),
        ("dml-none", STEREO_16, "none", [1]),
        ("categorical-concat", STEREO_16, "concat", [1]),
    ],
)
def test_a_preset_of_generation_is_what_its_name_says(name, form, merge, batches):
    found = [described(named.overrides) for named in choose(GENERATE, "generate", name, [])]
    assert [datamodule.batch_size for _, datamodule, _ in found] == batches
    for _, _, model in found:
        assert (model.spec.n_channels, model.spec.bits) == form
        assert model.encoder.merge == merge
        assert model.decoder.kind == ("dml" if "dml" in name else "categorical")
        assert model.decoder.coupling == ("autoregressive" if "coupled" in name else "independent")
        assert model.model.layer.kind == ("s4d" if "s4d" in name else "s4")
        assert model.model.unet == ("unet" in name)
        assert (model.model.d_model, model.model.n_layers, model.model.pool) == (64, 8, (4, 4))


@pytest.mark.slow
def test_the_gpu_preset_of_generation_is_a_curve_over_batches():
    found = [described(named.overrides) for named in choose(GENERATE, "generate-gpu", "*", [])]
    assert [datamodule.batch_size for _, datamodule, _ in found] == [1, 4, 16, 64, 256] * 2
    assert [model.decoder.kind for _, _, model in found] == ["dml"] * 5 + ["categorical"] * 5
    assert all(model.spec.n_channels == 2 and cfg.trainer.accelerator == "gpu" for cfg, _, model in found)


def test_each_command_has_presets_of_its_own():
    assert not set(TRAIN) & set(GENERATE)
    with pytest.raises(ValueError, match="choose --preset generate, generate-gpu"):
        choose(GENERATE, "stereo", "*", [])
