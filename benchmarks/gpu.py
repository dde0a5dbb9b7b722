"""Everything for one GPU: the workloads beside the peers, and our own settings against each other.

    python -m benchmarks gpu [--size 0.6B,4B,8B] [--workloads bulk,query] [--folder benchmarks/results] ...

One JSON file per size, written anew whenever a workload has ended. What fails is reported, and the next one
runs; the exit status is then 1. Not measured yet: no GPU was to be had.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from qwen3_rag.backends.device.choice import choose_device, choose_dtype

from benchmarks import runner, tables
from benchmarks.arguments import chosen_of
from benchmarks.run_setup import Setup
from benchmarks.ways import failure
from benchmarks.workloads import Sizes

WORKLOADS: Final = (
    *("bulk", "uniform", "query", "concurrent", "lengths", "packing", "graphs"),
    *("rerank", "rerank-many", "documents", "sharing", "sharing-long"),
    *("budget", "memory", "long-document"),
)
"""Without `startup`: minutes of a GPU for what mostly happens on its host."""
PEERS: Final = ("sentence-transformers", "snippet", "vllm")
"""Each holds the weights once more, 15 GB for 8B, vLLM twice, and its pool besides; so do two of ours, and in
checks the truth, 45 GB. For 8B a GPU of 80 GB has no room for all."""
SIZES: Final = Sizes(
    rounds=5, texts=1000, uniform=256, latency=100, concurrent=100, passages=100, many=50, shallow=8
)
_REHEARSED: Final = Sizes(rounds=1, texts=8, uniform=2, latency=8, concurrent=4, passages=8, many=2, shallow=1)
_REHEARSED_LAYERS: Final = 2


def main(arguments: Sequence[str]) -> None:
    given = _parser().parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for size in given.size:
        try:
            results = _measure(size, given)
        except Exception as error:
            failed.append(f"{size}: {failure(error)}")
            continue
        for line in results["skipped"]:
            print(f"{size}, skipped: {line}")
        failed += [f"{size}: {name}" for name in tables.failures(results)]
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")


def _measure(size: str, given: argparse.Namespace) -> dict[str, Any]:
    device = choose_device(given.device)
    layers = _REHEARSED_LAYERS if given.rehearse and given.layers is None else given.layers
    sizes = _REHEARSED if given.rehearse else SIZES
    with tempfile.TemporaryDirectory(prefix="qwen3-rag-benchmarks-") as folder:
        setup = Setup(size, layers, device, choose_dtype("auto", device), Path(folder), given.vllm_python)
        report = tables.reporter(given.folder / f"gpu-{size}.json")
        return runner.run(setup, sizes, given.workloads, given.peers, given.seconds_per_way, report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks gpu", description=__doc__)
    add = parser.add_argument
    add("--size", type=chosen_of(["0.6B", "4B", "8B"]), default="0.6B,4B,8B", help="with commas between")
    add("--layers", type=int, help="default: as published")
    add("--workloads", type=chosen_of(runner.WORKLOADS), default=",".join(WORKLOADS), help="likewise")
    add(
        "--peers", type=chosen_of(PEERS), default=",".join(PEERS), help="likewise; none but us: an empty string"
    )
    add("--device", default="cuda")
    add("--seconds-per-way", type=float, default=10.0, help="slower ways have fewer rounds, at least one")
    add("--vllm-python", type=Path, help="interpreter of an environment that has vLLM")
    add("--folder", type=Path, default=Path(__file__).parent / "results")
    add("--rehearse", action="store_true", help="two layers and few texts: does all of it run? On a CPU too")
    return parser
