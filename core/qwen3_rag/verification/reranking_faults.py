"""What a reranking endpoint with each known fault would answer, computed with the local model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Final

import numpy as np

from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.prompts import RERANK_PREFIX, RERANK_SUFFIX, query_prompt, rerank_halves, rerank_head
from qwen3_rag.ranking import yes_probability
from qwen3_rag.verification.matching import Floats, Hypothesis, limits_below, replaced
from qwen3_rag.verification.reference import Reference, TokenList, unit

Pair = tuple[str, str]
Render = Callable[[str, str], tuple[str, ...]]
"""From query and document to the parts of a prompt, which are tokenised separately."""

_SYMMETRIC: Final = 0.05
"""Share of the answers' spread by which cosines may change when inputs are swapped; rounding in bfloat16
changes them by less."""

_TURN_END: Final = "<|im_end|>\n<|im_start|>assistant\n"


def right_ids(reference: Reference, pair: Pair, instruction: str) -> TokenList:
    """Return the exact token ids of a pair's prompt."""
    return reference.ids(RERANK_PREFIX, rerank_head(instruction, pair[0]) + pair[1], RERANK_SUFFIX)


def right_scores(reference: Reference, pairs: Sequence[Pair], instruction: str) -> Floats:
    """Return P(yes), float32 (n,)."""
    states = reference.states([right_ids(reference, pair, instruction) for pair in pairs])
    return yes_probability(states @ reference.heads()[""][0])


def reranking_hypotheses(reference: Reference, pairs: Sequence[Pair], instruction: str) -> list[Hypothesis]:
    """Return the answers for every fault of template, head and scale, and for all combinations.

    Args:
        reference: the local model.
        pairs: with short documents.
        instruction: task sentence of right prompts.
    """
    renderings = _renderings(instruction)
    sequences = [reference.ids(*render(*pair)) for _, render in renderings for pair in pairs]
    states = reference.states(sequences).reshape(len(renderings), len(pairs), -1)
    heads = [(name, row) for name, rows in reference.heads().items() for row in rows]
    found: list[Hypothesis] = []
    for ((rendering, _), hidden), (head, row) in product(zip(renderings, states, strict=True), heads):
        log_odds = hidden @ row
        answers = {
            "": yes_probability(log_odds),
            "log-odds": log_odds,
            "answers-swapped": yes_probability(-log_odds),
            "sigmoid-twice": yes_probability(yes_probability(log_odds)),
        }
        for scale, predicted in answers.items():
            faults = tuple(name for name in (rendering, head, scale) if name)
            found.append(Hypothesis(faults, predicted))
    return [*found, *_cosines(reference, pairs, instruction)]


def truncations(
    reference: Reference, pairs: Sequence[Pair], instruction: str, right: Floats
) -> Iterator[tuple[int, str, Floats]]:
    """Yield token limits, what they cut ("document" or "template"), and the scores of `pairs` under them.

    Args:
        reference: the local model.
        pairs: with long documents.
        instruction: task sentence of right prompts.
        right: right scores of the pairs.
    """
    head = reference.heads()[""][0]
    ids = [right_ids(reference, pair, instruction) for pair in pairs]
    suffix = reference.ids(RERANK_SUFFIX)
    for limit in limits_below(max(map(len, ids))):
        cut = [i for i, row in enumerate(ids) if len(row) > limit]
        whole = [[*ids[i][: limit - len(suffix)], *suffix] for i in cut]
        lost = [ids[i][:limit] for i in cut]
        # In one call: they have common prefixes, which are then computed once.
        scores = yes_probability(reference.states([*whole, *lost]) @ head)
        for what, found in zip(("document", "template"), np.split(scores, 2), strict=True):
            yield limit, what, replaced(right, cut, found)


def loss_by_cutting(reference: Reference, pair: Pair, instruction: str) -> float:
    """Return the change of P(yes) if a long pair's prompt is cut to the next lower power of two of tokens."""
    ids, suffix = right_ids(reference, pair, instruction), reference.ids(RERANK_SUFFIX)
    *_, limit = limits_below(len(ids))
    cut = [*ids[: limit - len(suffix)], *suffix]
    whole, less = yes_probability(reference.states([ids, cut]) @ reference.heads()[""][0])
    return float(abs(whole - less))


def scaling(observed: Floats, right: Floats) -> tuple[float, float, Floats]:
    """Fit log-odds of the answers as factor * right + shift.

    Args:
        observed: answers, (n,); those outside of 0 to 1 are taken for its ends.
        right: right probabilities, (n,).

    Returns:
        Factor, shift, and the probabilities that they predict, (n,).
    """
    x, y = _log_odds(right), _log_odds(observed)
    factor, shift = np.polyfit(x, y, 1)
    return float(factor), float(shift), yes_probability((factor * x + shift).astype(np.float32))


def are_symmetric(answered: Floats, swapped: Floats) -> bool:
    """Whether swapping query and document leaves the answers as they are, which holds for cosines.

    Args:
        answered: for some pairs, (n,).
        swapped: for the same pairs, swapped.
    """
    # Relative to the spread: a reranker that finds nothing relevant answers nearly 0 both ways.
    spread = float(np.ptp(answered))
    return spread > 0 and float(np.abs(answered - swapped).max()) <= _SYMMETRIC * spread


def _log_odds(probabilities: Floats) -> Floats:
    p = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    odds: Floats = (np.log(p) - np.log1p(-p)).astype(np.float32)
    return odds


def _renderings(instruction: str) -> list[tuple[str, Render]]:
    def body(query: str, document: str) -> str:
        return rerank_head(instruction, query) + document

    def template(change: Callable[[str], str] = str, *, prefix: str = RERANK_PREFIX, suffix: str) -> Render:
        return lambda query, document: (prefix, change(body(query, document)), suffix)

    right = template(suffix=RERANK_SUFFIX)
    found: list[tuple[str, Render]] = [
        ("", right),
        *(("template-missing", render) for render in _bare()),
        ("template-missing", lambda q, d: (body(q, d),)),
        ("template-doubled", lambda q, d: right(*rerank_halves(instruction, q, d))),
        ("template-doubled", lambda q, d: (RERANK_PREFIX, "".join(right(q, d)), RERANK_SUFFIX)),
        ("template-doubled", lambda q, d: right(q, "".join(right(q, d)))),
        ("system-prompt-missing", template(prefix="<|im_start|>user\n", suffix=RERANK_SUFFIX)),
        ("system-prompt-missing", template(prefix="", suffix=RERANK_SUFFIX)),
        ("suffix-cut", template(suffix="")),
        ("suffix-cut", template(suffix="<|im_end|>\n")),
        ("think-block-lost", template(suffix=_TURN_END)),
        ("think-block-lost", template(suffix=_TURN_END + "<think>\n")),
        ("newline-lost", template(suffix=RERANK_SUFFIX.removesuffix("\n"))),
        ("newline-lost", template(suffix=RERANK_SUFFIX.rstrip("\n"))),
        ("turn-closed-twice", template(suffix="<|im_end|>\n" + RERANK_SUFFIX)),
        ("turn-closed-twice", template(suffix=RERANK_SUFFIX + "<|im_end|>\n")),
        ("final-token-appended", template(suffix=RERANK_SUFFIX + "<|endoftext|>")),
        ("swapped-inputs", lambda q, d: right(d, q)),
        ("newlines-replaced", lambda q, d: right(q.replace("\n", " "), d.replace("\n", " "))),
        ("white-space-stripped", lambda q, d: right(q.strip(), d.strip())),
        ("lower-cased", lambda q, d: right(q.lower(), d.lower())),
    ]
    changes: list[tuple[str, Callable[[str], str]]] = [
        ("blank-lines", lambda text: text.replace("\n<Query>", "\n\n<Query>").replace("\n<Doc", "\n\n<Doc")),
        ("tags-lost", _without_brackets),
        ("missing-instruction", lambda text: text.removeprefix(f"<Instruct>: {instruction}\n")),
        ("missing-instruction", lambda text: text.replace(f": {instruction}\n", ": \n", 1)),
        (
            "doubled-instruction",
            lambda text: text.replace("<Query>: ", f"<Query>: Instruct: {instruction}\nQuery:", 1),
        ),
    ]
    if instruction != DEFAULT_INSTRUCTION:
        by_default = f": {DEFAULT_INSTRUCTION}\n"
        changes.append(("instruction-ignored", lambda text: text.replace(f": {instruction}\n", by_default, 1)))
    return found + [(name, template(change, suffix=RERANK_SUFFIX)) for name, change in changes]


def _bare() -> list[Render]:
    return [
        lambda q, d: (q, d),
        lambda q, d: (q, d, "<|endoftext|>"),
        lambda q, d: (q, "<|endoftext|>", d, "<|endoftext|>"),
        lambda q, d: (f"{q} {d}",),
        lambda q, d: (f"{q}\n{d}",),
        lambda q, d: (f"<|im_start|>user\n{q}\n{d}{_TURN_END}",),
        lambda q, d: (f"<|im_start|>user\n{q}{d}{_TURN_END}",),
    ]


def _without_brackets(text: str) -> str:
    for field in ("Instruct", "Query", "Document"):
        text = text.replace(f"<{field}>", field, 1)
    return text


def _cosines(reference: Reference, pairs: Sequence[Pair], instruction: str) -> Iterator[Hypothesis]:
    """Yield the cosines that the same weights give if they are run as an embedding model.

    Some servers put an embedding model's instruction before the query.
    """
    for closing in ("", "<|endoftext|>"):
        documents = unit(reference.states([reference.ids(document, closing) for _, document in pairs]))
        for prompt in ("", query_prompt(instruction)):
            queries = unit(reference.states([reference.ids(prompt + query, closing) for query, _ in pairs]))
            cosine: Floats = (queries * documents).sum(axis=1)
            yield Hypothesis(("cosine",), cosine)
            yield Hypothesis(("cosine",), (1 + cosine) / np.float32(2))
