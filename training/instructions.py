"""Task sentences in many wordings, so that an unseen one costs little."""

from __future__ import annotations

import random
from typing import Final

from qwen3_rag.instructions import DEFAULT_INSTRUCTION

DEFAULT_SHARE: Final = 0.5
"""Of training queries carry the published default."""

UNSEEN_INSTRUCTION: Final = "Find the manual entry or package that fits what the user describes"
"""For evaluation; `vary` never gives it."""

_INPUTS: Final = (
    "question",
    "search query",
    "short description",
    "sentence",
    "request",
    "phrase",
    "topic",
    "task",
)
_VERBS: Final = ("retrieve", "find", "return", "list", "select")
_TARGETS: Final = (
    "passages that answer it",
    "relevant documents",
    "the documentation that explains it",
    "text that describes the same thing",
    "the entry that is meant",
    "relevant passages",
)
_FORMS: Final = (
    "Given a {input}, {verb} {target}",
    "{verb} {target} for the {input}",
    "For the given {input}, {verb} {target}",
    "You are given a {input}; {verb} {target}",
)


def vary(generator: random.Random) -> str:
    """Return the default instruction or, as often, one put together at random."""
    if generator.random() < DEFAULT_SHARE:
        return DEFAULT_INSTRUCTION
    sentence = generator.choice(_FORMS).format(
        input=generator.choice(_INPUTS), verb=generator.choice(_VERBS), target=generator.choice(_TARGETS)
    )
    return sentence[0].upper() + sentence[1:]
