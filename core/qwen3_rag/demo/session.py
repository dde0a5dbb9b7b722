"""Index, ask, rerank, and keep count."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from qwen3_rag.embedder import Embedder
from qwen3_rag.ranking import rank
from qwen3_rag.reranker import Reranker
from qwen3_rag.usage import Usage

QUESTIONS: Final = (
    "how do I parse command line options",
    "read a file line by line",
    "run a function in another thread",
    "compress data with gzip",
    "send an email message through a server",
    "pick a random element from a list",
)


@dataclass(frozen=True)
class Hit:
    """One retrieved passage.

    Attributes:
        passage: its place in the corpus.
        similarity: cosine of question and passage.
        score: the reranker's P(yes).
        reranked: its place after reranking, from 1.
    """

    passage: int
    similarity: float
    score: float
    reranked: int


@dataclass(frozen=True)
class Step:
    """What one step of the demo cost."""

    name: str
    usage: Usage
    seconds: float


@dataclass(frozen=True)
class Session:
    """Answers to all questions, and the steps that led to them."""

    answers: dict[str, list[Hit]]
    steps: list[Step]


def run_session(
    passages: Sequence[str],
    questions: Sequence[str],
    embedder: Embedder,
    reranker: Reranker,
    *,
    top: int = 5,
    progress: bool = False,
) -> Session:
    """Embed passages and questions, take the nearest `top` passages of each, and rerank them."""
    embedder.load()
    reranker.load()
    clock = time.perf_counter
    start = clock()
    documents, document_usage = embedder.embed(passages, role="document", progress=progress)
    indexed = clock()
    queries, query_usage = embedder.embed(questions, role="query")
    similarities = queries @ documents.T
    nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :top]
    retrieved = clock()
    pairs = [(questions[row], passages[index]) for row in range(len(questions)) for index in nearest[row]]
    scores, pair_usage = reranker.evaluate(pairs)
    end = clock()
    answers: dict[str, list[Hit]] = {}
    for row, question in enumerate(questions):
        count = nearest.shape[1]
        mine = scores[row * count : (row + 1) * count]
        places = {item.index: place for place, item in enumerate(rank(mine, [""] * count, None), 1)}
        answers[question] = [
            Hit(int(index), float(similarities[row, index]), float(mine[i]), places[i])
            for i, index in enumerate(nearest[row])
        ]
    return Session(
        answers,
        [
            Step("index passages", document_usage, indexed - start),
            Step("embed questions, search", query_usage, retrieved - indexed),
            Step("rerank", pair_usage, end - retrieved),
        ],
    )
