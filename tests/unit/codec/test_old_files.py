"""Coded files of every version of the format, kept in tests/golden/codec: they decode, or are refused by name.

Do not make them anew to have a test pass: whoever has such files could not read them any more.
"""

import hashlib
from dataclasses import make_dataclass

import constriction
import numpy as np
import pytest
from old_files import FILES, FOLDER, tune

import stereo_sashimi
from stereo_sashimi.codec.batch_coder import FAMILY
from stereo_sashimi.codec.coding import coder_for
from stereo_sashimi.codec.container import CONSTANT, MODEL, RAW, CodecError, read_header, unpack
from stereo_sashimi.codec.probe import probe, recording
from stereo_sashimi.generation.engines.compiled import compiled_engine as compiled
from stereo_sashimi.models import weights
from stereo_sashimi.models.language_model_config import LanguageModelConfig

SHA256 = {
    "pretrained": "3c449fa678a0c425afd63a767f4cc1bbad43d11dc3cca3d6026184c6dd0c30bf",
    "mono-8-categorical": "042567202f109b6303e78843c7d6f731dc006871b7b55a6982ed3d983b8556f5",
    "stereo-16-separate": "a5d74227258fd38f201da08cd98ad3f38ab13c1ae3e9ddc346ddaf31ba7e6622",
    "stereo-16-dml-coupled": "a5d74227258fd38f201da08cd98ad3f38ab13c1ae3e9ddc346ddaf31ba7e6622",
}


def opened(name):
    model = stereo_sashimi.load("pretrained" if name == "pretrained" else FOLDER / "v2" / name)
    return model, (FOLDER / f"v2/{name}.ssc").read_bytes()


def digest(pcm):
    return hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest()


@pytest.mark.parametrize("name", FILES)
def test_files_of_version_2_decode(name):
    model, data = opened(name)
    header, segments, _ = unpack(data)
    assert header.version == 2
    assert {segment.mode for segment in segments} == {MODEL, RAW, CONSTANT}
    assert digest(stereo_sashimi.decode(model, data)) == SHA256[name]
    assert digest(tune(*FILES[name], model.spec)) == SHA256[name]


def test_files_of_version_1_are_refused_by_name():
    model, _ = opened("mono-8-categorical")
    with pytest.raises(CodecError, match=r"^old\.ssc has version 1 of the format.*Decode it with that version"):
        stereo_sashimi.decode(model, (FOLDER / "v1/mono-8-categorical.ssc").read_bytes(), name="old.ssc")


@pytest.mark.parametrize("name", [name for name in FILES if name != "pretrained"])
def test_the_looks_of_a_model_do_not_matter(name, monkeypatch):
    """Other classes, fields and names of weights, and another layout of the arrays that the engine runs on."""
    model, data = opened(name)
    header, collect, pack = read_header(data), weights.collect, compiled.pack
    wider = make_dataclass("Wider", [("novelty", int, 3)], bases=(LanguageModelConfig,), frozen=True)
    model.config = wider(**vars(model.config))
    model.head.__class__ = type("Renamed", (type(model.head),), {})
    monkeypatch.setattr(weights, "collect", lambda model: {f"new.{k[::-1]}": v for k, v in collect(model).items()})

    def packed_otherwise(model):
        packed = pack(model)
        wider = np.append(packed.program.weights, np.ones(32, np.float32))
        return packed._replace(program=packed.program._replace(weights=wider), row_size=packed.row_size + 64)

    monkeypatch.setattr(compiled, "pack", packed_otherwise)
    assert model.config.to_plain()["novelty"] == 3
    assert weights.fingerprint(model) == header.weights
    assert probe(coder_for(model, 1)) == header.probe
    assert digest(stereo_sashimi.decode(model, data)) == SHA256[name]


def test_the_weights_are_named_as_documented():
    model, data = opened("stereo-16-dml-coupled")
    each = {
        hashlib.sha256(b"float32" + tensor.numpy().astype("<f4").tobytes())
        for tensor in weights.collect(model).values()
    }
    whole = hashlib.sha256(b"".join(sorted({one.digest() for one in each})))
    assert read_header(data).weights == whole.hexdigest()


def test_the_range_coder_is_as_documented():
    """docs/codec.md has these lines, for those who write a decoder without constriction."""
    (block,) = coder_for(opened("stereo-16-separate")[0], 1).weigh([recording(opened("stereo-16-separate")[0].spec)])
    counts, cells = block[0]
    coder = constriction.stream.queue.RangeEncoder()
    coder.encode(cells, FAMILY, counts)
    words = iter(coder.get_compressed().tolist())
    low, span, point = 0, 2**64 - 1, next(words, 0) << 32 | next(words, 0)
    for row, cell in zip(counts.astype(np.int64) + 1, cells, strict=True):
        edges = [0, *np.cumsum(row).tolist()]
        unit = span >> 24
        target = (point - low) % 2**64 // unit
        j = int(np.searchsorted(edges, target, side="right")) - 1
        assert j == cell
        low, span = (low + unit * edges[j]) % 2**64, unit * (edges[j + 1] - edges[j])
        if span < 2**32:
            low, span, point = (low << 32) % 2**64, span << 32, (point << 32) % 2**64 | next(words, 0)
    assert edges[-1] == 2**24
    assert next(words, None) is None
