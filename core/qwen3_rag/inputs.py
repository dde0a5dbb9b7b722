"""Checks of what callers give: texts, pairs, numbers, truth values."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Real
from typing import Any, TypeVar

import numpy as np

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


def as_str(text: str) -> str:
    """Return the characters of a string. A class of its own, such as an enum's, may format itself otherwise."""
    return text if type(text) is str else str.__str__(text)


def as_texts(texts: Iterable[str], name: str) -> list[str]:
    """Return plain texts as a list of its own: what their owner does to theirs while a call waits is not seen.

    Raises:
        TypeError: `texts` is a string itself, a mapping, a table, or no collection, or one of them is not a
            string (the message names its index).
    """
    if _is_table(texts):  # a DataFrame lists the names of its columns
        raise TypeError(
            f"expected one column of {name} strings, got {type(texts).__name__} of two dimensions; "
            'take the column, such as frame["text"]'
        )
    listed = _listed(texts, f"{name} strings")
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            raise TypeError(f"{name} {index} must be a str, got {type(text).__name__}")
    return [as_str(text) for text in listed]


def as_pairs(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return (query, document) pairs, which may be rows of an array, as `as_texts` does; raises the same."""
    if _is_table(pairs) and not isinstance(pairs, np.ndarray):
        raise TypeError(
            f"expected a list of (query, document) pairs, got {type(pairs).__name__} of two dimensions; "
            'take its rows, such as frame[["query", "document"]].to_numpy()'
        )
    return [_pair(pair, index) for index, pair in enumerate(_listed(pairs, "(query, document) pairs"))]


def as_int(name: str, value: Any, meaning: str = "a whole number") -> int:
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


def as_float(name: str, value: Any, meaning: str = "a number") -> float:
    """Return a real number as a float; otherwise as `as_int`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {meaning}, got {value!r:.80}")
    return float(value)


def as_bool(name: str, value: Any) -> bool:
    """Return a truth value, numpy's too, as a bool; otherwise as `as_int`."""
    # "false", as a file may have it, would count as True.
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r:.80}")
    return bool(value)


def _pair(pair: Any, index: int) -> tuple[str, str]:
    if isinstance(pair, str) or not isinstance(pair, (Sequence, np.ndarray)) or len(pair) != 2:
        raise TypeError(f"pair {index} must be (query, document), got {pair!r:.80}")
    query, document = pair
    for name, text in (("query", query), ("document", document)):
        if not isinstance(text, str):
            raise TypeError(f"{name} {index} must be a str, got {type(text).__name__}")
    return as_str(query), as_str(document)


def _is_table(items: Any) -> bool:
    return bool(getattr(items, "ndim", 1) == 2)


def _listed(items: Iterable[Item], what: str) -> list[Item]:
    if isinstance(items, str):
        raise TypeError(f"expected a list of {what}, got one str; wrap it in a list")
    try:
        iterator = iter(items)
    except TypeError:
        iterator = None
    if iterator is None or isinstance(items, Mapping | set | frozenset):  # a set has no order
        raise TypeError(f"expected a list of {what}, got {type(items).__name__}")
    return list(iterator)
