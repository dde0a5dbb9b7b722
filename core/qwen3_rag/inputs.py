"""Checks of what callers give: texts, pairs, numbers."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Real
from typing import Any, TypeVar

Item = TypeVar("Item")


def check_unicode(text: str, name: str) -> None:
    """Raise ValueError if a text holds a lone surrogate, which no UTF-8 text can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} is not valid Unicode: lone surrogate at character {error.start}; "
            'decode it again, or use text.encode(errors="replace").decode()'
        ) from error


def as_texts(texts: Iterable[str], name: str) -> Sequence[str]:
    """Return texts as a sequence that is read by place, the same object if it is one already.

    A pandas Series is none, because it is read by label; nor is a generator, which is read once.

    Raises:
        TypeError: `texts` is a string itself, a mapping, or no collection, or one of them is not a string
            (the message names its index).
    """
    listed = _as_sequence(texts, f"{name} strings")
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            raise TypeError(f"{name} {index} must be a str, got {type(text).__name__}")
    return listed


def as_pairs(pairs: Iterable[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Return (query, document) pairs as a sequence that is read by place; raises TypeError as `as_texts`."""
    listed = _as_sequence(pairs, "(query, document) pairs")
    for index, pair in enumerate(listed):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"pair {index} must be (query, document), got {pair!r:.80}")
        for name, text in zip(("query", "document"), pair, strict=True):
            if not isinstance(text, str):
                raise TypeError(f"{name} {index} must be a str, got {type(text).__name__}")
    return listed


def whole(name: str, value: Any, meaning: str = "a whole number") -> int:
    """Return a whole number as an int; numpy's are taken, truth values are not.

    Args:
        name: what it is, for the error.
        value: what was given.
        meaning: what is asked for, for the error.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, bool):
        with suppress(TypeError):
            return operator.index(value)
    raise TypeError(f"{name} must be {meaning}, got {value!r:.80}")


def number(name: str, value: Any, meaning: str = "a number") -> float:
    """Return a real number as a float; otherwise as `whole`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {meaning}, got {value!r:.80}")
    return float(value)


def _as_sequence(items: Iterable[Item], what: str) -> Sequence[Item]:
    if isinstance(items, str):
        raise TypeError(f"expected a list of {what}, got one str; wrap it in a list")
    if isinstance(items, Sequence):
        return items
    try:
        iterator = iter(items)
    except TypeError:
        iterator = None
    if iterator is None or isinstance(items, Mapping):
        raise TypeError(f"expected a list of {what}, got {type(items).__name__}")
    return list(iterator)
