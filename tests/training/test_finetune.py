"""Fine-tuning changes a checkpoint as asked, and what it saves is what the package loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qwen3_rag import Embedder, Reranker
from safetensors.torch import load_file

from training.embedder import EmbedderSettings
from training.finetune import finetune_embedder, finetune_reranker
from training.negatives import mine
from training.pairs import Pair
from training.reranker import Candidates, RerankerSettings, train_reranker

SUBJECTS = (
    "gzip files",
    "mail servers",
    "random numbers",
    "command lines",
    "dates",
    "threads",
    "sockets",
    "logs",
)
PAIRS = [
    Pair(f"about {subject}", f"This module works with {subject} and nothing else.") for subject in SUBJECTS
]
EMBEDDER = EmbedderSettings(
    steps=12, batch_size=8, mini_batch_size=4, learning_rate=5e-3, max_tokens=64, lora_rank=4
)
RERANKER = RerankerSettings(steps=12, batch_size=4, learning_rate=5e-3, max_tokens=256, lora_rank=4)


@pytest.fixture(scope="module")
def tuned_embedder(embedding_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned-embedder")
    finetune_embedder(str(embedding_checkpoint), PAIRS, folder, EMBEDDER)
    return folder


@pytest.fixture(scope="module")
def tuned_reranker(
    reranking_checkpoint: Path, embedding_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("tuned-reranker")
    finetune_reranker(
        str(reranking_checkpoint), str(embedding_checkpoint), PAIRS, folder, RERANKER, negatives=3
    )
    return folder


def margin(folder: Path) -> float:
    """How much nearer queries are to their own passages than to the others, on average."""
    with Embedder(str(folder), dtype="float32", device="cpu") as embedder:
        queries = embedder.embed_queries([pair.query for pair in PAIRS])
        similarities = queries @ embedder.embed_documents([pair.passage for pair in PAIRS]).T
    own = np.diag(similarities)
    return float(own.mean() - (similarities.sum() - own.sum()) / (similarities.size - len(own)))


def loss(folder: Path) -> float:
    """Yes/no cross-entropy over all pairs of a query and a passage, right and wrong weighing the same."""
    with Reranker(str(folder), dtype="float32", device="cpu") as reranker:
        pairs = [(query.query, passage.passage) for query in PAIRS for passage in PAIRS]
        scores = reranker.score_pairs(pairs).reshape(len(PAIRS), len(PAIRS)).clip(1e-6, 1 - 1e-6)
    right = np.eye(len(PAIRS), dtype=bool)
    return float(-np.log(scores[right]).mean() - np.log(1 - scores[~right]).mean())


def test_tuned_embedder_tells_its_pairs_apart_better(embedding_checkpoint: Path, tuned_embedder: Path) -> None:
    assert margin(tuned_embedder) > margin(embedding_checkpoint) + 0.01


def test_tuned_reranker_loses_less_on_its_pairs(reranking_checkpoint: Path, tuned_reranker: Path) -> None:
    assert loss(tuned_reranker) < loss(reranking_checkpoint) - 0.1


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_adapters_are_merged_into_the_layout_of_the_start(kind: str, request: pytest.FixtureRequest) -> None:
    start = request.getfixturevalue("embedding_checkpoint" if kind == "embedder" else "reranking_checkpoint")
    tuned = load_file(request.getfixturevalue(f"tuned_{kind}") / "model.safetensors")
    original = load_file(start / "model.safetensors")
    assert {name: weight.shape for name, weight in tuned.items()} == {
        name: weight.shape for name, weight in original.items()
    }
    query_weights = next(name for name in original if name.endswith("q_proj.weight"))
    moved = (tuned[query_weights].float() - original[query_weights]).abs().max()
    assert moved > 1e-3


def test_mined_negatives_are_other_passages_and_the_nearest(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), dtype="float32", device="cpu") as embedder:
        mined = mine(embedder, PAIRS, negatives=2, depth=2)
        queries = embedder.embed_queries([pair.query for pair in PAIRS])
        similarities = queries @ embedder.embed_documents([pair.passage for pair in PAIRS]).T
    for row, (pair, item) in enumerate(zip(PAIRS, mined, strict=True)):
        assert item.passages[0] == pair.passage
        assert pair.passage not in item.passages[1:]
        nearest = [PAIRS[i].passage for i in np.argsort(-similarities[row])[:3]]
        assert set(item.passages[1:]) <= set(nearest)


def test_more_negatives_than_passages_is_refused(embedding_checkpoint: Path) -> None:
    with (
        Embedder(str(embedding_checkpoint), device="cpu") as embedder,
        pytest.raises(ValueError, match="8 negatives of each query need more distinct passages, got 8"),
    ):
        mine(embedder, PAIRS, negatives=8)


def test_unequal_candidates_are_refused(reranking_checkpoint: Path, tmp_path: Path) -> None:
    candidates = [Candidates("a", ("b", "c")), Candidates("a", ("b", "c", "d"))]
    with pytest.raises(ValueError, match=r"equally many candidates, at least 2; got \[2, 3\]"):
        train_reranker(
            str(reranking_checkpoint), candidates, tmp_path, RERANKER, instruct=lambda _: "Find passages"
        )
