"""One model is loaded at a time in a process, whichever library loads it.

While Transformers 5 makes a model it replaces `PreTrainedModel.tie_weights` and puts it back afterwards. Two
loads that overlap in two threads put back each other's replacement: from then on no tied head loads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Within, no other thread is within."""
    with _lock:
        yield


def _renew_after_fork() -> None:
    """Whoever held the lock stayed in the parent."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
