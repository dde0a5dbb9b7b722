"""The demo pair from nothing: data, tokenizer, token vectors, embedder, reranker, evaluation."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from qwen3_rag import Embedder, Reranker
from tokenizers import Tokenizer, processors
from transformers import Qwen3ForCausalLM, Qwen3Model

from training import checkpoints, packages, static, tokenizer, transplant
from training.data import load_held_out, prepare
from training.embedder import EmbedderSettings, train_embedder
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
_MINED: Final = 8
"""Wrong passages of each query of the embedder's, of which each step draws."""
_HARD: Final = 5
"""Wrong passages of each query of the reranker's that are mined; two more are random."""
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
    first, second = halves(pairs)
    whole = _start(work / "whole", demo_tokenizer, pairs)
    half = _start(work / "half", demo_tokenizer, first)
    embedding, reranking = output / "demo-embedding", output / "demo-reranker"
    make_embedder(half, second, whole, embedding)
    make_reranker(half, second, reranking)
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


def halves(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Divide pairs by source; those of dictionaries, which have few sources, by query.

    Token vectors remember the pairs that they were trained on, which are then no task for a layer: it learns
    from the second half how to use the vectors of the first.
    """
    first: list[Pair] = []
    second: list[Pair] = []
    for pair in pairs:
        name = pair.source if pair.kind in _TECHNICAL else pair.query
        odd = hashlib.sha256(f"half {name}".encode()).digest()[0] % 2
        (second if odd else first).append(pair)
    return first, second


@dataclass(frozen=True)
class Starts:
    """Folders of checkpoints whose weights are set and not yet trained."""

    embedder: Path
    reranker: Path


def _start(work: Path, demo_tokenizer: Tokenizer, pairs: Sequence[Pair]) -> Starts:
    """Train token vectors on pairs and build both checkpoints on them, unless `work` has them."""
    starts = Starts(work / "embedder", work / "reranker")
    if (starts.reranker / "tokenizer_config.json").exists():  # what is written last
        return starts
    vectors = _vectors(work, demo_tokenizer, pairs)
    config = transplant.config(demo_tokenizer, hidden=HIDDEN, layers=2, heads=HEADS, intermediate=64)
    embedder: Any = Qwen3Model(config)
    transplant.start_embedder(embedder, demo_tokenizer, vectors, seed=SEED)
    embedder.save_pretrained(starts.embedder)
    checkpoints.write_small_files(starts.embedder, demo_tokenizer, "embedding")
    config = transplant.config(demo_tokenizer, hidden=HIDDEN, layers=4, heads=HEADS, intermediate=32)
    reranker: Any = Qwen3ForCausalLM(config)
    start_reranker(reranker, demo_tokenizer, vectors, seed=SEED)
    reranker.save_pretrained(starts.reranker)
    plain = Tokenizer.from_str(demo_tokenizer.to_str())
    plain.post_processor = processors.Sequence([])  # a reranker's tokenizer appends nothing
    checkpoints.write_small_files(starts.reranker, plain, "reranking")
    return starts


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
    technical = [pair for pair in pairs if pair.kind in _TECHNICAL]
    general = [pair for pair in pairs if pair.kind not in _TECHNICAL]
    return technical * 3 + random.Random(SEED).sample(general, min(len(technical), len(general)))


def make_embedder(half: Starts, pairs: Sequence[Pair], whole: Starts, folder: Path) -> None:
    """Train the layers of `half` on pairs that its vectors do not know, and save the mean of before and after.

    Layers go half of the way from their start to where training ends, and token vectors half of the way from
    those of `half` to those of `whole`, which have seen all pairs.
    """
    technical = [pair for pair in pairs if pair.kind in _TECHNICAL]
    with Embedder(str(half.embedder)) as embedder:
        mined = mine(embedder, technical, negatives=_MINED, depth=30, seed=SEED)
    wrong = {pair: found.passages[1:] for pair, found in zip(technical, mined, strict=True)}
    trained = half.embedder.with_name("embedder-trained")
    train_embedder(str(half.embedder), technical, trained, EMBEDDER, instruct=vary, mined=wrong)
    model, other = (checkpoints.load_weights(of, "embedding") for of in (trained, whole.embedder))
    weights = other.state_dict()  # its layers are those that `half` started with
    model.load_state_dict({name: (weight + weights[name]) / 2 for name, weight in model.state_dict().items()})
    checkpoints.save(model, folder, like=whole.embedder)


def make_reranker(half: Starts, pairs: Sequence[Pair], folder: Path) -> None:
    """Train the layers of `half` likewise; wrong passages are those that its embedder takes for answers."""
    with Embedder(str(half.embedder)) as embedder:
        mined = mine(embedder, _sample(pairs, SEED), negatives=_HARD, seed=SEED)
    train_reranker(str(half.reranker), _with_random(mined), folder, RERANKER, instruct=vary)
    shutil.rmtree(folder / "trainer", ignore_errors=True)


def _sample(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    generator = random.Random(seed)
    technical = [pair for pair in pairs if pair.kind in _TECHNICAL]
    general = [pair for pair in pairs if pair.kind not in _TECHNICAL]
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
