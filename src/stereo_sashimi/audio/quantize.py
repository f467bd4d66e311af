"""PCM <-> codes, as an AudioSpec describes it: the integer clips of `io.py` in, the integers of the model out.

`normalize: none` works on integers: 16-bit linear is the identity code = pcm + 32768, 8-bit linear is the top byte,
mu-law is a table over all 65,536 PCM values. `minmax` is the arithmetic of the original S4 repository: float32
throughout, per clip, not invertible. mu-law: ITU-T G.711's curve with mu = 2**bits - 1.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, Float64, Int16, Int64, Shaped

from stereo_sashimi.spec import AudioSpec

_PCM_ZERO = 32768


def encode(pcm: Int16[np.ndarray, "frames channels"], spec: AudioSpec) -> Int64[np.ndarray, "frames channels"]:
    """Codes in [0, spec.n_levels) of 16-bit PCM.

    `spec.normalize` acts on this clip as a whole, over all frames and channels together: `none` leaves it alone,
    `peak` scales max |pcm| to full scale (silence stays silence), `minmax` maps [min, max] to all levels.

    Raises ValueError if the array is not int16 or has another number of channels than `spec`.
    """
    if pcm.dtype != np.int16:
        raise ValueError(f"encode takes int16 PCM; got {pcm.dtype}. Read files with stereo_sashimi.audio.read_pcm.")
    if pcm.ndim != 2 or pcm.shape[1] != spec.n_channels:
        raise ValueError(
            f"encode takes (frames, {spec.n_channels}) PCM for n_channels={spec.n_channels}; got {pcm.shape}."
        )
    if pcm.size == 0:
        return np.zeros(pcm.shape, dtype=np.int64)
    if spec.normalize == "minmax":
        samples = pcm.astype(np.float32) / np.float32(_PCM_ZERO)
        minmax = minmax_encode_mulaw if spec.quantization == "mu-law" else minmax_encode_linear
        return minmax(samples, spec.bits)
    unsigned = (normalize_peak(pcm) if spec.normalize == "peak" else pcm).astype(np.int64) + _PCM_ZERO
    if spec.quantization == "mu-law":
        return _mulaw_tables(spec.bits)[0][unsigned]
    return unsigned >> (16 - spec.bits)


def decode(codes: Shaped[np.ndarray, "frames channels"], spec: AudioSpec) -> Int16[np.ndarray, "frames channels"]:
    """16-bit PCM of codes in [0, spec.n_levels); `spec.start_code` is digital silence.

    Linear: (code - start_code) * 2**(16 - bits), the lowest PCM value of the code from silence up, with no half
    step, so that silence stays 0. mu-law: the reference decoder, rounded, moved by the few LSB that keep the
    value in the code's own cell; so `encode(decode(c)) == c` for every code that some PCM value has (for 8 bits all).
    The scale that `peak` or `minmax` took out is not in the codes and does not come back.

    Raises ValueError if a code is outside the range.
    """
    codes = np.asarray(codes)
    if not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"decode takes integer codes; got {codes.dtype}.")
    if codes.size and (codes.min() < 0 or codes.max() >= spec.n_levels):
        raise ValueError(
            f"codes of {spec.bits} bits are 0 to {spec.n_levels - 1}; got {codes.min()} to {codes.max()}. "
            "Decode with the spec that the codes were made with."
        )
    codes = codes.astype(np.int64)
    if spec.quantization == "mu-law":
        return _mulaw_tables(spec.bits)[1][codes]
    return ((codes - spec.start_code) << (16 - spec.bits)).astype(np.int16)


def normalize_peak(pcm: Int16[np.ndarray, "*shape"]) -> Int16[np.ndarray, "*shape"]:
    """Scale a clip so that its largest magnitude is full scale, rounded to 16 bits; silence stays silence."""
    peak = np.abs(pcm.astype(np.int32)).max(initial=0)
    if peak == 0:
        return pcm
    scaled = np.rint(pcm.astype(np.float64) * (_PCM_ZERO / int(peak)))
    return np.clip(scaled, -_PCM_ZERO, _PCM_ZERO - 1).astype(np.int16)


def minmax_encode_linear(samples: Float32[np.ndarray, "*shape"], bits: int) -> Int64[np.ndarray, "*shape"]:
    """Levels of one float clip, min-max scaled over everything in it."""
    return quantize01(_minmax01(samples), bits)


def minmax_encode_mulaw(samples: Float32[np.ndarray, "*shape"], bits: int) -> Int64[np.ndarray, "*shape"]:
    """mu-law levels of one float clip, min-max scaled over everything in it."""
    signed = np.float32(2) * _minmax01(samples) - np.float32(1)
    return quantize01((mulaw_compress(signed, bits) + np.float32(1)) / np.float32(2), bits)


# The functions below compute in the precision of their argument.


def quantize01(values: Float[np.ndarray, "*shape"], bits: int) -> Int64[np.ndarray, "*shape"]:
    """Levels of numbers in [0, 1]: floor(v * (2**bits - 0.01) + 0.005)."""
    number = values.dtype.type
    levels: Int64[np.ndarray, "*shape"] = (values * number(2**bits - 0.01) + number(0.005)).astype(np.int64)
    return levels


def mulaw_compress(x: Float[np.ndarray, "*shape"], bits: int) -> Float[np.ndarray, "*shape"]:
    """The mu-law curve of x in [-1, 1]: sign(x) log1p(mu |x + 1e-8|) / log1p(mu), mu = 2**bits - 1."""
    mu = x.dtype.type(2**bits - 1)
    return np.sign(x) * np.log1p(mu * np.abs(x + x.dtype.type(1e-8))) / np.log1p(mu)


def mulaw_expand(levels: Shaped[np.ndarray, "*shape"], bits: int) -> Float64[np.ndarray, "*shape"]:
    """Numbers in [-1, 1) of mu-law levels: sign(x) ((1 + mu)**|x| - 1) / mu of x = level / 2**(bits - 1) - 1."""
    mu, x = 2.0**bits - 1.0, levels / 2.0 ** (bits - 1) - 1.0
    return np.sign(x) * np.expm1(np.abs(x) * np.log1p(mu)) / mu


def _minmax01(samples: Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    low, high = samples.min(), samples.max()
    return (samples - low) / (high - low + np.float32(1e-6))


@lru_cache(maxsize=2)
def _mulaw_tables(bits: int) -> tuple[Int64[np.ndarray, "65536"], Int16[np.ndarray, "levels"]]:
    """The code of each of the 65,536 PCM values and the PCM value of each code, without any scaling of a clip."""
    # float64: in float32 a level of 16-bit mu-law is only a few units in the last place wide.
    # x = -1 meets |x + 1e-8| < 1, so the curve stays inside [-1, 1].
    codes = quantize01((mulaw_compress(np.arange(-_PCM_ZERO, _PCM_ZERO) / _PCM_ZERO, bits) + 1.0) / 2.0, bits)
    levels = np.arange(2**bits)
    nominal = np.rint(mulaw_expand(levels, bits) * _PCM_ZERO).astype(np.int64)
    # Codes rise with PCM, so each code's cell is one run of the table; empty cells keep the nominal value.
    first = np.searchsorted(codes, levels, side="left")
    last = np.searchsorted(codes, levels, side="right") - 1
    clipped = np.clip(nominal, first - _PCM_ZERO, last - _PCM_ZERO)
    pcm = np.where(last >= first, clipped, nominal).astype(np.int16)
    codes.setflags(write=False)
    pcm.setflags(write=False)
    return codes, pcm


def float_to_pcm(x: Float[np.ndarray, "*shape"]) -> tuple[Int16[np.ndarray, "*shape"], int]:
    """16-bit PCM of samples whose full scale is 1: rint(x * 32768), halves to even, clipped to [-32768, 32767].

    Gives the integers, and how many of them were clipped; 1.0 itself is clipped, to 32767.
    Raises ValueError for NaN, infinity, or an array of integers.
    """
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"float_to_pcm takes floating point samples (full scale 1.0); got {x.dtype}.")
    if not np.isfinite(x).all():
        raise ValueError("float_to_pcm takes finite samples; got NaN or infinity.")
    # The product is exact unless it overflows, and an overflow is clipped like any other large value.
    with np.errstate(over="ignore"):
        return clipped_to_pcm(np.rint(x.astype(np.promote_types(x.dtype, np.float32)) * 32768))


def clipped_to_pcm(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Whole numbers as int16, and how many of them lay outside."""
    clipped = int(np.count_nonzero((values < -_PCM_ZERO) | (values > _PCM_ZERO - 1)))
    return np.clip(values, -_PCM_ZERO, _PCM_ZERO - 1).astype(np.int16), clipped
