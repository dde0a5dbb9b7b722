"""The demo reranker: layers trained over what each half's embedder computes, on the pairs of the other half."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qwen3_rag import Embedder

from training.halves import TECHNICAL, add_changes, beside_each_other, halves
from training.instructions import vary
from training.negatives import mine
from training.pairs import Pair, answers_of
from training.reranker import Candidates, RerankerSettings, train_reranker
from training.starts import SEED, make_reranker_start

RERANKER: Final = RerankerSettings(
    steps=400,
    batch_size=8,
    learning_rate=2e-4,
    max_tokens=192,
    yes_no=0.0,
    listwise=1.0,
    lora_rank=0,
    kept=(
        "embed_tokens",
        "layers.0.",
        "layers.1.self_attn.",
        "layers.2.self_attn.v_proj",
        "layers.2.self_attn.o_proj",
        "layers.3.",
        "model.norm",
    ),
    seed=SEED,
)
"""Trained is how much tokens count, and small changes of what they mean; how that is compared is kept."""

_DRAWN: Final = {"debian": 9_000, "docstring": 4_500, "manual": 1_500, "python-manual": 500, "general": 2_000}
"""Pairs of each kind, of which a half has that many or fewer."""

_HARD: Final = 5
"""Wrong passages of each query that are mined; two more are random."""


def make_reranker(
    work: Path, pairs: Sequence[Pair], embedder: Path, trained: Sequence[Path], folder: Path
) -> None:
    """Train layers that go out from each half's embedder on the pairs of the other half, and save the mean.

    Args:
        work: for stages.
        pairs: to train on.
        embedder: the demo's, whose token table the reranker gets.
        trained: embedders whose token vectors know the first half of the pairs, and the second.
        folder: for the checkpoint.
    """
    first, second = halves(pairs)
    jobs = [(work / "1", trained[0], second), (work / "2", trained[1], first)]
    changed = beside_each_other(train_reranker_layers, jobs)
    start = make_reranker_start(embedder, pairs, work / "whole" / "reranker")
    add_changes(start, changed, folder, "reranking")


def train_reranker_layers(work: Path, embedder: Path, pairs: Sequence[Pair]) -> tuple[Path, Path]:
    """Train a reranker set from `embedder` on pairs that its vectors do not know, unless that is done.

    Wrong passages are those that the embedder takes for answers.

    Returns:
        The folders of the checkpoint before training and after.
    """
    start, trained = work / "reranker", work / "reranker-trained"
    if (trained / "tokenizer_config.json").exists():  # written after the weights
        return start, trained
    make_reranker_start(embedder, pairs, start)
    with Embedder(str(embedder)) as searching:
        mined = mine(searching, _sample(pairs), negatives=_HARD, seed=SEED)
    train_reranker(str(start), _with_random(mined), trained, RERANKER, instruct=vary)
    return start, trained


def _sample(pairs: Sequence[Pair]) -> list[Pair]:
    """Draw pairs in about the proportions of the demo's task: package descriptions first."""
    generator = random.Random(SEED)
    drawn: list[Pair] = []
    for kind, most in _DRAWN.items():
        some = [pair for pair in pairs if (pair.kind if pair.kind in TECHNICAL else "general") == kind]
        drawn += generator.sample(some, min(most, len(some)))
    return drawn


def _with_random(candidates: Sequence[Candidates]) -> list[Candidates]:
    """Add two passages of other queries to each, so that unlike ones get a low score too."""
    generator = random.Random(SEED)
    right = answers_of(Pair(item.query, item.passages[0]) for item in candidates)
    passages = list(dict.fromkeys(item.passages[0] for item in candidates))
    return [
        Candidates(item.query, (*item.passages, *_others(passages, right[item.query], generator)))
        for item in candidates
    ]


def _others(passages: Sequence[str], right: set[str], generator: random.Random) -> list[str]:
    """Draw two passages that are not `right`."""
    drawn = generator.sample(passages, min(len(passages), 2 + len(right)))
    return [passage for passage in drawn if passage not in right][:2]
