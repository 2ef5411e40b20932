"""Numbered pieces of work spread over threads, each kernel on one of them: they meet once, at the end, and nobody spins.

A kernel that spreads itself ends in a barrier at which its threads spin; beside a busy process the one that waits for a
processor holds up all, at every kernel. Here a thread that is held up finishes fewer pieces.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

_threads: contextvars.ContextVar[int | None] = contextvars.ContextVar("threads to spread over", default=None)
_pools: list[ThreadPoolExecutor] = []
_pools_lock = threading.Lock()


@contextlib.contextmanager
def one_thread_a_kernel() -> Iterator[None]:
    """Kernels called within run on the calling thread alone; `spread` uses as many threads as torch was set to."""
    threads = torch.get_num_threads()
    if _threads.get() is not None:
        yield
        return
    token = _threads.set(threads)
    try:
        if threads > 1:
            torch.set_num_threads(1)
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)
        _threads.reset(token)


def spread(work: Callable[[int], None], count: int) -> None:
    """work(0), ..., work(count - 1), in any order, on the calling thread and as many more as torch is set to use.

    The first exception is raised, after the pieces under way have ended; the others are not begun.
    """
    with one_thread_a_kernel():
        helpers = 0 if _bound_to_this_thread() else min(_threads.get() or 1, count) - 1
        tickets, stopped = itertools.count(), threading.Event()

        def run() -> None:
            while not stopped.is_set() and (piece := next(tickets)) < count:
                try:
                    work(piece)
                except BaseException:
                    stopped.set()
                    raise

        entered = _as_here(run)
        futures = [_pool().submit(contextvars.copy_context().run, entered) for _ in range(helpers)]
        try:
            run()
        finally:
            stopped.set()
            failures = [future.exception() for future in futures if not future.cancel()]
        for failure in failures:
            if failure is not None:
                raise failure


def _pool() -> ThreadPoolExecutor:
    with _pools_lock:
        if not _pools:
            pool = ThreadPoolExecutor(os.cpu_count(), "stablenet", initializer=torch.set_num_threads, initargs=(1,))
            _pools.append(pool)
        return _pools[0]


os.register_at_fork(after_in_child=_pools.clear)


def _as_here(run: Callable[[], None]) -> Callable[[], None]:
    """`run` under this thread's modes of gradients, inference and autocast, which another thread does not inherit."""
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def entered() -> None:
        _threads.set(1)
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients), torch.autocast("cpu", dtype, enabled):
            run()

    return entered


def _bound_to_this_thread() -> bool:
    """Whether a tracer, a transform or a counter of operations is on, which would not see what other threads do."""
    modes = torch._C._len_torch_dispatch_stack() + torch._C._len_torch_function_stack()
    return bool(modes) or torch._C._get_tracing_state() is not None or torch._C._functorch.maybe_current_level() is not None
