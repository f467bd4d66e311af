"""A binary arithmetic coder without carries, compiled by numba: one decision at a time, of any two probabilities.

The code of all decisions so far lies in the interval from LOW to HIGH, both included, of 64 bits. A decision splits it,
and bytes that both ends share are written. After Witten, Neal and Cleary (1987), "Arithmetic Coding for Data
Compression"; without carries the interval may become short, on average at a cost below 2**-20 bits a decision.
"""

from typing import no_type_check

import numpy as np

from stereo_sashimi.ops.cpu.vector import compiled

# Probabilities are integers of 2**PRECISION in all.
PRECISION = 24
# Numbers of a coder: the interval, and what a decoder reads in it.
LOW, HIGH, POINT = 0, 1, 2
# Bytes that one decision writes at most, and those that `finish` does.
BYTES_A_DECISION, BYTES_AT_END = PRECISION // 8, 8

_PRECISION, _ONE, _BYTE, _TOP, _ONES = np.uint64(PRECISION), np.uint64(1), np.uint64(8), np.uint64(56), np.uint64(255)


def new_coders(n: int) -> np.ndarray:
    """Coders (n, 3) that have coded nothing."""
    coders = np.zeros((n, 3), np.uint64)
    coders[:, HIGH] = np.iinfo(np.uint64).max
    return coders


@compiled
@no_type_check
def encode(coder, data, at, upper, p):
    """Write a decision to `data` from `at` on: whether it was the upper half, and `p`, the probability of the lower
    one, 1 to 2**PRECISION - 1. Returns where the next bytes go."""
    middle = _split(coder, p)
    if upper:
        coder[LOW] = middle + _ONE
    else:
        coder[HIGH] = middle
    while (coder[LOW] ^ coder[HIGH]) >> _TOP == 0:
        data[at] = coder[LOW] >> _TOP
        at += 1
        coder[LOW] <<= _BYTE
        coder[HIGH] = (coder[HIGH] << _BYTE) | _ONES
    return at


@compiled
@no_type_check
def decode(coder, data, at, end, p):
    """The decision that was coded with `p`: (whether it was the upper half, where the next bytes are read).

    There are zeros in `data` from `end` on.
    """
    middle = _split(coder, p)
    upper = coder[POINT] > middle
    if upper:
        coder[LOW] = middle + _ONE
    else:
        coder[HIGH] = middle
    while (coder[LOW] ^ coder[HIGH]) >> _TOP == 0:
        coder[LOW] <<= _BYTE
        coder[HIGH] = (coder[HIGH] << _BYTE) | _ONES
        at = _read(coder, data, at, end)
    return upper, at


@compiled
@no_type_check
def begin(coder, data, at, end):
    """Read the first bytes; returns where the next ones are."""
    for _ in range(8):
        at = _read(coder, data, at, end)
    return at


@compiled
@no_type_check
def finish(coder, data, at):
    """Write as few bytes as tell the interval from others, with zeros behind them; returns where they end."""
    kept = np.uint64(0)
    for n in range(9):
        shift = np.uint64(64 - 8 * n)
        # The largest number below HIGH of so many bytes.
        kept = np.uint64(0) if n == 0 else (coder[HIGH] >> shift) << shift
        if kept >= coder[LOW]:
            for _ in range(n):
                data[at] = kept >> _TOP
                kept <<= _BYTE
                at += 1
            break
    return at


@compiled
@no_type_check
def _split(coder, p):
    return coder[LOW] + ((coder[HIGH] - coder[LOW]) >> _PRECISION) * np.uint64(p)


@compiled
@no_type_check
def _read(coder, data, at, end):
    byte = np.uint64(data[at]) if at < end else np.uint64(0)
    coder[POINT] = (coder[POINT] << _BYTE) | byte
    return at + 1
