"""The demo pair from nothing: data, tokenizer, token vectors, embedder, reranker, evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from qwen3_rag import Embedder, Reranker

from training import packages
from training.data import load_held_out, prepare
from training.demo_reranker import make_reranker
from training.embedder import EmbedderSettings, train_embedder
from training.evaluate import evaluate
from training.halves import TECHNICAL, Mean, average, beside_each_other, halves
from training.instructions import vary
from training.negatives import mine
from training.pairs import Pair, read_pairs
from training.starts import DIMENSIONS, SEED, make_embedder_start, make_tokenizer

EMBEDDER: Final = EmbedderSettings(
    steps=400,
    batch_size=128,
    mini_batch_size=128,
    learning_rate=1e-3,
    dimensions=DIMENSIONS[:-1],
    max_tokens=160,
    lora_rank=0,
    train_tokens=False,
    negatives=2,
    seed=SEED,
)
EMBEDDER_MEAN: Final = Mean(layers=0.8, tables=0.67)
"""Best of ten on the held-out queries that are not the report's; docs/training-log.md has them all."""
_MINED: Final = 8
"""Wrong passages of each query, of which each step draws."""


def make_demo_pair(work: Path, output: Path) -> None:
    """Run every stage that has not left its result in `work`, then save the pair below `output`.

    Args:
        work: for packages, pairs and stages.
        output: gets the folders `demo-embedding` and `demo-reranker`, and `report.json`.
    """
    prepare(work)
    own, more = read_pairs(work / "train.jsonl"), read_pairs(work / "train_libraries.jsonl")
    pairs = [*own, *more]
    embedder = output / "demo-embedding"
    trained = make_embedder(work, pairs, embedder)
    make_reranker(work, pairs, embedder, trained, output / "demo-reranker")
    report = make_report(work, output / "demo-embedding", output / "demo-reranker")
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))
    if missing := report["missing_packages"]:
        print(
            f"{len(missing)} of {len(packages.ALL)} packages could not be had, so the texts are not those that "
            f"the shipped pair was trained on: {', '.join(missing)}"
        )


def make_report(work: Path, embedding: Path, reranking: Path) -> dict[str, Any]:
    """Return a pair's figures on the held-out task, and the packages that its texts lack."""
    with Embedder(str(embedding)) as embedder, Reranker(str(reranking)) as reranker:
        report = asdict(evaluate(load_held_out(work), embedder, reranker))
    return {**report, "missing_packages": packages.missing(work / "apt")}


def make_embedder(work: Path, pairs: Sequence[Pair], folder: Path) -> list[Path]:
    """Train layers over each half's vectors on the pairs of the other half, and save the mean.

    Args:
        work: for tokenizer and stages.
        pairs: to train on.
        folder: for the checkpoint.

    Returns:
        The two trained checkpoints, that whose vectors know the first half first.
    """
    made = make_tokenizer(work / "tokenizer.json", pairs)
    first, second = halves(pairs)
    jobs = [(work / name, made, some) for name, some in (("1", first), ("2", second), ("whole", pairs))]
    first_start, second_start, whole = beside_each_other(make_embedder_start, jobs)
    trained = beside_each_other(train_embedder_layers, [(first_start, second), (second_start, first)])
    average(whole, trained, folder, "embedding", EMBEDDER_MEAN)
    return trained


def train_embedder_layers(start: Path, pairs: Sequence[Pair]) -> Path:
    """Train the layers of `start` on pairs that its vectors do not know, unless that is done.

    Returns:
        The trained checkpoint's folder.
    """
    trained = start.with_name("embedder-trained")
    if (trained / "tokenizer_config.json").exists():  # written after the weights
        return trained
    technical = [pair for pair in pairs if pair.kind in TECHNICAL]
    with Embedder(str(start)) as embedder:
        mined = mine(embedder, technical, negatives=_MINED, depth=30, seed=SEED)
    wrong = {pair: found.passages[1:] for pair, found in zip(technical, mined, strict=True)}
    train_embedder(str(start), technical, trained, EMBEDDER, instruct=vary, mined=wrong)
    return trained
