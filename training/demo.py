"""The demo pair from nothing: data, tokenizer, token vectors, embedder, reranker, evaluation."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from qwen3_rag import Embedder, Reranker
from tokenizers import Tokenizer, processors
from transformers import Qwen3ForCausalLM, Qwen3Model

from training import checkpoints, packages, static, tokenizer, transplant
from training.data import load_held_out, prepare
from training.evaluate import evaluate
from training.instructions import vary
from training.matcher import start_reranker
from training.negatives import mine
from training.pairs import Pair, answers_of, read_pairs
from training.reranker import Candidates, RerankerSettings, train_reranker

SEED: Final = 0
HIDDEN: Final = 256
HEADS: Final = 8
WIDTH: Final = HIDDEN - transplant.RESERVED
DIMENSIONS: Final = (32, 64, 128, WIDTH)
ROUNDS: Final = (60, 120, 180)
"""Steps of the rounds of the first stage; the token vectors after each are averaged, which overfits less."""

RERANKER_ROUNDS: Final = tuple(
    RerankerSettings(
        steps=steps, batch_size=6, learning_rate=1e-3, max_tokens=160, listwise=1.0, lora_rank=0, seed=seed
    )
    for seed, steps in enumerate((150,))
)
"""Each mines its own negatives and warms up again."""
_TECHNICAL: Final = ("debian", "docstring", "manual", "python-manual")


def make_demo_pair(work: Path, output: Path) -> None:
    """Run every stage that has not left its result in `work`, then save the pair below `output`.

    Args:
        work: for packages, pairs and stages.
        output: gets the folders `demo-embedding` and `demo-reranker`, and `report.json`.
    """
    prepare(work)
    pairs = read_pairs(work / "train.jsonl")
    demo_tokenizer = _tokenizer(work, pairs)
    vectors = _vectors(work, demo_tokenizer, pairs)
    embedding, reranking = output / "demo-embedding", output / "demo-reranker"
    _make_embedder(embedding, demo_tokenizer, vectors)
    _make_reranker(work, reranking, embedding, demo_tokenizer, vectors, pairs)
    with Embedder(str(embedding)) as embedder, Reranker(str(reranking)) as reranker:
        report = asdict(evaluate(load_held_out(work), embedder, reranker))
    missing = report["missing_packages"] = packages.missing(work / "apt")
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))
    if missing:
        print(
            f"{len(missing)} of {len(packages.ALL)} packages could not be had, so the texts are not those that "
            f"the shipped pair was trained on: {', '.join(missing)}"
        )


def _tokenizer(work: Path, pairs: Sequence[Pair]) -> Tokenizer:
    path = work / "tokenizer.json"
    if not path.exists():
        tokenizer.train(pairs, seed=SEED).save(str(path), pretty=False)
    return Tokenizer.from_file(str(path))


def _vectors(work: Path, demo_tokenizer: Tokenizer, pairs: Sequence[Pair]) -> NDArray[np.float32]:
    path = work / "vectors.npy"
    if path.exists():
        return np.asarray(np.load(path), np.float32)
    passages = [pair.passage for pair in random.Random(SEED).sample(list(pairs), min(30_000, len(pairs)))]
    vectors = static.initial_vectors(
        demo_tokenizer, static.teacher_token_vectors(demo_tokenizer), passages, WIDTH
    )
    results = []
    for number, steps in enumerate(ROUNDS):
        vectors = static.train_static(
            demo_tokenizer,
            vectors,
            _mixed(pairs),
            work / "static",
            dimensions=DIMENSIONS,
            steps=steps,
            learning_rate=0.05,
            seed=SEED + number,
        )
        results.append(np.nan_to_num(vectors))
    mean: NDArray[np.float32] = np.mean(results, axis=0, dtype=np.float32)
    np.save(path, mean)
    return mean


def _mixed(pairs: Sequence[Pair]) -> list[Pair]:
    """Return technical pairs three times and as many general ones once."""
    technical = [pair for pair in pairs if pair.kind in _TECHNICAL]
    general = [pair for pair in pairs if pair.kind not in _TECHNICAL]
    return technical * 3 + random.Random(SEED).sample(general, min(len(technical), len(general)))


def _make_embedder(folder: Path, demo_tokenizer: Tokenizer, vectors: NDArray[np.float32]) -> None:
    config = transplant.config(demo_tokenizer, hidden=HIDDEN, layers=2, heads=HEADS, intermediate=64)
    model: Any = Qwen3Model(config)
    transplant.start_embedder(model, demo_tokenizer, vectors, seed=SEED)
    model.to(torch.bfloat16).save_pretrained(folder)
    checkpoints.write_small_files(folder, demo_tokenizer, "embedding")


def _make_reranker(
    work: Path,
    folder: Path,
    embedding: Path,
    demo_tokenizer: Tokenizer,
    vectors: NDArray[np.float32],
    pairs: Sequence[Pair],
) -> None:
    config = transplant.config(demo_tokenizer, hidden=HIDDEN, layers=4, heads=HEADS, intermediate=32)
    model: Any = Qwen3ForCausalLM(config)
    start_reranker(model, demo_tokenizer, vectors, seed=SEED)
    start = work / "reranker-start"
    model.save_pretrained(start)
    plain = Tokenizer.from_str(demo_tokenizer.to_str())
    plain.post_processor = processors.Sequence([])  # a reranker's tokenizer appends nothing
    checkpoints.write_small_files(start, plain, "reranking")
    for number, settings in enumerate(RERANKER_ROUNDS, 1):
        with Embedder(str(embedding)) as embedder:
            mined = mine(embedder, _sample(pairs, settings.seed), negatives=3, depth=15, seed=settings.seed)
        trained = work / f"reranker-{number}"
        train_reranker(str(start), _with_random(mined), trained, settings, instruct=vary)
        start = trained
    shutil.copytree(start, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("trainer"))


def _sample(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    generator = random.Random(seed)
    technical = [pair for pair in pairs if pair.kind in _TECHNICAL]
    general = [pair for pair in pairs if pair.kind not in _TECHNICAL]
    return generator.sample(technical, min(9_000, len(technical))) + generator.sample(
        general, min(3_000, len(general))
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
