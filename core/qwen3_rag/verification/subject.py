"""What is compared: the fixed inputs, and a judge of the answers that knows what is right for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.models import ModelKind
from qwen3_rag.roles import prompt_before
from qwen3_rag.vectors import resolve_dimensions
from qwen3_rag.verification import embedding_faults, reranking_faults, texts
from qwen3_rag.verification.diagnosis import batch_dependence, not_finite
from qwen3_rag.verification.embedding_faults import Text
from qwen3_rag.verification.judges import (
    EMBEDDING_TOLERANCE,
    RERANKING_TOLERANCE,
    EmbeddingJudge,
    RerankingJudge,
)
from qwen3_rag.verification.lengths import check_length, check_room, longest_pair, longest_texts
from qwen3_rag.verification.matching import Floats
from qwen3_rag.verification.reference import Reference, TokenList
from qwen3_rag.verification.report import Check
from qwen3_rag.verification.reranking_faults import Pair

ASKED_ALONE: Final = 3
"""Number of inputs that are sent once more, each in a request of its own."""

_LONGEST: Final = 2048
"""Tokens. The fixed long texts have fewer; they are omitted where texts of this length may not be sent."""


@dataclass(frozen=True)
class Input:
    """A text or pair with its exact token ids."""

    words: Text | Pair
    token_ids: TokenList


@dataclass(frozen=True)
class Subject:
    """What is compared with what.

    Attributes:
        kind: embedding or reranking.
        instruction: task sentence; for embedding, the one sent to DashScope.
        inputs: short texts or pairs first, then long ones.
        judge: compares answers with what is right for these inputs.
        tolerance: largest distance that passes.
    """

    kind: ModelKind
    instruction: str
    inputs: list[Input]
    judge: EmbeddingJudge | RerankingJudge
    tolerance: float

    @property
    def measure(self) -> str:
        """Name of the distance."""
        return "distance of unit vectors" if self.kind == "embedding" else "difference of P(yes)"

    def check(self, path: str, answered: Floats, alone: Floats) -> Check:
        """Compare raw vectors, float32 (n, d), or scores, float32 (n,).

        Args:
            path: how they were requested.
            answered: for all inputs.
            alone: for the first inputs, each requested by itself.
        """
        verdict = self.judge.judge(answered)
        found = verdict.findings
        if verdict.difference is not None and "out-of-order" not in [one.fault for one in found]:
            depends = not_finite(alone) or batch_dependence(answered[: len(alone)], alone, self.tolerance)
            found = found if depends is None else (depends, *found)
        longest = max(len(one.token_ids) for one in self.inputs)
        return Check(path, len(answered), longest, verdict.difference, self.measure, self.tolerance, found)


def make_subject(
    reference: Reference,
    *,
    instruction: str | None,
    tolerance: float | None,
    norms_count: bool,
    dimensions: int | None,
    max_tokens: int | None,
) -> Subject:
    """Choose the inputs and compute what is right for them.

    Args:
        reference: the local model; keep it open, since the judge runs it again when something is wrong.
        instruction: task sentence; None for the checkpoint's own or the default.
        tolerance: largest distance that passes; None for the kind's default.
        norms_count: whether vectors must have norm 1.
        dimensions: requested length of vectors; None for the model's own.
        max_tokens: tokens of the longest inputs; None for the fixed texts alone.

    Raises:
        ConfigurationError: `dimensions` or `max_tokens` does not fit the model.
    """
    check_length(max_tokens, reference.context)
    if reference.kind == "reranking":
        return _reranking_subject(reference, instruction, tolerance, max_tokens)
    return _embedding_subject(reference, instruction, tolerance, norms_count, dimensions, max_tokens)


def _reranking_subject(
    reference: Reference, instruction: str | None, tolerance: float | None, max_tokens: int | None
) -> Subject:
    chosen = DEFAULT_INSTRUCTION if instruction is None else instruction
    allowed = RERANKING_TOLERANCE if tolerance is None else tolerance
    short, long = texts.PAIRS, texts.LONG_PAIRS if _takes_long(reference, max_tokens) else ()
    if max_tokens is not None:
        long = (*long, longest_pair(reference, max_tokens, chosen))
    inputs = [Input(pair, reranking_faults.right_ids(reference, pair, chosen)) for pair in (*short, *long)]
    judge = RerankingJudge(reference, short, long, instruction=chosen, tolerance=allowed)
    return Subject("reranking", chosen, inputs, judge, allowed)


def _embedding_subject(
    reference: Reference,
    instruction: str | None,
    tolerance: float | None,
    norms_count: bool,
    dimensions: int | None,
    max_tokens: int | None,
) -> Subject:
    resolve_dimensions(dimensions, reference.checkpoint.hidden_size)
    chosen = DEFAULT_INSTRUCTION if instruction is None else instruction
    allowed = EMBEDDING_TOLERANCE if tolerance is None else tolerance
    query_prompt = prompt_before(reference.checkpoint, "query", instruction)
    short = [Text(query, query_prompt, is_query=True) for query in texts.QUERIES]
    short += _documents(reference, texts.SHORT_DOCUMENTS)
    long = _documents(reference, texts.LONG_DOCUMENTS) if _takes_long(reference, max_tokens) else []
    if max_tokens is not None:
        long += longest_texts(reference, max_tokens)
    inputs = [Input(text, embedding_faults.right_ids(reference, text)) for text in (*short, *long)]
    if max_tokens is not None:
        check_room(max(len(one.token_ids) for one in inputs[: len(short)]), max_tokens)
    judge = EmbeddingJudge(
        reference,
        short,
        long,
        query_prompt=query_prompt,
        tolerance=allowed,
        norms_count=norms_count,
        dimensions=dimensions,
        twins=max_tokens is not None,
    )
    return Subject("embedding", chosen, inputs, judge, allowed)


def _takes_long(reference: Reference, max_tokens: int | None) -> bool:
    """Whether the fixed long texts may be sent."""
    return (reference.context if max_tokens is None else max_tokens) >= _LONGEST


def _documents(reference: Reference, documents: Sequence[str]) -> list[Text]:
    prompt = prompt_before(reference.checkpoint, "document", None)
    return [Text(document, prompt, is_query=False) for document in documents]
