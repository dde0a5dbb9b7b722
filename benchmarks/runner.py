"""Runs the chosen workloads and puts their results beside what the machine can do."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import torch
from qwen3_rag.models import ModelKind

from benchmarks import peers
from benchmarks.checkpoints import shape
from benchmarks.comparing import Comparison
from benchmarks.floor import Floor, mean, measure_floor
from benchmarks.flops import Work
from benchmarks.machine import describe
from benchmarks.run_setup import Setup
from benchmarks.truth import truth_of
from benchmarks.ways import OURS, failure
from benchmarks.workloads import Bench, PeerBench, Result, Sizes, bulk, options, reranking, single
from benchmarks.workloads.memory import long_document, memory
from benchmarks.workloads.overhead import overhead
from benchmarks.workloads.profile import profile
from benchmarks.workloads.startup import startup
from benchmarks.workloads.together import together

WITH_PEERS: Final[dict[ModelKind, dict[str, Callable[[PeerBench], Result]]]] = {
    "embedding": {
        "bulk": bulk.mixed,
        "uniform": bulk.uniform,
        "query": single.latency,
        "concurrent": single.concurrent,
        "lengths": bulk.lengths,
        "packing": options.packing,
        "graphs": options.graphs,
    },
    "reranking": {
        "rerank": reranking.one_query,
        "rerank-many": reranking.many_queries,
        "documents": reranking.documents,
        "sharing": options.sharing,
        "sharing-long": options.sharing_long,
    },
}
APART: Final[dict[str, Callable[[Bench], Result]]] = {
    "budget": options.budget,
    "together": together,
    "overhead": overhead,
    "memory": memory,
    "long-document": long_document,
    "startup": startup,
    "profile": profile,
}
"""Those that load what they need themselves, mostly in processes of their own."""

WORKLOADS: Final = (*WITH_PEERS["embedding"], *WITH_PEERS["reranking"], *APART)
_OF_OUR_SETTINGS: Final = ("packing", "graphs", "sharing", "sharing-long", "budget")
BY_DEFAULT: Final = tuple(name for name in WORKLOADS if name not in _OF_OUR_SETTINGS)
"""The others try settings of our own; `python -m benchmarks gpu` runs them."""


def run(
    setup: Setup,
    sizes: Sizes,
    workloads: Sequence[str],
    peer_names: Sequence[str],
    seconds_per_way: float,
    report: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Run workloads in the order in which they are listed above. One that fails does not keep the others from
    running; its results are `failed`, with the reason.

    Args:
        report: called with everything so far whenever a workload has ended.

    Returns:
        What goes into the JSON file.
    """
    model = setup.model("embedding")
    results: dict[str, Any] = {
        "what": f"{setup.size} widths, {model.layers} layers, {setup.dtype_name}, {setup.device}",
        "size": setup.size,
        "layers": model.layers,
        "dtype": setup.dtype_name,
        "device": str(setup.device),
        "sizes": asdict(sizes),
        "seconds_per_way": seconds_per_way,
        "machine": describe(),
        "skipped": [],
        "facts": {},
        "workloads": {},
    }
    judge = _Judge(setup, report, results)
    for kind, listed in WITH_PEERS.items():
        chosen = {name: workload for name, workload in listed.items() if name in workloads}
        if not chosen:
            continue
        with ExitStack() as stack:
            try:
                loaded, skipped = peers.load(kind, peer_names, setup, stack)
                comparison = Comparison(kind, truth_of(kind, setup), setup.dtype, sizes.rounds, seconds_per_way)
            except Exception as error:
                why = failure(error)
                for name, workload in chosen.items():
                    judge.keep(name, workload.__doc__, {"failed": why})
                continue
            results["skipped"] += [line for line in skipped if line not in results["skipped"]]
            results["facts"] |= {f"{peer.name}, {kind}": dict(peer.facts) for peer in loaded if peer.facts}
            bench = PeerBench(setup, sizes, comparison, loaded)
            for name, workload in chosen.items():
                judge.add(name, partial(workload, bench), workload.__doc__)
            del bench, comparison, loaded
        _give_back_memory()
    for name, workload in APART.items():
        if name in workloads:
            judge.add(name, partial(workload, Bench(setup, sizes)), workload.__doc__)
    return results


def _give_back_memory() -> None:
    """Return to the GPU what this process does not use any more; other processes need it."""
    gc.collect()
    torch.cuda.empty_cache()


class _Judge:
    """Measures the floor between workloads and adds shares of it to their results."""

    def __init__(self, setup: Setup, report: Callable[[dict[str, Any]], None], results: dict[str, Any]) -> None:
        self._setup = setup
        self._report = report
        self._results = results
        self._before: Floor | None = None

    def add(self, name: str, workload: Callable[[], Result], what: str | None) -> None:
        """Run a workload and keep its results, or why it failed."""
        try:
            data = self._judged(workload)
        except Exception as error:
            data = {"failed": failure(error)}
        self.keep(name, what, data)
        _give_back_memory()

    def keep(self, name: str, what: str | None, data: dict[str, Any]) -> None:
        """Add a workload's data to the results, and report."""
        self._results["workloads"][name] = {"what": (what or "").partition("\n")[0], **data}
        self._report(self._results)

    def _judged(self, workload: Callable[[], Result]) -> dict[str, Any]:
        """Run a workload between two measurements of the floor."""
        before = self._before or self._measure()
        started = time.perf_counter()
        result = workload()
        seconds = time.perf_counter() - started
        self._before = after = self._measure()
        floor = mean(before, after)
        for ways, work in result.shares:
            for way in ways:
                way.update(_rates(way, work, floor))
        data: dict[str, Any] = {
            "took_seconds": round(seconds, 1),
            "floor": {"before": before.as_json(), "after": after.as_json()},
            **result.data,
        }
        if result.shares:
            published = shape(self._setup.size, "embedding", None).layers
            data["ratio_at_published_depth"] = round(result.shares[0][1].factor_at(published), 3)
        if result.bytes_read is not None:
            data["least_seconds_to_read_weights"] = result.bytes_read / floor.triad
        return data

    def _measure(self) -> Floor:
        return measure_floor(self._setup.model("embedding"), self._setup.dtype, self._setup.device)


def _rates(way: dict[str, Any], work: Work, floor: Floor) -> dict[str, float]:
    """Tokens and operations per second, and the share of the matmul rate.

    `share_of_matmul` counts all layers of all tokens; `share_of_matmul_needed`, of our ways only, what
    was really computed: without most of the last layer, and shared prefixes once.
    """
    seconds = way["seconds"]
    rates = {
        "tokens_per_second": work.tokens / seconds,
        "gflops": work.full / seconds / 1e9,
        "share_of_matmul": work.full / seconds / floor.matmul,
    }
    if way["peer"] == OURS:
        rates["share_of_matmul_needed"] = work.needed / seconds / floor.matmul
    return rates
