"""Memory that runs out halves batches, and is an error only for a text that does not fit alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qwen3_rag import Embedder, OutOfMemoryError
from qwen3_rag.backends.device.memory import TokenBudget

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


def running_out_of_memory(component: Any, most: int) -> list[int]:
    """Make a loaded backend fail on batches of more than `most` tokens; return the sizes it computes."""
    backend, computed = component.load().backend, []
    forward = backend._forward

    def limited(batch: Any, prefix: Any, past: Any) -> Any:
        if len(batch.token_ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        computed.append(len(batch.token_ids) - (0 if past is None else len(past)))
        return forward(batch, prefix, past)

    backend._forward = limited
    return computed


def test_out_of_memory_halves_batches_and_loses_nothing(embedding_checkpoint: Path) -> None:
    texts = [f"text {i} " * (1 + i % 9) for i in range(60)]
    expected = Embedder(str(embedding_checkpoint), **OPTIONS).embed_documents(texts)
    embedder = Embedder(str(embedding_checkpoint), token_budget=5000, **OPTIONS)
    computed = running_out_of_memory(embedder, 100)
    np.testing.assert_allclose(embedder.embed_documents(texts), expected, atol=1e-5)
    assert max(computed) <= 100
    assert embedder.usage.computed_tokens == sum(computed)


def test_a_text_that_fits_nowhere_is_a_clear_error_and_others_go_on(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), token_budget=5000, **OPTIONS)
    running_out_of_memory(embedder, 50)
    with pytest.raises(OutOfMemoryError, match="alone does not fit"):
        embedder.embed_documents(["word " * 100] * 3)
    with pytest.raises(OutOfMemoryError, match=r"text 1 \(102 tokens\) alone does not fit"):
        embedder.embed_documents(["a", "word " * 100])
    assert embedder.embed_documents(["a"]).shape == (1, 64)


def test_a_real_memory_limit_halves_batches_and_changes_nothing(embedding_checkpoint: Path) -> None:
    """The process may take 16 MB more than it has; one batch of everything needs several times that.

    oneDNN's kernels are made before: where one does not fit, it makes no more in that thread.
    """
    program = """
import resource, sys
import numpy as np
from qwen3_rag import Embedder
from qwen3_rag.backends.transformers.packed_linear import padded_row_count
texts = [f"text {i} " + "word " * 400 for i in range(160)]
options = {"dtype": "float32", "device": "cpu"}
expected = Embedder(sys.argv[1], **options).embed_documents(texts)
embedder = Embedder(sys.argv[1], token_budget=10**9, **options).load()
for rows in sorted({padded_row_count(rows) for rows in range(1, 2049)}):
    embedder.embed_documents([" word" * (rows - 1)])
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + (16 << 20), -1))
np.testing.assert_allclose(embedder.embed_documents(texts), expected, atol=1e-5)
print(embedder.backend.token_budget)
"""
    command = [sys.executable, "-c", program, str(embedding_checkpoint)]
    # What glibc keeps of freed memory would be more room than the limit leaves.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert 1 <= int(run.stdout) < 10**9


def test_the_token_budget_follows_free_memory_and_recovers() -> None:
    free, seconds = 1000, 0.0
    budget = TokenBudget(lambda: free, lambda: seconds)
    assert budget.now() == 1000
    free = 700
    assert budget.now() == 1000
    seconds = 1.0
    assert budget.now() == 700
    budget.ran_out(600)
    assert budget.now() == 300
    for _ in range(64):
        budget.succeeded()
    assert budget.now() == 600
    for _ in range(64):
        budget.succeeded()
    free, seconds = 5000, 2.0
    assert budget.now() == 5000
    budget.ran_out(1)
    assert budget.now() == 1
