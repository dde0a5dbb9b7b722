"""One measurement in a process of its own: time and peak memory of one call.

    python -m benchmarks.child '{"way": ..., ...}'

Started by `measure`, with a `Task` as JSON; writes the values to a file and the numbers to standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from qwen3_rag.models import ModelKind

from benchmarks import texts
from benchmarks.checkpoints import shape
from benchmarks.peak import peak_above
from benchmarks.run_setup import Setup, checkpoint_name
from benchmarks.ways import Floats, clocked

Function = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True)
class Task:
    """What to measure.

    Attributes:
        way: a name of `WAYS`.
        kind: decides, with `size` and `layers`, which checkpoint.
        folder: of the checkpoint.
        count, tokens: how many texts (or passages of one query) of how many tokens.
        batch_size: for the ways that take one.
        values: where the values go.
    """

    way: str
    kind: ModelKind
    size: str
    layers: int
    device: str
    dtype: str
    folder: str
    count: int
    tokens: int
    batch_size: int
    values: str


@dataclass(frozen=True)
class Measured:
    """What a child measured; `failed` says why it did not, and then the rest is empty."""

    seconds: float = 0.0
    peak_bytes: int = 0
    values: Floats | None = None
    failed: str | None = None


def measure(task: Task) -> Measured:
    """Run a task in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.child", json.dumps(asdict(task))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        killed = "killed, most likely for want of memory" if done.returncode < 0 else done.stderr[-300:]
        return Measured(failed=killed)
    numbers = json.loads(done.stdout.splitlines()[-1])
    return Measured(numbers["seconds"], numbers["peak_bytes"], np.load(task.values))


def _ours(task: Task, setup: Setup, stack: ExitStack) -> Function:
    from benchmarks.peers import ours

    if task.kind == "reranking":
        return ours.reranker(setup, stack).score_pairs
    return ours.embedder(setup, stack, max_tokens=max(8192, task.tokens)).embed_documents


def _snippet(task: Task, setup: Setup, _: ExitStack) -> Function:
    from benchmarks.peers.snippets import EmbeddingSnippet, RerankingSnippet, in_batches

    if task.kind == "reranking":
        score = partial(RerankingSnippet(setup).score, all_positions=True)
        return in_batches(score, task.batch_size)
    snippet = EmbeddingSnippet(setup, max_length=max(8192, task.tokens))
    return in_batches(snippet.embed, task.batch_size)


def _sentence_transformers(task: Task, setup: Setup, _: ExitStack) -> Function:
    from benchmarks.peers.sentence_transformers import load_embedding

    model = load_embedding(setup, Path(task.folder))
    return lambda given: model.encode(list(given), batch_size=task.batch_size)


WAYS: dict[str, Callable[[Task, Setup, ExitStack], Function]] = {
    "qwen3-rag": _ours,
    "published snippet": _snippet,
    "Sentence Transformers": _sentence_transformers,
}


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    model = shape(task.size, task.kind, task.layers)
    setup = Setup(
        task.size,
        task.layers,
        torch.device(task.device),
        getattr(torch, task.dtype),
        Path(task.values).parent,
        made={checkpoint_name(model): Path(task.folder)},
    )
    given: Sequence[Any] = texts.uniform(task.count, task.tokens)
    short: Sequence[Any] = texts.queries(2)
    if task.kind == "reranking":
        given, short = ([(texts.QUERY, passage) for passage in passages] for passages in (given, short))
    with ExitStack() as stack:
        run = clocked(WAYS[task.way](task, setup, stack))
        # A GPU's libraries choose kernels for the shapes, and its allocator asks for memory.
        run(given if setup.device.type == "cuda" else short)
        outcome, peak = peak_above(lambda: run(given), setup.device)
    np.save(task.values, outcome.values)
    print(json.dumps({"seconds": outcome.seconds, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
