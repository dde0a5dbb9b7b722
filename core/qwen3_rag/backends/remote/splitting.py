"""Dividing a run's prompts into requests of a size that a server accepts. Pure functions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def split(
    lengths: Sequence[int], groups: Sequence[Hashable], *, max_inputs: int, max_tokens: int
) -> list[list[int]]:
    """Divide prompts into requests, keeping their order within a request.

    Args:
        lengths: tokens of each prompt.
        groups: group of each prompt; prompts of one request are of one group (for a reranker that takes text,
            one query and instruction).
        max_inputs: most prompts of a request.
        max_tokens: most tokens of a request; a longer prompt goes alone.

    Returns:
        Indices of each request's prompts; each prompt is in exactly one request.
    """
    requests: list[list[int]] = []
    open_request: dict[Hashable, list[int]] = {}
    tokens: dict[Hashable, int] = {}
    for index, (length, group) in enumerate(zip(lengths, groups, strict=True)):
        current = open_request.get(group)
        if current is None or len(current) == max_inputs or tokens[group] + length > max_tokens:
            current = open_request[group] = []
            tokens[group] = 0
            requests.append(current)
        current.append(index)
        tokens[group] += length
    return requests


def halves(indices: Sequence[int]) -> tuple[list[int], list[int]]:
    """Divide a request of two or more prompts into two."""
    middle = len(indices) // 2
    return list(indices[:middle]), list(indices[middle:])
