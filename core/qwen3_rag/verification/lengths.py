"""Texts and pairs of a requested length whose result depends on their end, to find limits on length."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import cycle, islice
from typing import Final

from qwen3_rag.errors import ConfigurationError
from qwen3_rag.verification import embedding_faults, reranking_faults, texts
from qwen3_rag.verification.diagnosis import EXACT
from qwen3_rag.verification.embedding_faults import Text
from qwen3_rag.verification.reference import Reference
from qwen3_rag.verification.reranking_faults import Pair

_SHORTEST: Final = 256
"""Tokens. Every short text is shorter, even if a fault doubles its instruction or template."""

_FILLER: Final = (
    "Gulls follow the ships far out to sea and return to the cliffs at dusk. "
    "The tide leaves shells and weed on the sand, and children gather them in baskets. "
    "In winter the harbour is quiet, and nets are mended indoors."
)
_OTHER_END: Final = "Most of the nets were bought from a weaver in the next village."

_CLEAR: Final = 0.1
"""Difference of P(yes) that no rounding hides."""

_VISIBLE: Final = 10 * EXACT
"""Difference of P(yes) above which a cut is more than rounding in float32."""


def check_length(max_tokens: int | None, context: int) -> None:
    """Raise ConfigurationError unless texts of this length can be made, and the model's context holds them."""
    if max_tokens is not None and not _SHORTEST <= max_tokens <= context:
        raise ConfigurationError(
            f"--max-tokens must be {_SHORTEST} to {context} (the model's context), got {max_tokens}"
        )


def check_room(needed: int, tokens: int) -> None:
    """Raise ConfigurationError if a text that needs so many tokens with its prompt exceeds `tokens`."""
    if needed > tokens:
        raise ConfigurationError(
            f"--max-tokens {tokens} is too few: with its instruction a short text has {needed} tokens already; "
            "give more, or a shorter instruction"
        )


def longest_texts(reference: Reference, tokens: int) -> list[Text]:
    """Return two documents that differ only in their last sentence, of about `tokens` tokens each."""
    prompt = reference.checkpoint.document_prompt

    def as_text(document: str) -> Text:
        return Text(document, prompt, is_query=False)

    def length(document: str) -> int:
        return len(embedding_faults.right_ids(reference, as_text(document)))

    ends = (texts.SHORT_DOCUMENTS[0], _OTHER_END)
    return [as_text(document_of_length(tokens, length, end)) for end in ends]


def longest_pair(reference: Reference, tokens: int, instruction: str) -> Pair:
    """Return a pair whose score shows whether the document's end is read.

    A model that is sure of its answer before the end gives the same answer without it. If the score of the
    first query changes little, the others are tried.

    Raises:
        ConfigurationError: the end changes no query's score, or the instruction leaves no room.
    """
    best: tuple[float, Pair] | None = None
    for query, end in zip(texts.QUERIES, texts.SHORT_DOCUMENTS, strict=False):

        def length(document: str, query: str = query) -> int:
            return len(reranking_faults.right_ids(reference, (query, document), instruction))

        pair = query, document_of_length(tokens, length, end)
        seen = reranking_faults.loss_by_cutting(reference, pair, instruction)
        if best is None or seen > best[0]:
            best = seen, pair
        if seen >= _CLEAR:
            break
    assert best is not None, "there are queries"
    if best[0] <= _VISIBLE:
        raise ConfigurationError(
            f"--max-tokens {tokens}: this model's scores of test documents of that length change by "
            f"{best[0]:.1g} when they are cut, so that a limit would not show; give another length, or none"
        )
    return best[1]


def document_of_length(tokens: int, length: Callable[[str], int], end: str) -> str:
    """Return a document that is filler up to its last sentence.

    Args:
        tokens: length of the whole prompt; it is a little less if no word fits.
        length: document -> tokens of its whole prompt.
        end: last sentence.

    Raises:
        ConfigurationError: the last sentence alone is longer.
    """
    filler = _FILLER.split()

    def document(words: int, padding: int = 0) -> str:
        return " ".join([*islice(cycle(filler), words), *["and"] * padding, end])

    check_room(length(document(0)), tokens)
    # Words are tokenised separately, so length is monotonic in their number.
    words = bisect_right(range(tokens), tokens, key=lambda count: length(document(count))) - 1
    padded = document(words, tokens - length(document(words)))
    return padded if length(padded) <= tokens else document(words)
