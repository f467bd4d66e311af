"""Private names of Lightning: one file uses them, and they are those of a version that was tried."""

import re
from pathlib import Path

import pytorch_lightning as pl

import stereo_sashimi
from stereo_sashimi.tasks import lightning_internals

PACKAGE = Path(stereo_sashimi.__file__).parent
# A private attribute of a trainer or its loops, a private module or class, or one of the averaging callback.
PRIVATE = re.compile(
    r"(?:trainer|loop|connector|launcher|progress)\._[a-z]|pytorch_lightning[\w.]*\._|lightning_fabric[\w.]*\._"
    r"|^from (?:pytorch_lightning|lightning_fabric).* import .*\b_\w|_average_model|_swap_models|_batches_that_stepped"
    r"|_copy_average_to_current",
    re.MULTILINE,
)


def test_this_version_of_lightning_was_tried():
    minor = ".".join(pl.__version__.split(".")[:2])
    assert minor in lightning_internals.TRIED, (
        f"Lightning {pl.__version__} is installed; tasks/lightning_internals.py was tried with "
        f"{', '.join(lightning_internals.TRIED)}. Run the slow tests (make slow), then add {minor} to TRIED there, or "
        "install a version that was tried."
    )


def test_one_file_uses_private_names_of_lightning():
    users = {path.name for path in PACKAGE.rglob("*.py") if PRIVATE.search(path.read_text(encoding="utf-8"))}
    assert users == {"lightning_internals.py"}
