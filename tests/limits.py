"""Limits of this process, as a full disk and a small machine have them."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def limited(what: int, most: int) -> Iterator[None]:
    before = resource.getrlimit(what)
    resource.setrlimit(what, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def files_of_at_most(size: int):
    """The kernel stops every file of this process there, as a full disk does, in the middle of a write."""
    return limited(resource.RLIMIT_FSIZE, size)


def memory_of_at_most(more: int):
    """So many bytes more than the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return limited(resource.RLIMIT_AS, pages * resource.getpagesize() + more)
