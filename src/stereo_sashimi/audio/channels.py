"""The one door of `is_stereo`: how many channels a data set has, and how a file is brought to that number.

Everything behind this door sees channels as an axis of length 1 or 2. Codes are made in `quantize.py`.
"""

import numpy as np
from jaxtyping import Int16


class ChannelError(ValueError):
    """A clip has a number of channels that the data set cannot use; the message names the key to change."""


def n_channels(is_stereo: bool) -> int:
    """Number of channels that `dataset.is_stereo` stands for. Raises ValueError if it is not a boolean."""
    if not isinstance(is_stereo, bool):
        raise ValueError(f"dataset.is_stereo must be true or false; got {is_stereo!r}.")
    return 2 if is_stereo else 1


def check_channels(
    found: int, wanted: int, *, upmix: bool = False, name: str = "clip", dataset: str = "dataset"
) -> None:
    """Raise ChannelError unless a clip of `found` channels can be used where `wanted` (1 or 2) are.

    `upmix` copies a mono clip to both channels; `name` and `dataset` are for the message.
    """
    if found not in (1, 2):
        raise ChannelError(
            f"dataset {dataset!r}: clip {name} has {found} channels; 1 (mono) and 2 (left, right) can be used.\n"
            "  Convert the file to stereo or mono, or remove it from the folder."
        )
    if found == 1 and wanted == 2 and not upmix:
        raise ChannelError(
            f"dataset {dataset!r} has is_stereo=true but clip {name} has 1 channel.\n"
            "  Re-run `python preprocess/musdb18stereo_wav.py`, set dataset.is_stereo=false, or copy the one "
            "channel to both sides with dataset.upmix=true."
        )


def to_channels(
    pcm: Int16[np.ndarray, "frames found"],
    n_channels: int,
    *,
    upmix: bool = False,
    name: str = "clip",
    dataset: str = "dataset",
) -> Int16[np.ndarray, "frames channels"]:
    """Bring 16-bit PCM to `n_channels` channels; arguments and errors are those of `check_channels`.

    Stereo to mono is (left + right) / 2, rounded to the nearest integer and halves to the even one.
    """
    check_channels(pcm.shape[1], n_channels, upmix=upmix, name=name, dataset=dataset)
    if pcm.shape[1] == n_channels:
        return pcm
    if n_channels == 2:
        return np.repeat(pcm, 2, axis=1)
    total = pcm.astype(np.int32).sum(axis=1, keepdims=True)
    return np.rint(total / 2).astype(np.int16)
