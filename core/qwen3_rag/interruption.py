"""Whether a function runs in the middle of another one that holds an engine's locks."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Final

_LOCKING: Final = {"qwen3_rag.engine", "qwen3_rag.gate", "qwen3_rag.steps", "concurrent.futures._base"}
"""Modules that hold locks which an engine's threads need too: the engine's, its gate's, those of futures."""


def is_interrupted() -> bool:
    """Whether whoever called our caller interrupted this thread where it may hold a lock of `_LOCKING`.

    A signal's handler runs between any two steps of the main thread, as does a finaliser in any thread. What it
    interrupted stands further down the stack and keeps its locks until it goes on: waiting for a thread that
    needs one of them would never end, nor would taking one that is not reentrant, as a future's waiter has.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__") in _LOCKING:
            return True
        frame = frame.f_back
    return False
