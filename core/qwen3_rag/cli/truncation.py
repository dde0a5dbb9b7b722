"""Truncated texts: counted in the summary of a command, in place of Python's warning."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from qwen3_rag.errors import TruncationWarning


@contextlib.contextmanager
def suppress_truncation_warnings() -> Iterator[None]:
    """Silence `TruncationWarning`, for commands whose summary has `truncation_lines`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=TruncationWarning)
        yield


def truncation_lines(count: int) -> list[str]:
    """Return the summary's line on `count` truncated texts; none if there were none."""
    return [f"{count} texts were longer than --max-tokens and lost their end"] if count else []
