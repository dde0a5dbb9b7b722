"""Whether a call interrupted code that may hold a lock of an engine."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Final

_LOCKING: Final = {
    "qwen3_rag.engine",
    "qwen3_rag.call_queue",
    "qwen3_rag.gate",
    "qwen3_rag.steps",
    "qwen3_rag.pool",
    "concurrent.futures._base",
}
"""Modules that hold locks which an engine's threads need too: the engine's, its gate's, those of futures."""

_LOCKING_FUNCTIONS: Final = {("qwen3_rag.engines", "acquire"), ("qwen3_rag.engines", "_drop_user")}
"""Functions that hold such a lock, of a module whose others close engines: a garbage collection in an engine's
thread gives back other engines."""


def is_interrupted() -> bool:
    """Whether the caller's caller interrupted this thread where it may hold a lock that an engine needs.

    A signal's handler runs between any two bytecodes of the main thread, and a finaliser between those of any
    thread. The code that it interrupted keeps its locks until it goes on: waiting for a thread that needs one
    would be a deadlock, and so would be taking one that is not reentrant, such as a future's.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if module in _LOCKING or (module, frame.f_code.co_name) in _LOCKING_FUNCTIONS:
            return True
        frame = frame.f_back
    return False
