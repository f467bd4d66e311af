"""Fixtures of the tests of ."""

from pathlib import Path

import pytest
from exported_models import make

from stereo_sashimi.models.exported import save
from stereo_sashimi.models.language_model import LanguageModel


@pytest.fixture
def model() -> LanguageModel:
    return make()


@pytest.fixture
def folder(model, tmp_path) -> Path:
    return save(model, tmp_path / "model")
