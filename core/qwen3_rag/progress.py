"""Progress bars on standard error: one for each call, or one for several calls together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

_joined: ContextVar[Any] = ContextVar("qwen3_rag_progress_bar", default=None)


@contextmanager
def one_bar(total: int, description: str) -> Iterator[None]:
    """Inside this context all calls of components move one bar, whatever they were asked to show.

    Args:
        total: texts of all calls together. Those that no call computed count as done at the end.
        description: stands before the bar.
    """
    with _bar(total, is_shown=True, description=description) as bar:
        token = _joined.set(bar)
        try:
            yield
        finally:
            _joined.reset(token)
        bar.update(total - bar.n)


@contextmanager
def call_bar(total: int, *, is_shown: bool) -> Iterator[Any]:
    """Yield what a call of `total` texts moves by its method `update`: a bar of its own, or `one_bar`'s."""
    joined = _joined.get()
    if joined is not None:
        yield joined
        return
    with _bar(total, is_shown=is_shown) as bar:
        yield bar


def _bar(total: int, *, is_shown: bool, description: str | None = None) -> Any:
    return tqdm(total=total, desc=description, disable=not (is_shown and total), unit="text")
