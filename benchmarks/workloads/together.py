"""An embedder and a reranker in one process, as in a program that retrieves and then reranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from typing import Any, Final

import numpy as np

from benchmarks import own_process, texts
from benchmarks.comparing import awake
from benchmarks.run_setup import Setup
from benchmarks.timing import in_turn, summary
from benchmarks.ways import OURS, Outcome, Peer, Run
from benchmarks.workloads import Bench, Result

_MODULES: Final = {
    OURS: "benchmarks.peers.ours",
    "Sentence Transformers": "benchmarks.peers.sentence_transformers",
}
_QUERIES: Final = 8
"""Of a round, one after another: one is too short to time."""
_SAME: Final = 1e-3
"""Most that numbers of vectors and P(yes) may change with the other model there."""

Pair = tuple[str, str]


def ours(setup: Setup, stack: ExitStack) -> list[Peer]:
    """`Embedder` and `Reranker`."""
    return _both(OURS, setup, stack)


def sentence_transformers(setup: Setup, stack: ExitStack) -> list[Peer]:
    """`SentenceTransformer` and `CrossEncoder`."""
    return _both("Sentence Transformers", setup, stack)


_BOTH: Final[dict[str, Callable[[Setup, ExitStack], list[Peer]]]] = {
    OURS: ours,
    "Sentence Transformers": sentence_transformers,
}


def together(bench: Bench) -> Result:
    """Queries and passages, each model alone in a process and both in one: what the other one costs."""
    queries, passages = texts.queries(_QUERIES), texts.pairs(1, bench.sizes.passages)
    for kind in ("embedding", "reranking"):
        bench.setup.checkpoint(kind)  # for all processes
    ways: list[dict[str, Any]] = []
    skipped: list[str] = []
    for name in _BOTH:
        try:
            import_module(_MODULES[name])
        except ImportError as missing:
            skipped.append(f"{name}: {missing}")
        else:
            ways += _compare(bench, name, queries, passages)
    return Result({"queries": _QUERIES, "documents": len(passages), "ways": ways, "skipped": skipped})


def _compare(
    bench: Bench, name: str, queries: Sequence[str], passages: Sequence[Pair]
) -> Iterator[dict[str, Any]]:
    """Yield each job of a program, alone and beside the other model."""
    place, both = _MODULES[name], _BOTH[name]
    with ExitStack() as stack:
        (embedder,) = _load(f"{place}:embedding", bench.setup, stack)[:1]
        (reranker,) = _load(f"{place}:reranking", bench.setup, stack)[:1]
        beside = _load(f"{both.__module__}:{both.__name__}", bench.setup, stack)
        calls = {
            f"{job}, {where}": call
            for where, peers in (("alone", (embedder, reranker)), ("beside the other", beside))
            for job, call in _jobs(*peers, queries, passages).items()
        }
        seconds, first = in_turn(calls, dict.fromkeys(calls, bench.sizes.rounds), float("inf"))
    for way, own in seconds.items():
        alone = f"{way.partition(',')[0]}, alone"
        np.testing.assert_allclose(first[way].values, first[alone].values, atol=_SAME)
        yield {"peer": name, "setting": way, **summary(own, seconds[alone])}


def _load(place: str, setup: Setup, stack: ExitStack) -> list[Peer]:
    return own_process.load(own_process.start(place, stack), place, setup, stack)


def _both(name: str, setup: Setup, stack: ExitStack) -> list[Peer]:
    module = import_module(_MODULES[name])
    return [module.embedding(setup, stack)[0], module.reranking(setup, stack)[0]]


def _jobs(
    embedder: Peer, reranker: Peer, queries: Sequence[str], passages: Sequence[Pair]
) -> dict[str, Callable[[], Outcome]]:
    query, rerank = next(iter(embedder.queries.values())), reranker.settings[reranker.first]
    return {
        f"{len(queries)} queries": partial(awake, partial(_one_by_one, query), queries),
        f"{len(passages)} passages": partial(awake, rerank, passages),
    }


def _one_by_one(run: Run, queries: Sequence[str]) -> Outcome:
    outcomes = [run([query]) for query in queries]
    return Outcome(np.concatenate([each.values for each in outcomes]), sum(each.seconds for each in outcomes))
