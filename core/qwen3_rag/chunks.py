"""How the inputs of a call are divided into what is tokenised and queued at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from qwen3_rag.tokenization import CHARACTERS_PER_TOKEN
from qwen3_rag.work import Item

_CHUNK: Final = 512
"""Most inputs of a chunk: while the model runs one, the next is tokenised."""

_CHUNK_CHARACTERS: Final = 2_000_000
"""Most characters of a chunk of several inputs. Of a long input only those count that are encoded, which takes
some 45 bytes for each. Chosen, not tuned."""

_INLINE_CHARACTERS: Final = 20_000
"""An async call tokenises up to this much text on the event loop itself (about 4 ms), more in a thread."""

_CHARACTERS_BEFORE: Final = 120
"""Characters counted per text for instruction and template, which are encoded with each."""


def chunks(items: Sequence[Item], max_tokens: int) -> Iterator[tuple[int, Sequence[Item]]]:
    """Divide inputs into chunks of one or more, each with the index of its first input.

    Args:
        items: texts, or pairs of texts.
        max_tokens: longest prompt; characters that are sure to be cut do not count.
    """
    most = CHARACTERS_PER_TOKEN * max_tokens
    start = characters = 0
    for place, item in enumerate(items):
        added = min(_characters(item), most)
        if place > start and (place - start == _CHUNK or characters + added > _CHUNK_CHARACTERS):
            yield start, items[start:place]
            start, characters = place, 0
        characters += added
    if items:
        yield start, items[start:]


def is_short(chunk: Sequence[Any]) -> bool:
    """Whether an event loop may tokenise a chunk itself."""
    return sum(map(_characters, chunk)) + len(chunk) * _CHARACTERS_BEFORE <= _INLINE_CHARACTERS


def _characters(item: Any) -> int:
    return len(item) if isinstance(item, str) else sum(map(len, item))
