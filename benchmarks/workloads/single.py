"""Queries: one at a time, and many at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

import numpy as np
from qwen3_rag import Embedder

from benchmarks import texts
from benchmarks.checkpoints import QUERY_PROMPT
from benchmarks.comparing import awake, spaced
from benchmarks.flops import layer_bytes
from benchmarks.parity import cosines
from benchmarks.peers import ours
from benchmarks.timing import in_turn, summary
from benchmarks.ways import OURS, Floats, Outcome, Run
from benchmarks.workloads import PeerBench, Result

_PAUSE: Final = 0.25
"""Seconds before a peer's turn: a query that is not timed, and one that is. Threads look for more work for a
while, those of OpenMP up to 0.2 s, on the cores that the next peer needs: right after another process's product
a query took 20.9 ms, 10 ms later 15.3. Only on a CPU: a GPU would be idle for minutes."""

_MOST_ROUNDS: Final = 3
"""Each has as many calls as there are queries, so that it varies little."""


def latency(bench: PeerBench) -> Result:
    """One query after another, all different, peers in turn: median and 90th percentile."""
    given = texts.queries(bench.sizes.latency)
    sample = spaced(given, 8)
    expected = bench.comparison.truth([QUERY_PROMPT + query for query in sample])
    runs = {
        (peer.name, setting): run
        for peer in bench.peers
        if peer.name not in bench.comparison.wrong
        for setting, run in peer.queries.items()
        if bench.comparison.check_queries(peer, run, sample, expected)
    }
    pause = _PAUSE if bench.setup.device.type == "cpu" else 0.0
    seconds: dict[tuple[str, str], list[float]] = {way: [] for way in runs}
    for query in given:
        for way, run in runs.items():
            time.sleep(pause)
            seconds[way].append(awake(run, [query], [texts.QUERY]).seconds)
    base = next(own for (name, _), own in seconds.items() if name == OURS)
    model = bench.setup.model("embedding")
    data = {
        "queries": len(given),
        "ways": [
            {
                "peer": name,
                "setting": setting,
                "p90": float(np.quantile(own, 0.9)),
                **summary(own, base),
            }
            for (name, setting), own in seconds.items()
        ],
        "wrong": {name: why for name, why in bench.comparison.wrong.items() if "queries" in name},
    }
    return Result(data, bytes_read=layer_bytes(model, bench.setup.dtype.itemsize))


def concurrent(bench: PeerBench) -> Result:
    """Queries of as many callers at once: time, and how often the model ran."""
    given = texts.queries(bench.sizes.concurrent)
    with ExitStack() as stack:
        embedder = ours.embedder(bench.setup, stack)
        calls: dict[str, Callable[[], Outcome]] = {
            "one at a time": partial(_timed, lambda: _one_by_one(embedder, given)),
            "at once, asyncio": partial(_timed, lambda: asyncio.run(_at_once(embedder, given))),
            "at once, threads": partial(_timed, lambda: _in_threads(embedder, given)),
        }
        passes = {name: _passes(embedder, call) for name, call in calls.items()}
        for theirs in bench.only("Sentence Transformers")[:1]:
            name = "Sentence Transformers, one at a time"
            encode = next(iter(theirs.queries.values()))
            calls[name] = partial(_timed, partial(_each, encode, given))
            passes[name] = len(given)
        rounds = dict.fromkeys(calls, min(_MOST_ROUNDS, bench.sizes.rounds))
        seconds, first = in_turn(calls, rounds, bench.comparison.seconds_per_way)
    base = seconds["one at a time"]
    expected = first["one at a time"].values
    ways = []
    for name, own in seconds.items():
        ways.append(
            {
                "way": name,
                "forward_passes": passes[name],
                "least_cosine": float(cosines(first[name].values, expected).min()),
                **summary(own, base),
            }
        )
    return Result({"queries": len(given), "ways": ways})


def _passes(embedder: Embedder, call: Callable[[], Any]) -> int:
    """Rounds of the engine during a call, which also warms it up."""
    embedder.load()
    before = embedder.metrics.rounds
    call()
    return embedder.metrics.rounds - before


def _timed(work: Callable[[], Floats]) -> Outcome:
    started = time.perf_counter()
    values = work()
    return Outcome(values, time.perf_counter() - started)


def _each(run: Run, given: Sequence[str]) -> Floats:
    return np.concatenate([run([query]).values for query in given])


def _one_by_one(embedder: Embedder, given: Sequence[str]) -> Floats:
    return np.concatenate([embedder.embed_queries([query]) for query in given])


async def _at_once(embedder: Embedder, given: Sequence[str]) -> Floats:
    return np.concatenate(await asyncio.gather(*(embedder.aembed_queries([query]) for query in given)))


def _in_threads(embedder: Embedder, given: Sequence[str]) -> Floats:
    with ThreadPoolExecutor(len(given)) as pool:
        return np.concatenate(list(pool.map(lambda query: embedder.embed_queries([query]), given)))
