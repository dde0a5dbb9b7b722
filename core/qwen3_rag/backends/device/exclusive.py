"""What only one thread of a process does at a time: load a model, compute on a CPU, and use MPS.

While Transformers 5 builds a model it replaces `PreTrainedModel.tie_weights` and restores it afterwards. Two
loads that overlap in two threads restore each other's replacement: from then on no tied head loads.

A thread that computes on a CPU keeps a team of OpenMP threads until it exits. With more of these than cores,
libgomp's threads sleep instead of spinning, which slows every small operation: on an Intel Xeon with two cores,
where an `Embedder` and a `Reranker` computed in a thread each, 100 passages took 1.04 s instead of 0.79, a
query 18.9 ms instead of 14.4. So one thread computes for all models of the process. It loads none, since a load
would keep the other models waiting.

Two threads that start work on MPS at the same time can crash the process (pytorch/pytorch#197805).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from qwen3_rag.forking import after_fork_in_child
from qwen3_rag.workers import SharedThread

Result = TypeVar("Result")

_COMPUTING: Final = "qwen3-rag-cpu"
_LOADING: Final = "qwen3-rag-load"

_NO_POOL: Final = "HF_DEACTIVATE_ASYNC_LOAD"
"""A variable of Transformers 5, which asks for it at each load."""

_lock = threading.Lock()
_mps_lock = threading.RLock()
_cpu_thread = SharedThread(_COMPUTING)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Only one thread of the process at a time is inside this block, where Transformers loads a model."""
    with _lock, _without_a_pool_at_the_end():
        yield


@contextmanager
def _without_a_pool_at_the_end() -> Iterator[None]:
    """Have Transformers read weights in this thread once the main thread has ended.

    Other threads go on then, but a pool takes no work any more.
    """
    if threading.main_thread().is_alive() or _NO_POOL in os.environ:
        yield
        return
    os.environ[_NO_POOL] = "1"
    try:
        yield
    finally:
        os.environ.pop(_NO_POOL, None)


def load(device_type: str, work: Callable[[], Result]) -> Result:
    """Return the model that `work` loads.

    On a CPU it runs in a thread that exits afterwards, on MPS when no other thread uses the device.
    """
    return SharedThread(_LOADING).run(work) if device_type == "cpu" else _here(device_type, work)


def register(device_type: str) -> None:
    """Register a model that will compute; `unregister` must follow."""
    if device_type == "cpu":
        _cpu_thread.retain()


def compute(device_type: str, work: Callable[[], Result]) -> Result:
    """Return what `work` computes; on a CPU and on MPS for one model at a time."""
    return _cpu_thread.run(work) if device_type == "cpu" else _here(device_type, work)


def replace_thread(device_type: str) -> None:
    """Have a new thread compute on a CPU from the next work on, because memory ran out in this one.

    A thread in which oneDNN failed to allocate a kernel can create none any more.
    """
    if device_type == "cpu":
        _cpu_thread.replace_thread()


def unregister(device_type: str, drop: Callable[[], None]) -> None:
    """Drop a registered model. When the last one on a CPU is gone, the thread that computes exits."""
    _here(device_type, drop)
    if device_type == "cpu":
        _cpu_thread.release()


def _here(device_type: str, work: Callable[[], Result]) -> Result:
    if device_type != "mps":
        return work()
    with _mps_lock:
        return work()


@after_fork_in_child
def _renew() -> None:
    """Threads do not survive a fork: locks that they held would stay locked, and work would never run."""
    global _lock, _mps_lock, _cpu_thread
    _lock, _mps_lock, _cpu_thread = threading.Lock(), threading.RLock(), SharedThread(_COMPUTING)
