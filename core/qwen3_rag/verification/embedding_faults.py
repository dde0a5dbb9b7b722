"""What an embedding endpoint with each known fault would answer, computed with the local model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from qwen3_rag.verification.matching import Floats, Hypothesis, limits_below, replaced
from qwen3_rag.verification.reference import Reference, TokenList, unit

Render = Callable[["Text"], str]


@dataclass(frozen=True)
class Text:
    """One text to embed.

    Attributes:
        text: as a user gives it.
        prompt: what precedes it.
        is_query: False for documents.
    """

    text: str
    prompt: str
    is_query: bool


def right_ids(reference: Reference, text: Text) -> TokenList:
    """Return the exact token ids of prompt, text and `<|endoftext|>`."""
    return [*reference.ids(text.prompt + text.text), reference.end_of_text]


def right_vectors(reference: Reference, texts: Sequence[Text]) -> Floats:
    """Return the right vectors, whole: float32 (n, hidden_size), rows of norm 1."""
    return unit(reference.states([right_ids(reference, text) for text in texts]))


def embedding_hypotheses(reference: Reference, texts: Sequence[Text], query_prompt: str) -> list[Hypothesis]:
    """Return the vectors of every fault of rendering, closing token and pooling, and of any two.

    Args:
        reference: the local model.
        texts: short ones, none of them empty.
        query_prompt: prompt that precedes queries on a right server.
    """
    names: list[tuple[str, ...]] = []
    sequences: list[TokenList] = []
    for (rendering, render), (closing, close) in product(
        _renderings(query_prompt), _closings(reference).items()
    ):
        names.append((*rendering, closing) if closing else rendering)
        sequences += [close(reference.ids(render(text))) for text in texts]
    vectors = unit(reference.states(sequences)).reshape(len(names), len(texts), -1)
    found = [Hypothesis(faults, rows) for faults, rows in zip(names, vectors, strict=True)]
    return [*found, *_poolings(reference, texts)]


def truncations(reference: Reference, texts: Sequence[Text], right: Floats) -> Iterator[tuple[int, Floats]]:
    """Yield token limits, and the vectors of `texts` cut to them: with the closing token kept, and lost.

    Args:
        reference: the local model.
        texts: long ones.
        right: their right vectors.
    """
    ids = [right_ids(reference, text) for text in texts]
    for limit in limits_below(max(map(len, ids))):
        cut = [i for i, row in enumerate(ids) if len(row) > limit]
        kept = [[*ids[i][: limit - 1], ids[i][-1]] for i in cut]
        lost = [ids[i][:limit] for i in cut]
        # In one call: they have common prefixes, which are then computed once.
        for states in np.split(unit(reference.states([*kept, *lost])), 2):
            yield limit, replaced(right, cut, states)


def _renderings(query_prompt: str) -> list[tuple[tuple[str, ...], Render]]:
    def always(text: Text) -> str:
        return text.prompt + text.text

    def queries(change: Callable[[str], str]) -> Render:
        return lambda text: change(text.prompt) + text.text if text.is_query else always(text)

    def wrap(before: str, after: str) -> Render:
        return lambda text: before + always(text) + after

    def system(text: Text) -> str:
        if not text.prompt:
            return user_turn + text.text + "<|im_end|>\n"
        return f"<|im_start|>system\n{text.prompt}<|im_end|>\n{user_turn}{text.text}<|im_end|>\n"

    user_turn, answer = "<|im_start|>user\n", "<|im_start|>assistant\n"
    return [
        ((), always),
        (("missing-instruction",), queries(lambda _: "")),
        (("doubled-instruction",), queries(lambda prompt: prompt + prompt)),
        (
            ("instruction-on-documents",),
            lambda text: always(text) if text.is_query else query_prompt + always(text),
        ),
        # A server's default prompt precedes every text.
        (
            ("doubled-instruction", "instruction-on-documents"),
            lambda text: query_prompt + always(text),
        ),
        (("instruction-spacing",), queries(lambda prompt: prompt + " ")),
        (("instruction-spacing",), queries(lambda prompt: prompt.replace("\n", " "))),
        (("newlines-replaced",), lambda text: text.prompt + text.text.replace("\n", " ")),
        (("newlines-replaced",), lambda text: always(text).replace("\n", " ")),
        (("white-space-stripped",), lambda text: always(text).strip()),
        (("lower-cased",), lambda text: always(text).lower()),
        (("chat-template",), wrap(user_turn, "<|im_end|>\n")),
        (("chat-template",), wrap(user_turn, "<|im_end|>\n" + answer)),
        (("chat-template",), wrap(user_turn, f"<|im_end|>\n{answer}<think>\n\n</think>\n\n")),
        (("chat-template",), system),
    ]


def _closings(reference: Reference) -> dict[str, Callable[[TokenList], TokenList]]:
    end, turn_end = reference.end_of_text, reference.ids("<|im_end|>")
    return {
        "": lambda ids: [*ids, end],
        "missing-final-token": lambda ids: ids,
        "doubled-final-token": lambda ids: [*ids, end, end],
        "wrong-final-token": lambda ids: [*ids, *turn_end],
        "extra-first-token": lambda ids: [end, *ids, end],
    }


def _poolings(reference: Reference, texts: Sequence[Text]) -> Iterator[Hypothesis]:
    """Yield poolings over all positions. Attention is causal, so a position's state is that of its prefix."""
    ids = [right_ids(reference, text) for text in texts]
    states = reference.states([row[: stop + 1] for row in ids for stop in range(len(row))])
    rows = np.split(states, np.cumsum([len(row) for row in ids])[:-1])
    yield Hypothesis(("mean-pooling",), unit(np.stack([row.mean(axis=0) for row in rows])))
    unclosed = unit(np.stack([row[:-1].mean(axis=0) for row in rows]))
    yield Hypothesis(("mean-pooling", "missing-final-token"), unclosed)
    yield Hypothesis(("first-token-pooling",), unit(np.stack([row[0] for row in rows])))
