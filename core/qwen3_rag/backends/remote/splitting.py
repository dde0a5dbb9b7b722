"""From the prompts of a run to requests that a server accepts. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def split(
    lengths: Sequence[int], groups: Sequence[Hashable], *, max_inputs: int, max_tokens: int
) -> list[list[int]]:
    """Divide prompts into requests, keeping their order within a request.

    Args:
        lengths: tokens of each prompt.
        groups: what each prompt needs of its request (for a reranker that takes text, its query and
            instruction); prompts of one request are of one group.
        max_inputs: most prompts of a request.
        max_tokens: most tokens of a request; a longer prompt goes alone.

    Returns:
        Numbers of the prompts of each request; each prompt is in exactly one.
    """
    requests: list[list[int]] = []
    open_request: dict[Hashable, list[int]] = {}
    tokens: dict[Hashable, int] = {}
    for number, (length, group) in enumerate(zip(lengths, groups, strict=True)):
        current = open_request.get(group)
        if current is None or len(current) == max_inputs or tokens[group] + length > max_tokens:
            current = open_request[group] = []
            tokens[group] = 0
            requests.append(current)
        current.append(number)
        tokens[group] += length
    return requests


def halves(numbers: Sequence[int]) -> tuple[list[int], list[int]]:
    """Divide a request of two or more prompts."""
    middle = len(numbers) // 2
    return list(numbers[:middle]), list(numbers[middle:])
