"""The demo pair before its layers are trained: tokenizer, token vectors, weights that are set."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from qwen3_rag.tokenization import PromptTokenizer
from tokenizers import Tokenizer, processors
from transformers import Qwen3ForCausalLM, Qwen3Model

from training import checkpoints, static, tokenizer, transplant
from training.closing import closing_of
from training.halves import TECHNICAL
from training.matcher import start_reranker
from training.pairs import Pair

SEED: Final = 0
HIDDEN: Final = 256
HEADS: Final = 8
WIDTH: Final = HIDDEN - transplant.RESERVED
DIMENSIONS: Final = (32, 64, 128, WIDTH)
ROUNDS: Final = (60, 120, 180)
"""Steps of the rounds of the first stage; the token vectors after each are averaged, which overfits less."""


def make_embedder_start(work: Path, demo_tokenizer: Path, pairs: Sequence[Pair]) -> Path:
    """Train token vectors on pairs and build an embedder on them, unless `work` has it; return its folder."""
    folder = work / "embedder"
    if (folder / "tokenizer_config.json").exists():  # what is written last
        return folder
    made = Tokenizer.from_file(str(demo_tokenizer))
    vectors = _vectors(work, made, pairs)
    config = transplant.config(made, hidden=HIDDEN, layers=2, heads=HEADS, intermediate=64)
    embedder: Any = Qwen3Model(config)
    transplant.start_embedder(embedder, made, vectors, seed=SEED)
    embedder.save_pretrained(folder)
    checkpoints.write_small_files(folder, made, "embedding")
    return folder


def make_reranker_start(embedder: Path, pairs: Sequence[Pair], folder: Path) -> Path:
    """Build a reranker that compares as a demo embedder does; return its folder.

    Args:
        embedder: its checkpoint.
        pairs: some of them tell how its closing token attends.
        folder: for the reranker's checkpoint.
    """
    weights = checkpoints.load_weights(embedder, "embedding")
    some = random.Random(SEED).sample(list(pairs), min(256, len(pairs)))
    closing = closing_of(weights, PromptTokenizer.from_folder(embedder), some)
    made = Tokenizer.from_file(str(embedder / "tokenizer.json"))
    made.post_processor = processors.Sequence([])  # a reranker's tokenizer appends nothing
    config = transplant.config(made, hidden=HIDDEN, layers=4, heads=HEADS, intermediate=32)
    reranker: Any = Qwen3ForCausalLM(config)
    start_reranker(reranker, made, weights.state_dict(), closing, seed=SEED)
    reranker.save_pretrained(folder)
    checkpoints.write_small_files(folder, made, "reranking")
    return folder


def _vectors(work: Path, demo_tokenizer: Tokenizer, pairs: Sequence[Pair]) -> NDArray[np.float32]:
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
    return mean


def _mixed(pairs: Sequence[Pair]) -> list[Pair]:
    """Return technical pairs three times and as many general ones once."""
    technical = [pair for pair in pairs if pair.kind in TECHNICAL]
    general = [pair for pair in pairs if pair.kind not in TECHNICAL]
    return technical * 3 + random.Random(SEED).sample(general, min(len(technical), len(general)))


def make_tokenizer(path: Path, pairs: Sequence[Pair]) -> Path:
    """Train the tokenizer on pairs, unless its file is there; return the file."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tokenizer.train(pairs, seed=SEED).save(str(path), pretty=False)
    return path
