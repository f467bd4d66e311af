"""Coded files of every version of the format, kept in tests/golden/codec: they decode, or are refused by name.

Do not make them anew to have a test pass: whoever has such files could not read them any more.
"""

import hashlib
from dataclasses import make_dataclass

import numpy as np
import pytest
from old_files import FILES, FOLDER, tune
from packed import unpack

import stereo_sashimi
from stereo_sashimi.codec.coders import Coders
from stereo_sashimi.codec.container import CONSTANT, MODEL, RAW, CodecError
from stereo_sashimi.generation.engines.compiled import compiled_engine as compiled
from stereo_sashimi.models import weights
from stereo_sashimi.models.language_model_config import LanguageModelConfig
from stereo_sashimi.pretrained import MODELS

SHA256 = {
    "pretrained": "961a9404c8b36ad7cc734a4a1557b7b69e7d2c0c2fa0b1af7f89fb29853e74ee",
    "fast-1": "3c449fa678a0c425afd63a767f4cc1bbad43d11dc3cca3d6026184c6dd0c30bf",
    "default-1": "3c449fa678a0c425afd63a767f4cc1bbad43d11dc3cca3d6026184c6dd0c30bf",
    "best-1": "477ea104f8acd8ecce2080301f346b2ef28bb7a1286322845c6e3511e62e7b92",
    "mono-8-categorical": "042567202f109b6303e78843c7d6f731dc006871b7b55a6982ed3d983b8556f5",
    "stereo-16-separate": "a5d74227258fd38f201da08cd98ad3f38ab13c1ae3e9ddc346ddaf31ba7e6622",
    "stereo-16-dml-coupled": "a5d74227258fd38f201da08cd98ad3f38ab13c1ae3e9ddc346ddaf31ba7e6622",
}


def opened(name):
    model = stereo_sashimi.load(name if name in MODELS else FOLDER / "v3" / name)
    return model, (FOLDER / f"v3/{name}.ssc").read_bytes()


def digest(pcm):
    return hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest()


@pytest.mark.parametrize("name", FILES)
def test_files_of_version_3_decode(name):
    model, data = opened(name)
    header, parts, _ = unpack(data)
    assert header.version == 3
    assert {part.mode for part in parts} == {MODEL, RAW, CONSTANT}
    assert digest(stereo_sashimi.decode(model, data)) == SHA256[name]
    assert digest(tune(*FILES[name], model.spec)) == SHA256[name]


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_older_versions_are_refused_by_name(version):
    model, _ = opened("mono-8-categorical")
    with pytest.raises(
        CodecError, match=rf"^old\.ssc has version {version} of the format.*Decode it with that version"
    ):
        stereo_sashimi.decode(model, (FOLDER / f"v{version}/mono-8-categorical.ssc").read_bytes(), name="old.ssc")


@pytest.mark.parametrize("name", [name for name in FILES if name not in MODELS])
def test_the_looks_of_a_model_do_not_matter(name, monkeypatch):
    """Other classes, fields and names of weights, and another layout of the arrays that the engine runs on."""
    model, data = opened(name)
    header, collect, pack = unpack(data)[0], weights.collect, compiled.pack
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
    coders = Coders(model, header.bits, header.n_channels)
    assert (coders.weights, coders.probe) == (header.weights, header.probe)
    assert digest(stereo_sashimi.decode(model, data)) == SHA256[name]


def test_the_weights_are_named_as_documented():
    model, data = opened("stereo-16-dml-coupled")
    each = {
        hashlib.sha256(b"float32" + tensor.numpy().astype("<f4").tobytes())
        for tensor in weights.collect(model).values()
    }
    whole = hashlib.sha256(b"".join(sorted({one.digest() for one in each})))
    assert unpack(data)[0].weights == whole.hexdigest()[:32]
