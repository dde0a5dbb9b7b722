"""Judges: from raw answers to findings, one for each kind of model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from qwen3_rag.verification import embedding_faults, reranking_faults
from qwen3_rag.verification.diagnosis import (
    diagnose,
    diagnose_limit,
    finding,
    is_off,
    lost_end,
    not_finite,
    out_of_order,
)
from qwen3_rag.verification.embedding_faults import Text
from qwen3_rag.verification.matching import Floats, Hypothesis, distances
from qwen3_rag.verification.reference import Reference, unit
from qwen3_rag.verification.report import Finding
from qwen3_rag.verification.reranking_faults import Pair

NORM_TOLERANCE: Final = 0.01
"""Largest deviation of a norm from 1. Rounding to bfloat16 after normalisation causes less."""

EMBEDDING_TOLERANCE: Final = 0.1
"""Distance of unit vectors, a cosine of 0.995. Rounding in bfloat16 causes about 0.03."""

RERANKING_TOLERANCE: Final = 0.03
"""Difference of P(yes). Rounding in bfloat16 causes up to about 0.02 where the model is undecided."""

_FIT: Final = 0.1
"""Share of the tolerance that a fit of scaled scores may leave. Chosen, not tuned."""


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison.

    Attributes:
        difference: largest distance from the right numbers; None if there was nothing to compare.
        findings: what is wrong, most telling first.
    """

    difference: float | None
    findings: tuple[Finding, ...]


class EmbeddingJudge:
    """Judges vectors of fixed texts, any number of times; the right ones are computed once.

    Args:
        reference: the local model.
        short, long: the texts, in the order in which they are sent.
        query_prompt: prompt that precedes queries on a right server.
        tolerance: largest distance between unit vectors that passes.
        norms_count: whether vectors must have norm 1.
        dimensions: requested length; None for the model's own.
        twins: whether the last two texts differ only in their last sentence.
    """

    def __init__(
        self,
        reference: Reference,
        short: Sequence[Text],
        long: Sequence[Text],
        *,
        query_prompt: str,
        tolerance: float,
        norms_count: bool,
        dimensions: int | None,
        twins: bool,
    ) -> None:
        self._reference, self._short, self._long = reference, short, long
        self._query_prompt = query_prompt
        self._tolerance, self._norms_count, self._twins = tolerance, norms_count, twins
        self._right = embedding_faults.right_vectors(reference, [*short, *long])
        self._length = self._right.shape[1] if dimensions is None else dimensions
        self._hypotheses: list[Hypothesis] | None = None

    def judge(self, answered: Floats) -> Verdict:
        """Judge raw vectors, float32 (n, d)."""
        bad = not_finite(answered)
        if bad is not None:
            return Verdict(None, (bad,))
        form = list(self._form(answered))
        if answered.shape[1] > self._right.shape[1]:
            return Verdict(None, tuple(form))
        vectors = unit(answered)
        right = unit(self._right[:, : answered.shape[1]])
        n = len(self._short)
        found = diagnose(
            vectors[:n],
            right[:n],
            lambda: self._faulty(answered.shape[1]),
            tolerance=self._tolerance,
            measure="cosine",
        )
        if _is_unexplained(found):
            found = out_of_order(vectors, right, self._tolerance) or found
        if not found:
            found = self._limit(vectors[n:], right[n:])
        return Verdict(float(distances(vectors, right).max()), (*found, *form))

    def _form(self, answered: Floats) -> Iterator[Finding]:
        norms = np.linalg.norm(answered, axis=1)
        if self._norms_count and np.abs(norms - 1).max() > NORM_TOLERANCE:
            yield finding("not-normalised", f"their lengths are {norms.min():.4g} to {norms.max():.4g}")
        if answered.shape[1] != self._length:
            yield finding("wrong-dimensions", f"{answered.shape[1]} numbers where {self._length} are right")

    def _faulty(self, length: int) -> list[Hypothesis]:
        if self._hypotheses is None:
            self._hypotheses = embedding_faults.embedding_hypotheses(
                self._reference, self._short, self._query_prompt
            )
        return [Hypothesis(h.faults, unit(h.predicted[:, :length])) for h in self._hypotheses if h.faults]

    def _limit(self, vectors: Floats, right: Floats) -> list[Finding]:
        if not is_off(vectors, right):
            return []
        limits = [
            (f"at about {limit} tokens", unit(predicted[:, : vectors.shape[1]]))
            for limit, predicted in embedding_faults.truncations(
                self._reference, self._long, self._right[len(self._short) :]
            )
        ]
        found = diagnose_limit(vectors, right, limits, tolerance=self._tolerance)
        return found or (lost_end(vectors[-2:], right[-2:]) if self._twins else [])


class RerankingJudge:
    """Judges scores of fixed pairs, any number of times; the right ones are computed once.

    Args:
        reference: the local model.
        short, long: the pairs, in the order in which they are sent.
        instruction: task sentence of right prompts.
        tolerance: largest difference of P(yes) that passes.
    """

    def __init__(
        self,
        reference: Reference,
        short: Sequence[Pair],
        long: Sequence[Pair],
        *,
        instruction: str,
        tolerance: float,
    ) -> None:
        self._reference, self._short, self._long = reference, short, long
        self._instruction, self._tolerance = instruction, tolerance
        self._right = reranking_faults.right_scores(reference, [*short, *long], instruction)
        self._hypotheses: list[Hypothesis] | None = None

    def judge(self, answered: Floats) -> Verdict:
        """Judge raw scores, float32 (n,)."""
        bad = not_finite(answered)
        if bad is not None:
            return Verdict(None, (bad,))
        n = len(self._short)
        found = diagnose(
            answered[:n], self._right[:n], self._faulty, tolerance=self._tolerance, measure="score"
        )
        if _is_unexplained(found):
            found = (
                self._scaled(answered[:n])
                or out_of_order(answered, self._right, self._tolerance)
                or [_with_range(found[0], answered)]
            )
        if not found:
            found = self._limit(answered[n:], self._right[n:])
        return Verdict(float(distances(answered, self._right).max()), tuple(found))

    def _faulty(self) -> list[Hypothesis]:
        if self._hypotheses is None:
            self._hypotheses = reranking_faults.reranking_hypotheses(
                self._reference, self._short, self._instruction
            )
        return [hypothesis for hypothesis in self._hypotheses if hypothesis.faults]

    def _scaled(self, answered: Floats) -> list[Finding]:
        """Find scaled or shifted log-odds. Two free parameters always fit to a degree, so the bar is high.

        What is no probability is fitted by none.
        """
        factor, shift, predicted = reranking_faults.scaling(answered, self._right[: len(answered)])
        if distances(answered, predicted).max() > self._tolerance * _FIT:
            return []
        return [finding("scaled", f"right log-odds times {factor:.3g} plus {shift:.3g} give the answers")]

    def _limit(self, answered: Floats, right: Floats) -> list[Finding]:
        if not is_off(answered, right):
            return []
        limits = [
            (f"at about {limit} tokens, the {what}'s end being lost", scores)
            for limit, what, scores in reranking_faults.truncations(
                self._reference, self._long, self._instruction, self._right[len(self._short) :]
            )
        ]
        return diagnose_limit(answered, right, limits, tolerance=self._tolerance)


def _is_unexplained(found: list[Finding]) -> bool:
    return [one.fault for one in found] == ["unexplained"]


def _with_range(unexplained: Finding, answered: Floats) -> Finding:
    """Return the finding with a guess at what numbers outside of 0 to 1 are."""
    if answered.min() >= 0 and answered.max() <= 1:
        return unexplained
    may_be = "cosines: does it run an embedding model?" if np.abs(answered).max() <= 1 else "log-odds"
    seen = f"answers run from {answered.min():.3g} to {answered.max():.3g}, no probabilities but maybe {may_be}"
    return Finding("unexplained", f"{unexplained.what}; {seen}", unexplained.fix)
