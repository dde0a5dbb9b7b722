"""What a pair scores, measured with the package's own `Embedder` and `Reranker`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from qwen3_rag import Embedder, Reranker
from qwen3_rag.demo.corpus import standard_library_passages
from qwen3_rag.demo.questions import EXPECTED, answers

from training.baselines import bm25
from training.data import HeldOut, load_held_out
from training.instructions import UNSEEN_INSTRUCTION
from training.metrics import area_under_curve, ndcg_at_10, ranks

RERANKED: Final = 20
"""Passages of each query that the reranker orders."""

EXAMPLE_QUERIES: Final = ("What is the capital of China?", "Explain gravity")
EXAMPLE_DOCUMENTS: Final = (
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects "
    "and is responsible for the movement of planets around the sun.",
)
"""The published model cards' example: each query belongs to the document of its place."""


@dataclass(frozen=True)
class Report:
    """Results. nDCG@10 is over the held-out task; a rerank reorders the embedder's first RERANKED.

    Attributes:
        queries, passages: size of the task.
        bm25: nDCG@10 of BM25.
        embedder, embedder_unseen: nDCG@10 with the default instruction and with one never trained on.
        embedder_at: nDCG@10 by dimensions.
        recall: share of answers among the embedder's first RERANKED.
        reranked, reranked_unseen: nDCG@10 after reranking.
        auc: chance that P(yes) of a true pair exceeds that of a random one.
        example_embedding, example_reranking: the published example; rows are queries.
        questions: of the demo's ten, how many have an expected module in the first 3 after reranking.
        missed: the other questions.
    """

    queries: int
    passages: int
    bm25: float
    embedder: float
    embedder_unseen: float
    embedder_at: dict[int, float]
    recall: float
    reranked: float
    reranked_unseen: float
    auc: float
    example_embedding: list[list[float]]
    example_reranking: list[list[float]]
    questions: int
    missed: list[str]


def evaluate(task: HeldOut, embedder: Embedder, reranker: Reranker) -> Report:
    """Measure a pair on the held-out task, the published example and the demo's questions."""
    documents = embedder.embed_documents(task.passages)
    queries = embedder.embed_queries(task.queries)
    similarities = queries @ documents.T
    unseen = embedder.embed_queries(task.queries, instruction=UNSEEN_INSTRUCTION) @ documents.T
    at = {}
    for size in (32, 64, 128, embedder.dimensions):
        cut_queries, cut_documents = _cut(queries, size), _cut(documents, size)
        at[size] = ndcg_at_10(ranks(cut_queries @ cut_documents.T, task.answers))
    places = ranks(similarities, task.answers)
    found, missed = ask_questions(embedder, reranker)
    example = embedder.embed_queries(EXAMPLE_QUERIES) @ embedder.embed_documents(EXAMPLE_DOCUMENTS).T
    return Report(
        len(task.queries),
        len(task.passages),
        ndcg_at_10(ranks(bm25(task.queries, task.passages), task.answers)),
        ndcg_at_10(places),
        ndcg_at_10(ranks(unseen, task.answers)),
        at,
        float((places < RERANKED).mean()),
        ndcg_at_10(reranked_places(task, similarities, reranker, instruction=None)),
        ndcg_at_10(reranked_places(task, similarities, reranker, instruction=UNSEEN_INSTRUCTION)),
        separation(task, reranker),
        example.round(3).tolist(),
        [reranker.score(query, EXAMPLE_DOCUMENTS).round(3).tolist() for query in EXAMPLE_QUERIES],
        found,
        missed,
    )


def reranked_places(
    task: HeldOut, similarities: NDArray[np.float32], reranker: Reranker, *, instruction: str | None
) -> NDArray[np.int64]:
    """Return each answer's place after its query's nearest RERANKED passages are reordered."""
    nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :RERANKED]
    pairs = [(query, task.passages[i]) for query, row in zip(task.queries, nearest, strict=True) for i in row]
    scores = reranker.score_pairs(pairs, instruction=instruction).reshape(nearest.shape)
    order = np.take_along_axis(nearest, np.argsort(-scores, axis=1, kind="stable"), axis=1)
    answers = np.asarray(task.answers)
    hits = order == answers[:, None]
    return np.where(hits.any(axis=1), hits.argmax(axis=1), ranks(similarities, answers))


def separation(task: HeldOut, reranker: Reranker) -> float:
    """Return the AUC of P(yes) on true against random pairs of the same queries."""
    generator = np.random.default_rng(0)
    other = generator.integers(len(task.passages), size=len(task.queries))
    true = [(q, task.passages[a]) for q, a in zip(task.queries, task.answers, strict=True)]
    random = [
        (q, task.passages[i]) for q, i, a in zip(task.queries, other, task.answers, strict=True) if i != a
    ]
    return area_under_curve(reranker.score_pairs(true), reranker.score_pairs(random))


def ask_questions(embedder: Embedder, reranker: Reranker) -> tuple[int, list[str]]:
    """Ask the demo's ten questions of the whole standard library: how many are answered, and the others."""
    passages = standard_library_passages()
    documents = embedder.embed_documents(passages)
    missed = []
    for question in EXPECTED:
        similarities = embedder.embed_queries([question]) @ documents.T
        nearest = [passages[i] for i in np.argsort(-similarities[0], kind="stable")[:RERANKED]]
        best = reranker.rerank(question, nearest, top_k=3)
        if not answers(question, [item.text for item in best]):
            missed.append(question)
    return len(EXPECTED) - len(missed), missed


def print_report(work: Path, embedder: str, reranker: str) -> None:
    """Print the report of two checkpoints as JSON."""
    with Embedder(embedder) as first, Reranker(reranker) as second:
        print(json.dumps(asdict(evaluate(load_held_out(work), first, second)), indent=2))


def _cut(vectors: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    cut = vectors[:, :size]
    return np.asarray(cut / np.linalg.norm(cut, axis=1, keepdims=True), np.float32)
