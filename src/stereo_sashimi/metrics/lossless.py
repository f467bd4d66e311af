"""Lossless audio coders on the same samples as a model: FLAC by libsndfile, and WavPack where it is installed.

Sizes are those of whole files, headers counted; these are some tens or hundreds of bytes.
"""

import io
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

# Ends the name of a coder that codes each channel for itself.
APART = ", no mid/side"


def coded_bits(pcm: np.ndarray, sample_rate: int, bits: int = 16) -> dict[str, int]:
    """Bits of the coded file by each coder that is here, by its name.

    `flac -8` chooses mid/side where it pays; without it each channel is coded for itself, which is left out for mono.

    Args:
        pcm: int16 (frames, channels), at least one frame.
        sample_rate: Frames per second.
        bits: 16, or 8 for the top byte of each sample alone.

    Raises:
        ValueError: Other `bits`, or a coder that fails.
    """
    if bits not in (8, 16):
        raise ValueError(f"bits must be 8 or 16; got {bits}.")
    stereo = pcm.shape[1] == 2
    found = {"flac -8": flac_bits(pcm, sample_rate, bits)}
    if stereo:
        # As two files, of which one header is too many by some 50 bytes.
        found[f"flac -8{APART}"] = sum(flac_bits(pcm[:, c : c + 1], sample_rate, bits) for c in range(2))
    if (wavpack := shutil.which("wavpack")) is not None:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "in.wav", Path(folder) / "out.wv"
            soundfile.write(source, pcm, sample_rate, format="WAV", subtype="PCM_16" if bits == 16 else "PCM_U8")
            found["wavpack -hhx6"] = _size([wavpack, "-hhx6", "-q", "-y", str(source), "-o", str(target)], target)
    return found


def flac_bits(pcm: np.ndarray, sample_rate: int, bits: int) -> int:
    """Bits of a FLAC file by libsndfile, whose level 1.0 is -8; arguments and errors as those of `coded_bits`."""
    encoded = io.BytesIO()
    subtype = "PCM_16" if bits == 16 else "PCM_S8"
    try:
        soundfile.write(encoded, pcm, sample_rate, format="FLAC", subtype=subtype, compression_level=1.0)
    except (soundfile.SoundFileError, ValueError) as error:
        raise ValueError(
            f"FLAC cannot code {pcm.shape[1]} channels at {sample_rate} Hz ({error}). Set baselines=false."
        ) from error
    return 8 * len(encoded.getbuffer())


def _size(command: list[str], target: Path) -> int:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not target.is_file():
        raise ValueError(
            f"{' '.join(command)} failed with exit code {done.returncode}: {done.stderr.strip() or 'no message'}. "
            "Set baselines=false to go without."
        )
    return 8 * target.stat().st_size
