"""A pool of threads for loops that run without Python's lock."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch


def for_each(run: Callable[..., None], tasks: Sequence[tuple[Any, ...]]) -> None:
    """`run(*task)` once for every task, on as many threads as torch uses."""
    threads = min(torch.get_num_threads(), len(tasks))
    if threads == 1:
        for task in tasks:
            run(*task)
    else:
        list(_pool(os.getpid(), threads).map(lambda task: run(*task), tasks))


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    # A forked child has none of its parent's threads, so each process has its own.
    return ThreadPoolExecutor(threads, thread_name_prefix="loops")
