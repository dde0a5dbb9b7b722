"""What adapters cost over the core, and the core over its backend.

A model's own time varies by more than an adapter takes, so each way is timed with the model's first answer
standing in for its runs, and the whole with the model only through the core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from qwen3_rag import Embedder
from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.component import Component
from qwen3_rag.tokens import Prompt

from benchmarks.peers import ours
from benchmarks.texts import QUERY, uniform
from benchmarks.timing import medians
from benchmarks.workloads import Bench, Result

Ways = Mapping[str, Callable[[], Any]]
_CALLS_PER_ROUND: Final = 10
"""Of one query, which takes a fiftieth of 100 passages."""


def overhead(bench: Bench) -> Result:
    """100 passages of 70 tokens embedded and reranked, through the core and each framework's adapter."""
    try:
        from benchmarks.workloads import adapters
    except ImportError as missing:
        return Result({"skipped": str(missing)})
    passages = uniform(100, 70)
    rounds = bench.sizes.rounds
    with ExitStack() as stack:
        embedder, reranker = ours.embedder(bench.setup, stack), ours.reranker(bench.setup, stack)
        jobs: dict[str, tuple[Component, Ways, int]] = {
            "embed 100 passages": (embedder, adapters.embedding_ways(embedder, passages), rounds),
            "rerank 100 passages": (reranker, adapters.reranking_ways(reranker, passages), rounds),
            "embed one query": (embedder, _lone_call_ways(embedder), _CALLS_PER_ROUND * rounds),
        }
        for _, ways, _ in jobs.values():
            results = [np.asarray(way(), np.float32) for way in ways.values()]
            for result in results[1:]:
                np.testing.assert_array_equal(result, results[0])
        return Result({name: _measure(*job) for name, job in jobs.items()})


def _lone_call_ways(embedder: Embedder) -> Ways:
    return {"core": lambda: embedder.embed_queries([QUERY])}


def _measure(component: Component, ways: Ways, rounds: int) -> dict[str, Any]:
    """Time the ways of one job, the first of which is the core.

    Returns:
        Median seconds of the core with the model, of each way without, and what each of the others
        adds to the core as a share of the former.
    """
    core = next(iter(ways))
    whole = medians({core: ways[core]}, rounds)[core]
    with _model_left_out(component):
        rest = medians(ways, rounds)
    return {
        "seconds": whole,
        "seconds_without_the_model": rest,
        "added_to_the_core": {name: (rest[name] - rest[core]) / whole for name in ways if name != core},
    }


@contextmanager
def _model_left_out(component: Component) -> Iterator[None]:
    """Answer every run with the first run's values, which must be for as many prompts."""
    backend = component.load().backend
    assert backend is not None
    run, answers = backend.run, dict[int, BackendOutput]()

    def remembered(prompts: Sequence[Prompt]) -> BackendOutput:
        if len(prompts) not in answers:
            answers[len(prompts)] = run(prompts)
        return answers[len(prompts)]

    with patch.object(backend, "run", remembered):
        yield
