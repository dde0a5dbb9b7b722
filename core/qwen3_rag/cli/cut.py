"""Cut texts are a line of the summary, not Python's warning."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from qwen3_rag.errors import TruncationWarning


@contextlib.contextmanager
def without_warning() -> Iterator[None]:
    """Leave it to the summary that texts were cut."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=TruncationWarning)
        yield


def lines_on_cut(count: int) -> list[str]:
    """Return what the summary says of texts that were cut, if there were any."""
    return [f"{count} texts were longer than --max-tokens and lost their end"] if count else []
