"""A pool of threads for work beside its callers: tokenising, and converting large results."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from qwen3_rag.forking import after_fork_in_child
from qwen3_rag.workers import WorkerThread, resolve

Result = TypeVar("Result")

_THREADS: Final = 8
"""Pieces of work that run at once."""

_NAME: Final = "qwen3-rag-tokenise"

_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def in_pool(run: Callable[[], Result]) -> Future[Result]:
    """Run a function in a thread of our own pool, in a copy of the caller's context.

    An event loop's default pool would not do: sync calls that run in it wait there for places that other
    calls hold until they are tokenised. What runs in ours must never wait for a place.
    """
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_THREADS, _NAME)
    in_context = partial(contextvars.copy_context().run, run)
    try:
        return _pool.submit(in_context)
    except RuntimeError:  # a pool takes no work once the main thread has ended, though other threads go on
        return _in_a_thread(in_context)


def _in_a_thread(run: Callable[[], Result]) -> Future[Result]:
    future: Future[Result] = Future()
    WorkerThread(partial(resolve, future, run), _NAME).start()
    return future


@after_fork_in_child
def _forget_pool() -> None:
    """The pool's threads stayed in the parent."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()
