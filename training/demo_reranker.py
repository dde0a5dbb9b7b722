"""The demo reranker's layers, trained over the token vectors of half of the pairs on the other half."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qwen3_rag import Embedder

from training.halves import TECHNICAL, halves
from training.instructions import vary
from training.negatives import mine
from training.pairs import Pair, answers_of
from training.reranker import Candidates, RerankerSettings, train_reranker
from training.starts import SEED, make_start, make_tokenizer

RERANKER: Final = RerankerSettings(
    steps=600,
    batch_size=8,
    learning_rate=4e-4,
    max_tokens=192,
    listwise=1.0,
    lora_rank=0,
    train_tokens=False,
    seed=SEED,
)
_HARD: Final = 5
"""Wrong passages of each query that are mined; two more are random."""


def make_reranker(work: Path, pairs: Sequence[Pair], folder: Path) -> None:
    """Train layers over the vectors of half of the pairs, on the other half, which these do not know.

    Wrong passages are those that the embedder which is set from the same vectors takes for answers.

    Args:
        work: for tokenizer and stages.
        pairs: to train on.
        folder: for the checkpoint.
    """
    made = make_tokenizer(work / "tokenizer.json", pairs)
    first, second = halves(pairs)
    start = make_start(work / "1", made, first)
    with Embedder(str(start.embedder)) as embedder:
        mined = mine(embedder, _sample(second), negatives=_HARD, seed=SEED)
    train_reranker(str(start.reranker), _with_random(mined), folder, RERANKER, instruct=vary)
    shutil.rmtree(folder / "trainer", ignore_errors=True)


def _sample(pairs: Sequence[Pair]) -> list[Pair]:
    generator = random.Random(SEED)
    technical = [pair for pair in pairs if pair.kind in TECHNICAL]
    general = [pair for pair in pairs if pair.kind not in TECHNICAL]
    return generator.sample(technical, min(24_000, len(technical))) + generator.sample(
        general, min(8_000, len(general))
    )


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
