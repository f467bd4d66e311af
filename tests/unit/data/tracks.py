"""What test_datamodule.py and test_datamodule_in_training.py share."""

from stereo_sashimi.data.datamodule import AudioDataModule

RATE = 8000


def module(folder, **options):
    return AudioDataModule(**{"name": "tracks", "path": str(folder), "is_stereo": True, "sample_len": 16} | options)
