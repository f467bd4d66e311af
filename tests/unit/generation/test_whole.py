"""Whole recordings: a score is the model's own log-probability, a continuation goes on where its prompt ended."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from stereo_sashimi.audio.quantize import decode, encode
from stereo_sashimi.generation import sampling as whole_module
from stereo_sashimi.generation import stream as stream_module
from stereo_sashimi.generation.philox import Sampler
from stereo_sashimi.generation.sampling import TrackScore, draw, frames_in, generate, score
from stereo_sashimi.generation.stream import Stream
from stereo_sashimi.models.language_model import LanguageModel, LanguageModelConfig
from stereo_sashimi.models.sashimi import SashimiConfig
from stereo_sashimi.nn.embedding import EmbeddingConfig
from stereo_sashimi.nn.heads.head import CategoricalHeadConfig, DMLHeadConfig
from stereo_sashimi.nn.s4 import S4Config, S4DConfig
from stereo_sashimi.spec import AudioSpec

RATE = 1000
CASES = {
    "mono": (1, "concat", CategoricalHeadConfig(), S4Config(d_state=4)),
    "stereo": (2, "concat", CategoricalHeadConfig("autoregressive"), S4Config(d_state=4)),
    "stereo-dml": (2, "sum", DMLHeadConfig("autoregressive", n_mixtures=2), S4DConfig(d_state=4)),
    "separate": (2, "none", DMLHeadConfig("independent", n_mixtures=2), S4DConfig(d_state=4)),
}


def make(case: str, **spec) -> LanguageModel:
    n_channels, merge, head, layer = CASES[case]
    torch.manual_seed(0)
    backbone = SashimiConfig(d_model=4, n_layers=1, pool=(2, 2), layer=layer)
    audio = AudioSpec(**({"sample_rate": RATE, "n_channels": n_channels, "bits": 8} | spec))
    return LanguageModelConfig(audio, EmbeddingConfig(4, merge), backbone, head, pad_len=3).build().double().eval()


@pytest.fixture(params=CASES)
def model(request) -> LanguageModel:
    return make(request.param)


def music(model: LanguageModel, frames: int = 50) -> np.ndarray:
    rng = np.random.default_rng(frames)
    return rng.integers(-9000, 9000, (frames, model.spec.n_channels)).astype(np.int16)


@torch.no_grad()
def nats_of(model: LanguageModel, codes: np.ndarray) -> np.ndarray:
    return -model.log_prob(torch.from_numpy(codes)[None])[0].numpy()


@pytest.mark.parametrize("length", [7, 50, 1000])
def test_a_score_is_the_log_probability_of_the_model(model, monkeypatch, length):
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", length)
    pcm = music(model)
    nats = nats_of(model, encode(pcm, model.spec))
    result = score(model, pcm)
    assert result.channel_nats == pytest.approx(nats.sum(0), rel=1e-9)
    assert result.nats == pytest.approx(nats.sum(), rel=1e-9)
    assert (result.frames, result.samples) == (50, nats.size)
    assert result.bits_per_sample == pytest.approx(nats.mean() / math.log(2), rel=1e-9)
    by_channel = dict(zip(model.spec.channel_names, nats.mean(0) / math.log(2), strict=True))
    assert result.channel_bits_per_sample == pytest.approx(by_channel, rel=1e-9)
    assert result.bpb == pytest.approx(result.bits_per_sample, rel=1e-12)


@pytest.mark.parametrize("normalize", ["none", "peak", "minmax"])
@pytest.mark.parametrize("quantization", ["linear", "mu-law"])
def test_segments_have_the_codes_of_the_whole(monkeypatch, normalize, quantization):
    """A normalisation looks at the whole recording, wherever a segment ends."""
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 8)
    model = make("stereo", normalize=normalize, quantization=quantization)
    pcm = music(model)
    nats = nats_of(model, encode(pcm, model.spec))
    assert score(model, pcm).nats == pytest.approx(nats.sum(), rel=1e-9)
    if normalize != "none":
        parts = np.concatenate([encode(part, model.spec) for part in np.split(pcm[:48], 6)])
        assert not np.array_equal(parts, encode(pcm, model.spec)[:48])


@pytest.mark.parametrize("normalize", ["none", "peak"])
def test_the_model_sees_a_segment_at_a_time(monkeypatch, normalize):
    lengths = []
    forward = LanguageModel.forward

    def watched(self, codes, state=None):
        lengths.append(codes.shape[1])
        return forward(self, codes, state)

    monkeypatch.setattr(LanguageModel, "forward", watched)
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 16)
    model = make("stereo", normalize=normalize)
    score(model, music(model))
    assert lengths == [1, 1, 1, 1, 16, 16, 16, 2], "start codes one by one, the recording in segments"
    lengths.clear()
    many_start_codes = dataclasses.replace(model.config, pad_len=40).build().eval()
    Stream(many_start_codes, 1, "reference")
    assert lengths == [1] * 41


def test_start_codes_in_segments_change_no_result(monkeypatch):
    model = dataclasses.replace(make("stereo").config, pad_len=40).build().double().eval()
    pcm = music(model)
    whole = score(model, pcm)
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 16)
    assert score(model, pcm).nats == pytest.approx(whole.nats, rel=1e-9)


def test_sixteen_bits_are_two_bytes():
    model = make("stereo-dml", bits=16)
    result = score(model, music(model))
    assert result.bpb == pytest.approx(result.bits_per_sample / 2, rel=1e-12)


def test_a_score_reads_as_one_line():
    stereo = TrackScore((math.log(2) * 400, math.log(2) * 200), 100, AudioSpec(RATE, 2, 16))
    assert str(stereo) == "3.000 bits/sample (left 4.000, right 2.000), 1.500 bits/byte, 100 frames"
    mono = TrackScore((math.log(2) * 4000,), 1000, AudioSpec(RATE, 1, 8))
    assert str(mono) == "4.000 bits/sample, 4.000 bits/byte, 1,000 frames"


def test_the_model_is_left_as_it_was(model):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    score(model, music(model))
    generate(model, 0.004)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_new_track_has_the_asked_length_and_repeats_by_seed(model):
    first, again = generate(model, 0.012, seed=3), generate(model, 0.012, seed=3)
    assert (first.dtype, first.shape) == (np.int16, (12, model.spec.n_channels))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, generate(model, 0.012, seed=4))


def test_a_continuation_is_the_stream_after_its_prompt(model, monkeypatch):
    monkeypatch.setattr(stream_module, "PREFILL_FRAMES", 16)
    prompt = music(model)
    longer = generate(model, 0.012, prompt=prompt, seed=2, temperature=0.9)
    codes = encode(prompt, model.spec)
    assert np.array_equal(longer[:50], decode(codes, model.spec))
    stream = Stream(model, 1)
    stream.prefill(torch.from_numpy(codes)[None])
    drawn = [frame.codes[0, 0].numpy() for frame in stream.generate(12, Sampler(0.9), [2])]
    assert np.array_equal(longer[50:], decode(np.stack(drawn), model.spec))


def test_a_batch_is_its_rows_and_scores_what_it_drew(model, monkeypatch):
    prompt = music(model, 20)
    calls: list[int] = []
    monkeypatch.setattr(whole_module, "FRAMES_AT_ONCE", 5)
    batch = draw(model, 12, [5, 6], prompt=prompt, on_frames=calls.append)
    assert batch.pcm.shape == (2, 32, model.spec.n_channels)
    assert calls == [5, 5, 2]
    for row, seed in enumerate((5, 6)):
        assert np.array_equal(batch.pcm[row], generate(model, 0.012, prompt=prompt, seed=seed))
        nats = nats_of(model, encode(batch.pcm[row], model.spec))
        assert batch.scores[row].channel_nats == pytest.approx(nats[20:].sum(0), rel=1e-9)
        assert batch.scores[row].frames == 12
        assert batch.prompt_scores[row].channel_nats == pytest.approx(nats[:20].sum(0), rel=1e-9)
    assert draw(model, 2, [0]).prompt_scores is None


def test_restrictions_reach_the_draw():
    model = make("stereo")
    greedy = generate(model, 0.01, temperature=0.0)
    assert np.array_equal(greedy, generate(model, 0.01, top_k=1, seed=9))
    assert not np.array_equal(greedy, generate(model, 0.01, seed=9))


def test_temperatures_of_a_mixture_reach_the_draw():
    model = make("stereo-dml")
    cold = generate(model, 0.01, mixture_temperature=0.0, scale_temperature=0.0, seed=1)
    assert np.array_equal(cold, generate(model, 0.01, temperature=0.0))
    assert not np.array_equal(cold, generate(model, 0.01, mixture_temperature=0.0, seed=1))
    with pytest.raises(ValueError, match="mixture_temperature and scale_temperature are for the DML head"):
        generate(make("stereo"), 0.01, scale_temperature=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seconds": 0.0}, r"seconds must give at least one frame at 1000 Hz; got 0\.0"),
        ({"seconds": -1.0}, r"seconds must give at least one frame"),
        ({"seconds": math.inf}, r"seconds must give at least one frame"),
        ({"seconds": math.nan}, r"seconds must give at least one frame"),
        ({"seed": -1}, r"seed must be an integer of at least 0 and below 2\*\*63; got -1"),
        ({"seed": 2**63}, r"seed must be an integer"),
        ({"seed": True}, r"seed must be an integer"),
        ({"temperature": -1.0}, r"temperature must be at least 0"),
        ({"top_k": 5}, r"neither top_k nor top_p"),
        ({"prompt": np.zeros((0, 2), np.int16)}, r"no frames"),
        ({"prompt": np.zeros((9, 1), np.int16)}, r"shape \(frames, 2\); got \(9, 1\)"),
        ({"prompt": np.zeros((9, 2), np.float32)}, r"int16; got float32"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(make("stereo-dml"), **({"seconds": 0.01} | arguments))


@pytest.mark.parametrize(
    ("pcm", "message"),
    [
        (np.full((9, 2), np.nan, np.float32), r"int16; got float32.*stereo_sashimi\.read.*float_to_pcm"),
        (np.zeros((9, 2), np.int32), r"int16; got int32"),
        (np.zeros((9, 2), np.uint16), r"int16; got uint16"),
        (np.zeros((9, 1), np.int16), r"shape \(frames, 2\); got \(9, 1\)"),
        (np.zeros((2, 9), np.int16), r"shape \(frames, 2\); got \(2, 9\)"),
        (np.zeros(9, np.int16), r"shape \(frames, 2\); got \(9,\)"),
        (np.zeros((1, 9, 2), np.int16), r"shape \(frames, 2\); got \(1, 9, 2\)"),
        (np.zeros((0, 2), np.int16), "no frames"),
    ],
    ids=["nan", "int32", "uint16", "mono", "transposed", "flat", "batch", "empty"],
)
def test_other_arrays_are_refused(pcm, message):
    with pytest.raises(ValueError, match=message):
        score(make("stereo"), pcm)


def test_frames_are_rounded_to_the_nearest():
    spec = AudioSpec(44100, 1, 16)
    assert (frames_in(1.0, spec), frames_in(0.00004, spec)) == (44100, 2)
    with pytest.raises(ValueError, match="prompt_seconds must give"):
        frames_in(0.00001, spec, "prompt_seconds")
