"""What only one thread of a process may do at a time: load a model, and use MPS.

While Transformers 5 makes a model it replaces `PreTrainedModel.tie_weights` and puts it back afterwards. Two
loads that overlap in two threads put back each other's replacement: from then on no tied head loads.

Two threads that start work on MPS at the same time can end the process (pytorch/pytorch#197805).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_mps_lock = threading.RLock()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Only one thread at a time can be inside this block."""
    with _lock:
        yield


@contextmanager
def taking_turns(device_type: str) -> Iterator[None]:
    """Serialise the body across threads on MPS; no effect on other devices."""
    if device_type != "mps":
        yield
        return
    with _mps_lock:
        yield


def _renew_after_fork() -> None:
    """Whoever held a lock stayed in the parent."""
    global _lock, _mps_lock
    _lock, _mps_lock = threading.Lock(), threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
