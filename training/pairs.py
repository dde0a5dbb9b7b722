"""(query, passage) pairs and their files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """A query and a passage that answers it.

    Attributes:
        query: what one would type.
        passage: the text to find.
        kind: what sort of text it is, for example "debian" or "docstring".
        source: what it was taken from; pairs of one source are never on both sides of a split.
    """

    query: str
    passage: str
    kind: str = "user"
    source: str = ""


def answers_of(pairs: Iterable[Pair]) -> dict[str, set[str]]:
    """Return every query with all its passages: none of them is a wrong one for it."""
    answers: dict[str, set[str]] = {}
    for pair in pairs:
        answers.setdefault(pair.query, set()).add(pair.passage)
    return answers


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write pairs as JSONL, one object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for pair in pairs:
            file.write(json.dumps(asdict(pair), ensure_ascii=False) + "\n")


def read_pairs(path: Path) -> list[Pair]:
    """Read JSONL of objects with `query` and `passage`, and optionally `kind` and `source`.

    Raises:
        ValueError: a line is not such an object (the message gives its number) or the file is empty.
    """
    pairs = list(_parse(path))
    if not pairs:
        raise ValueError(f"{path} holds no pairs; each line must be an object with query and passage")
    return pairs


def _parse(path: Path) -> Iterator[Pair]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                query, passage = row["query"], row["passage"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number}: need an object with query and passage, got {line[:80]!r}"
                ) from error
            if not isinstance(query, str) or not isinstance(passage, str):
                raise ValueError(f"{path}, line {number}: query and passage must be strings")
            yield Pair(query, passage, str(row.get("kind", "user")), str(row.get("source", "")))
