"""Ask the same questions through every framework, keep count, and compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from qwen3_rag.demo.questions import EXPECTED
from qwen3_rag.demo.searches import Found, Models, Search, make_search
from qwen3_rag.embedder import Embedder
from qwen3_rag.reranker import Reranker
from qwen3_rag.usage import Usage

QUESTIONS: Final = tuple(EXPECTED)[:6]
"""What is asked by default: as many as fit on a few screens. Chosen, not tuned."""

CANDIDATES: Final = 20
"""Passages that are retrieved for each question; the reranker orders these. Chosen, not tuned."""

_COSINE_ROUNDING: Final = 1e-6
"""Largest difference of cosines that is rounding: every framework computes cosines itself."""


@dataclass(frozen=True)
class Answer:
    """What one framework found for one question, best first.

    Attributes:
        retrieved: by cosine.
        reranked: the same passages by P(yes).
    """

    retrieved: list[Found]
    reranked: list[Found]


@dataclass(frozen=True)
class Step:
    """What one step cost, all questions together."""

    usage: Usage
    seconds: float


@dataclass(frozen=True)
class Run:
    """All questions through one framework.

    Attributes:
        framework: its name in `qwen3_rag.demo.searches`.
        release: package and version.
        answers: by question.
        steps: "index", "retrieve" and "rerank".
    """

    framework: str
    release: str
    answers: dict[str, Answer]
    steps: dict[str, Step]


@dataclass(frozen=True)
class Agreement:
    """How a run compares with the first one.

    Attributes:
        retrieved: same passages in the same order.
        reranked: same passages in the same order after reranking.
        scores: the same P(yes), bit for bit.
        cosine_difference: the largest difference of a cosine.
    """

    retrieved: bool
    reranked: bool
    scores: bool
    cosine_difference: float

    @property
    def complete(self) -> bool:
        """Whether nothing but the rounding of cosines differs."""
        return self.retrieved and self.reranked and self.scores and self.cosine_difference < _COSINE_ROUNDING


def run_session(
    passages: Sequence[str],
    questions: Sequence[str],
    frameworks: Sequence[str],
    models: Models,
    *,
    report: Callable[[str], None] = lambda _: None,
) -> list[Run]:
    """Index, retrieve and rerank through each framework, one after another.

    Args:
        passages: no two alike, since equal ones would tie.
        questions: no two alike.
        frameworks: of `qwen3_rag.demo.searches.installed_frameworks()`.
        models: loaded once; all frameworks share the weights.
        report: is told what happens next.
    """
    with (
        Embedder(models.embedding, device=models.device) as embedder,
        Reranker(models.reranking, device=models.device) as reranker,
    ):
        report("loading the models")
        # What is computed first pays for starting threads: none of the frameworks should.
        embedder.embed_queries(questions[:1])
        reranker.score(questions[0], passages[:2])
        return [_run(framework, passages, questions, models, report) for framework in frameworks]


def compare(first: Run, other: Run) -> Agreement:
    """Compare two runs over the same passages and questions."""
    pairs = [(answer, other.answers[question]) for question, answer in first.answers.items()]
    cosines = [{item.passage: item.score for item in answer.retrieved} for _, answer in pairs]
    return Agreement(
        all(_order(one.retrieved) == _order(two.retrieved) for one, two in pairs),
        all(_order(one.reranked) == _order(two.reranked) for one, two in pairs),
        all(set(one.reranked) == set(two.reranked) for one, two in pairs),
        max(
            abs(item.score - known.get(item.passage, item.score))
            for (answer, _), known in zip(pairs, cosines, strict=True)
            for item in answer.retrieved
        ),
    )


def _run(
    framework: str,
    passages: Sequence[str],
    questions: Sequence[str],
    models: Models,
    report: Callable[[str], None],
) -> Run:
    report(f"{framework}: indexing {len(passages)} passages")
    with closing(make_search(framework, models)) as search:
        start = time.perf_counter()
        steps = {"index": Step(search.index(passages), time.perf_counter() - start)}
        report(f"{framework}: asking {len(questions)} questions")
        answers = _ask(search, questions, steps)
        return Run(framework, f"{search.package} {version(search.package)}", answers, steps)


def _ask(search: Search, questions: Sequence[str], steps: dict[str, Step]) -> dict[str, Answer]:
    """Return answers by question; adds what both steps cost to `steps`."""
    retrieving, reranking = Usage(), Usage()
    clock, seconds = time.perf_counter, {"retrieve": 0.0, "rerank": 0.0}
    answers = {}
    for question in questions:
        start = clock()
        retrieved, usage = search.retrieve(question, CANDIDATES)
        between = clock()
        reranked, pairs = search.rerank(question, retrieved)
        seconds["retrieve"] += between - start
        seconds["rerank"] += clock() - between
        retrieving, reranking = retrieving + usage, reranking + pairs
        answers[question] = Answer(retrieved, reranked)
    steps["retrieve"] = Step(retrieving, seconds["retrieve"])
    steps["rerank"] = Step(reranking, seconds["rerank"])
    return answers


def _order(found: Sequence[Found]) -> list[int]:
    return [item.passage for item in found]
