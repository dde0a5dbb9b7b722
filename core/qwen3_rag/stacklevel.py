"""Which line of code called this package, for warnings about what it asked for."""

from __future__ import annotations

import sys
from typing import Final

_PACKAGES: Final = {"qwen3_rag", "langchain_qwen3_rag", "llama_index", "llama_index_instrumentation"}
"""Names of packages, one of which is part of the name of every module of ours (the adapters' for LlamaIndex and
Haystack end in the first), and of LlamaIndex's own, which wraps every call of its components."""


def caller_stacklevel() -> int:
    """Return the `stacklevel` with which our caller's warning names the code that called this package.

    Ask in the caller's own thread or task: nobody called a thread of ours.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _PACKAGES & set(str(frame.f_globals.get("__name__")).split(".")):
        level, frame = level + 1, frame.f_back
    return level
