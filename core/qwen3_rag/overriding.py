"""Async methods of users' subclasses that override only the sync ones."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any


def follow_overrides(cls: type, twins: Mapping[str, str]) -> None:
    """Have async methods of a class do what its sync ones do, in a thread, where only those are overridden.

    An adapter's async methods call the core themselves, so that they need no thread per call. Past a sync
    method that a subclass overrides they would give other results than it.

    Args:
        cls: gets an async method of its own for each sync one that comes before its twin in the class's bases.
        twins: names of sync methods -> names of their async twins.
    """
    for name, async_name in twins.items():
        if _place(cls, name) < _place(cls, async_name):
            setattr(cls, async_name, _in_thread(name, async_name, getattr(cls, name)))


def _place(cls: type, name: str) -> int:
    """Return which of a class's bases a method is of, itself being 0; one that none has comes last."""
    bases = cls.__mro__
    return next((place for place, base in enumerate(bases) if name in vars(base)), len(bases))


def _in_thread(name: str, async_name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    # Wrapped, for Haystack compares the signatures and the outputs of both.
    @functools.wraps(method)
    async def twin(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(getattr(self, name), *args, **kwargs)

    twin.__name__ = async_name
    twin.__qualname__ = method.__qualname__.rpartition(".")[0] + f".{async_name}"
    return twin
