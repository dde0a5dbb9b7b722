"""Where our own time goes: what stands between us and the matmul rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Any, Final
from unittest.mock import patch

import torch
from qwen3_rag import Embedder
from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.backends.device import exclusive
from qwen3_rag.tokens import Prompt
from torch.profiler import ProfilerActivity

from benchmarks import texts
from benchmarks.peers import ours
from benchmarks.workloads import Bench, Result

_PARTS: Final = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::linear", "mkldnn::_linear_pointwise"),
    "attention": ("aten::_scaled_dot_product", "aten::_flash_attention"),
}
"""Beginnings of operations' names; all others are "norms, rotary embedding, gates, copies"."""
_REST: Final = "norms, rotary embedding, gates, copies"


def profile(bench: Bench) -> Result:
    """Shares of our time by kind of operation, on texts of mixed lengths and on texts of 512 tokens."""
    if bench.setup.device.type != "cpu":
        return Result({"skipped": f"times are the CPU's; the model runs on {bench.setup.device}"})
    jobs = {"bulk": texts.mixed(bench.sizes.texts), "uniform": texts.uniform(bench.sizes.uniform, 512)}
    data: dict[str, Any] = {}
    with ExitStack() as stack:
        for setting, options in ours.settings().items():
            embedder = ours.embedder(bench.setup, stack, **options)
            data[setting] = {name: _profile(bench, embedder, given) for name, given in jobs.items()}
    return Result({"shares": data})


def _profile(bench: Bench, embedder: Embedder, given: Sequence[str]) -> dict[str, float]:
    """Seconds of a call, and the share of each part in it.

    The backend is profiled on the prompts that a call gives it; what is left of the call's time is outside it:
    tokens, queue, vectors.
    """
    backend = embedder.load().backend
    assert backend is not None
    run, rounds = backend.run, list[Sequence[Prompt]]()

    def remembering(prompts: Sequence[Prompt]) -> BackendOutput:
        rounds.append(prompts)
        return run(prompts)

    with patch.object(backend, "run", remembering):
        embedder.embed_documents(given)
    whole = median(_seconds(lambda: embedder.embed_documents(given)) for _ in range(bench.sizes.rounds))
    inside = median(_seconds(lambda: [run(prompts) for prompts in rounds]) for _ in range(bench.sizes.rounds))
    # PyTorch's profiler sees the thread that starts it alone, so the computing one does.
    spent = exclusive.compute(bench.setup.device.type, partial(_spent, run, rounds))
    total = sum(spent.values())
    return {
        "seconds": whole,
        **{part: own / total * min(inside / whole, 1.0) for part, own in spent.items()},
        "outside the backend": max(1 - inside / whole, 0.0),
    }


def _spent(run: Callable[[Sequence[Prompt]], Any], rounds: Sequence[Sequence[Prompt]]) -> dict[str, float]:
    """Run rounds in this thread and return the time of each part, in microseconds."""
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as found:
        for prompts in rounds:
            run(prompts)
    spent = dict.fromkeys((*_PARTS, _REST), 0.0)
    for event in found.key_averages():
        spent[_part(event.key)] += event.self_cpu_time_total
    return spent


def _part(operation: str) -> str:
    return next((part for part, names in _PARTS.items() if operation.startswith(names)), _REST)


def _seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
