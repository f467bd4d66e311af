"""What glibc does with freed memory during training."""

import ctypes
import os
import sys

from stereo_sashimi.models.language_model import LanguageModel

# Tensors above this size are a mapping of their own in glibc.
MAPPED = 2**25
# malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory(model: LanguageModel, frames: int) -> bool:
    """For large batches (`frames` over all clips) let glibc keep the memory that tensors free; returns whether it will.

    Otherwise every tensor above 32 MiB is a new mapping, which the system fills with zeros page by page: that took
    more than a third of a step of 65,536 stereo frames (docs/performance.md). Smaller ones are kept anyway, and then
    keeping the few large ones as well would only scatter the heap. Whoever has set malloc up by environment variables
    keeps that. Nothing happens where there is no glibc.
    """
    widest = model.backbone.width * getattr(model.config.model, "ff", 1) * frames * 4
    if widest <= MAPPED:
        return False
    chosen = [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]
    if sys.platform != "linux" or chosen:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, 2**31 - 1)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
