"""Audio folders as data sets: files (`split`), clips (`dataset`), epochs (`sampler`), Lightning (`datamodule`)."""

from stereo_sashimi.data.datamodule import AudioDataModule
from stereo_sashimi.data.dataset import AudioFolder, Batch, collate
from stereo_sashimi.data.sampler import ChunkSampler, FixedDrawSampler, SamplerError
from stereo_sashimi.data.split import DataError, find_audio, split_folder

__all__ = [
    "AudioDataModule",
    "AudioFolder",
    "Batch",
    "ChunkSampler",
    "DataError",
    "FixedDrawSampler",
    "SamplerError",
    "collate",
    "find_audio",
    "split_folder",
]
