"""AudioSpec: what one frame of audio means, saved with every model and every coded file; units of likelihoods.

The conversion between PCM and codes that a spec describes is in `audio/quantize.py`.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

LN2 = math.log(2)  # nats a bit
QUANTIZATIONS = ("linear", "mu-law")
NORMALIZATIONS = ("none", "peak", "minmax")


@dataclass(frozen=True)
class AudioSpec:
    """The format of the audio that a model reads and writes.

    - `sample_rate`: frames per second, at least 1.
    - `n_channels`: 1 (mono) or 2 (stereo: left, right).
    - `bits`: bits of one code, 8 or 16 (24 in the codec); there are `n_levels = 2**bits` codes.
    - `quantization`: `"linear"` (16 bit: code = pcm + 32768, exact) or `"mu-law"` (mu = 2**bits - 1).
    - `normalize`: what is done to a clip before quantization: `"none"` (the default, PCM untouched),
      `"peak"` or `"minmax"` (per clip, as the original implementation; not invertible).

    Raises ValueError, naming the field, for any other value.
    """

    sample_rate: int
    n_channels: int
    bits: int
    quantization: str = "linear"
    normalize: str = "none"

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_channels", "bits"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"AudioSpec.{name} must be an integer; got {value!r}.")
        if self.sample_rate < 1:
            raise ValueError(f"AudioSpec.sample_rate must be at least 1 Hz; got {self.sample_rate}.")
        if self.n_channels not in (1, 2):
            raise ValueError(f"AudioSpec.n_channels must be 1 (mono) or 2 (stereo); got {self.n_channels}.")
        if self.bits not in (8, 16, 24):
            raise ValueError(f"AudioSpec.bits must be 8, 16 or 24; got {self.bits}.")
        if self.quantization not in QUANTIZATIONS:
            raise ValueError(
                f"AudioSpec.quantization must be one of {', '.join(QUANTIZATIONS)}; got {self.quantization!r}."
            )
        if self.normalize not in NORMALIZATIONS:
            raise ValueError(f"AudioSpec.normalize must be one of {', '.join(NORMALIZATIONS)}; got {self.normalize!r}.")

    @property
    def n_levels(self) -> int:
        """Number of codes, 2**bits."""
        return 1 << self.bits

    @property
    def start_code(self) -> int:
        """The code that stands before the first frame of a track: 2**(bits - 1), digital zero in linear PCM."""
        return 1 << (self.bits - 1)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names for people: ("mono",) or ("left", "right")."""
        return ("mono",) if self.n_channels == 1 else ("left", "right")

    def to_dict(self) -> dict[str, Any]:
        """Plain fields, for checkpoints and JSON."""
        return asdict(self)


def bits_per_byte(bits_per_sample: float, bits: int) -> float:
    """Bits per byte of PCM whose codes have so many `bits`."""
    return 8 / bits * bits_per_sample
