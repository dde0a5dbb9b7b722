"""Peers in a process of their own.

Two threads of one process that both compute, each with a team of OpenMP threads, slow each other down even
while one of them rests: with more threads than processors, teams wait asleep and no longer spinning, so that
every small operation takes longer. A query of 35 tokens took 13 ms through `Embedder`, and 19 ms after the main
thread had multiplied matrices once (two cores). So no peer is measured in a process that another one has
computed in; only what a workload loads for itself is in the main one. (Our own models share one thread; the
workload `together` measures two in a process.)
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib import import_module
from multiprocessing import get_context
from typing import Any, Final

import torch

from benchmarks.run_setup import Setup
from benchmarks.ways import Outcome, Peer, Run

_TABLES: Final = ("settings", "queries")
"""Attributes of a peer that hold its runs."""

_MOST_KEPT: Final = 2 << 30
"""Bytes of a GPU that a resting peer's allocator may keep for its next run. The others need the rest: our
batches are as large as free memory allows. With so much kept, a short run is not slowed down by allocations,
and a run that needs more takes long beside them."""

_peers: Final[list[Peer]] = []
_stack: Final = ExitStack()
"""What this process has loaded, if it is the peers'."""


def start(place: str, stack: ExitStack) -> ProcessPoolExecutor:
    """Start a process for peers. It imports their module meanwhile, which takes seconds.

    Args:
        place: module and function of the factory, "package.module:function".
        stack: ends the process.
    """
    process = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
    process.submit(_import, place)  # if that fails, `load` says so
    return process


def load(process: ProcessPoolExecutor, place: str, setup: Setup, stack: ExitStack) -> list[Peer]:
    """Load peers into their process, and return them with runs that ask it.

    Args:
        place: as in `start`.
        setup: its checkpoints must have been made.
        stack: closes the peers.

    Raises:
        Whatever the factory raises.
    """
    loaded = process.submit(_load, place, setup).result()
    stack.callback(_close_all, process)
    return [_with_runs(process, number, peer, names) for number, (peer, names) in enumerate(loaded)]


def _with_runs(process: ProcessPoolExecutor, number: int, peer: Peer, names: dict[str, list[str]]) -> Peer:
    runs = {table: {name: _asking(process, number, table, name) for name in names[table]} for table in _TABLES}
    return replace(peer, settings=runs["settings"], queries=runs["queries"])


def _asking(process: ProcessPoolExecutor, number: int, table: str, name: str) -> Run:
    def run(items: Sequence[Any]) -> Outcome:
        try:
            return process.submit(_run, number, table, name, list(items)).result()
        finally:
            # A task of its own: if the run ran out of memory, its exception held the tensors.
            process.submit(_give_back).result()

    return run


def _close_all(process: ProcessPoolExecutor) -> None:
    with suppress(BrokenProcessPool):  # it has ended before, and a run has said so
        process.submit(_close).result()


def _import(place: str) -> None:
    import_module(place.split(":")[0])


def _load(place: str, setup: Setup) -> list[tuple[Peer, dict[str, list[str]]]]:
    """Load peers into this process; return each without its runs, and their names."""
    module, function = place.split(":")
    _peers.extend(getattr(import_module(module), function)(setup, _stack))
    return [
        (replace(peer, settings={}, queries={}), {table: list(getattr(peer, table)) for table in _TABLES})
        for peer in _peers
    ]


def _run(number: int, table: str, name: str, items: Sequence[Any]) -> Outcome:
    run: Run = getattr(_peers[number], table)[name]
    return run(items)


def _give_back() -> None:
    """Return to the GPU what the allocator keeps, if that is much."""
    kept = (
        torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)
        for gpu in range(torch.cuda.device_count())
    )
    if sum(kept) > _MOST_KEPT:
        torch.cuda.empty_cache()


def _close() -> None:
    _stack.close()
