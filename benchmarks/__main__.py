"""Bulk embedding and reranking beside the peers, and the share of this machine's matmul rate.

    python -m benchmarks [--layers 4] [--rounds 5] [--dtype auto] [--json FILE]

From the root of the repository, with "qwen3-rag[sentence-transformers]" and the dependency group `test`.
Checkpoints have the 0.6B widths, few layers and random weights. Every way's result is compared before it is
timed; the ways alternate within a round. A peer's best batch size is found by one run of each beforehand.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from qwen3_rag import DEFAULT_INSTRUCTION, Embedder, Reranker
from qwen3_rag.backends.transformers.device import choose_dtype

from benchmarks import peers, texts
from benchmarks.machine import describe, matmul_rate
from benchmarks.timing import compared, times
from tests.checkpoints import Qwen3Model, Shape, genuine_tokenizer, make_checkpoint

DEFAULT_BATCH: Final = 32
TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


def best_batch(make: Callable[[int], Callable[[Any], Any]], items: Sequence[Any]) -> int:
    """Return the batch size, of those tried, with which a peer is fastest."""

    def seconds(size: int) -> float:
        started = time.perf_counter()
        make(size)(items)
        return time.perf_counter() - started

    return min((*peers.SWEEP, DEFAULT_BATCH), key=seconds)


def compare(ways: dict[str, Callable[[Any], Any]], items: Any, rounds: int, tolerance: float) -> dict[str, Any]:
    """Check that all ways give what the first gives, then time them."""
    results = {name: np.asarray(way(items)) for name, way in ways.items()}
    first = next(iter(results.values()))
    for name, result in results.items():
        np.testing.assert_allclose(result, first, atol=tolerance, err_msg=name)
    return compared(times({name: lambda way=way: way(items) for name, way in ways.items()}, rounds))


def embedding(folder: Path, dtype: torch.dtype, rounds: int, rate: float, shape: Shape) -> dict[str, Any]:
    """Bulk embedding of mixed lengths and of 512 tokens each."""
    found: dict[str, Any] = {}
    theirs = peers.sentence_transformer(folder, dtype)
    with Embedder(str(folder), dtype=_name(dtype)) as embedder:
        for name, given in (("mixed lengths", texts.mixed(48)), ("512 tokens", texts.uniform(12, 510))):
            best = best_batch(lambda size: peers.embed_by(theirs, size), given)
            ways: dict[str, Any] = {
                "qwen3-rag": embedder.embed_documents,
                f"Sentence Transformers, batches of {DEFAULT_BATCH}": peers.embed_by(theirs, DEFAULT_BATCH),
                f"Sentence Transformers, best batches ({best})": peers.embed_by(theirs, best),
                "published snippet, batches of 8": peers.embed_by_snippet(folder, dtype, 8),
            }
            before = embedder.usage.computed_tokens
            embedder.embed_documents(given)
            tokens = embedder.usage.computed_tokens - before
            found[name] = compare(ways, given, rounds, TOLERANCE[dtype])
            own = found[name]["qwen3-rag"]
            own["tokens_per_second"] = tokens / own["seconds"]
            own["share_of_matmul_rate"] = tokens * _flops(shape, tokens / len(given)) / own["seconds"] / rate
    return found


def reranking(folder: Path, work: Path, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """One query and 100 passages of about 60 tokens."""
    pairs = [(texts.QUERY, passage) for passage in texts.uniform(100, 60)]
    theirs = peers.cross_encoder(folder, work, dtype)
    predict = partial(peers.score_by, theirs, DEFAULT_INSTRUCTION)
    best = best_batch(predict, pairs)
    with Reranker(str(folder), dtype=_name(dtype)) as reranker:
        ways: dict[str, Any] = {
            "qwen3-rag": reranker.score_pairs,
            f"CrossEncoder, batches of {DEFAULT_BATCH}": peers.score_by(
                theirs, DEFAULT_INSTRUCTION, DEFAULT_BATCH
            ),
            f"CrossEncoder, best batches ({best})": peers.score_by(theirs, DEFAULT_INSTRUCTION, best),
            "published snippet, batches of 8": peers.score_by_snippet(folder, dtype, 8),
        }
        return compare(ways, pairs, rounds, TOLERANCE[dtype])


def _flops(shape: Shape, length: float) -> float:
    """Multiplications and additions of one token: linear layers, and causal attention at half its square."""
    width = shape.heads * shape.head_dim
    kv_width = shape.kv_heads * shape.head_dim
    linear = shape.hidden * (2 * width + 2 * kv_width + 3 * shape.intermediate)
    return 2.0 * shape.layers * (linear + width * length)


def _name(dtype: torch.dtype) -> Any:
    return str(dtype).removeprefix("torch.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    shape = Shape(1024, arguments.layers, 16, 8, 128, 3072)
    dtype = choose_dtype(arguments.dtype, torch.device("cpu"))
    rate = matmul_rate(dtype)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        options: dict[str, Any] = {"shape": shape, "dtype": dtype}
        closing, plain = (genuine_tokenizer(appends_end_of_text=closes) for closes in (True, False))
        embedder = make_checkpoint(work / "embedding", closing, architecture=Qwen3Model, **options)
        reranker = make_checkpoint(work / "reranking", plain, **options)
        results = {
            f"embedding, {name}": result
            for name, result in embedding(embedder, dtype, arguments.rounds, rate, shape).items()
        }
        results["reranking, 1 query x 100 passages"] = reranking(reranker, work, dtype, arguments.rounds)
    report = {
        "what": f"0.6B widths, {arguments.layers} layers, {_name(dtype)}, {arguments.rounds} rounds",
        "machine": describe("torch", "transformers", "sentence-transformers"),
        "matmul_gflops": rate / 1e9,
        "results": results,
    }
    print(json.dumps(report, indent=2))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
