"""What only one thread of a process does at a time: load a model, compute on a CPU, and use MPS.

While Transformers 5 makes a model it replaces `PreTrainedModel.tie_weights` and puts it back afterwards. Two
loads that overlap in two threads put back each other's replacement: from then on no tied head loads.

Each thread that computes on a CPU gets a team of OpenMP threads, which it keeps until it ends. With more of
them than processors libgomp has all wait asleep and no longer spinning, whoever is at work, so that each small
operation takes longer: on an Intel Xeon with two cores, where an `Embedder` had a thread that computed and a
`Reranker` another, 100 passages took 1.04 s in place of 0.79, a query 18.9 ms in place of 14.4. So one thread
computes for all models of the process; and it loads none, which would keep the others waiting.

Two threads that start work on MPS at the same time can end the process (pytorch/pytorch#197805).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from qwen3_rag.workers import Worker

Result = TypeVar("Result")

_COMPUTING: Final = "qwen3-rag-cpu"
_LOADING: Final = "qwen3-rag-load"

_lock = threading.Lock()
_mps_lock = threading.RLock()
_computing = Worker(_COMPUTING)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Only one thread at a time can be inside this block."""
    with _lock:
        yield


def load(device_type: str, work: Callable[[], Result]) -> Result:
    """Return a model that is loaded, on a CPU in a thread that ends then, on MPS after what others do there."""
    return Worker(_LOADING).do(work) if device_type == "cpu" else _here(device_type, work)


def enter(device_type: str) -> None:
    """Announce a model that will compute; `close` must follow."""
    if device_type == "cpu":
        _computing.keep()


def compute(device_type: str, work: Callable[[], Result]) -> Result:
    """Return what a model gives, on a CPU and on MPS after what others do there."""
    return _computing.do(work) if device_type == "cpu" else _here(device_type, work)


def renew(device_type: str) -> None:
    """Have another thread compute on a CPU after what is computed just now, which had no memory.

    In a thread in which oneDNN had none for a kernel it makes none any more.
    """
    if device_type == "cpu":
        _computing.renew()


def close(device_type: str, work: Callable[[], None]) -> None:
    """Drop a model that was announced. With the last one on a CPU the thread that computes ends."""
    _here(device_type, work)
    if device_type == "cpu":
        _computing.leave()


def _here(device_type: str, work: Callable[[], Result]) -> Result:
    if device_type != "mps":
        return work()
    with _mps_lock:
        return work()


def _renew_after_fork() -> None:
    """Whoever held a lock stayed in the parent, and so did the thread that computes."""
    global _lock, _mps_lock, _computing
    _lock, _mps_lock, _computing = threading.Lock(), threading.RLock(), Worker(_COMPUTING)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
