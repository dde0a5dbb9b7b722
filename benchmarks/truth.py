"""The right answers, which all ways are compared with before they are timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from qwen3_rag.models import ModelKind

from benchmarks.parity import Truth, noise
from benchmarks.peers import snippets
from benchmarks.run_setup import Setup
from benchmarks.ways import Floats

_MOST_OF_A_GPU: Final = 1 / 16
"""Of its memory. Weights that take more wait on the host for the next check: the peers, all loaded, need
the room, and our batches are as large as free memory allows. On an H200 those of 0.6B stay; of 8B, 30 GB in
float32 and 15 in bfloat16 do not."""


def truth_of(kind: ModelKind, setup: Setup) -> Callable[[Sequence[Any]], Truth]:
    """The published snippets with one text at a time, plain forward passes without padding: in float32, and in
    the element type of the run."""
    exact = _snippet(kind, replace(setup, dtype=torch.float32))
    rounded = exact if setup.dtype == torch.float32 else _snippet(kind, setup)

    def truth(items: Sequence[Any]) -> Truth:
        values = exact(items)
        return Truth(values, noise(kind, rounded(items), values, setup.dtype))

    return truth


def _snippet(kind: ModelKind, setup: Setup) -> Callable[[Sequence[Any]], Floats]:
    setup.checkpoint(kind)  # by the device, if it is not there yet
    on_host = replace(setup, device=torch.device("cpu"))
    snippet: snippets.EmbeddingSnippet | snippets.RerankingSnippet
    if kind == "embedding":
        snippet = snippets.EmbeddingSnippet(on_host)
        run = snippets.in_batches(snippet.embed, 1)
    else:
        snippet = snippets.RerankingSnippet(on_host)
        run = snippets.in_batches(partial(snippet.score, all_positions=False), 1)
    model = snippet.model
    between = _place_between_checks(model, setup.device)
    model.to(between)

    def answers(items: Sequence[Any]) -> Floats:
        try:
            model.to(setup.device)
            return run(items)
        finally:
            model.to(between)
            torch.cuda.empty_cache()

    return answers


def _place_between_checks(model: torch.nn.Module, device: torch.device) -> torch.device:
    if device.type != "cuda":
        return device
    _, total = torch.cuda.mem_get_info(device)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return torch.device("cpu") if weights > _MOST_OF_A_GPU * total else device
