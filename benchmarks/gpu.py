"""Everything for one GPU: the workloads beside the peers, and our own settings against each other.

    python -m benchmarks gpu [--size 0.6B,4B,8B] [--layers N] [--folder benchmarks/results]

One JSON file per size. Not measured yet: no GPU was to be had.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qwen3_rag.backends.transformers.device import choose_device, choose_dtype

from benchmarks import tables
from benchmarks.run_setup import Setup
from benchmarks.runner import run
from benchmarks.workloads import Sizes

WORKLOADS: Final = (
    *("bulk", "uniform", "query", "concurrent", "lengths", "packing", "graphs"),
    *("rerank", "rerank-many", "documents", "sharing"),
    *("memory", "long-document", "startup", "budget"),
)
PEERS: Final = ("sentence-transformers", "snippet", "vllm")
"""Each peer holds the weights once more: 16 GB for 8B."""
SIZES: Final = Sizes(
    rounds=5, texts=2000, uniform=256, latency=200, concurrent=100, passages=100, many=50, shallow=8
)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--size", default="0.6B,4B,8B", help="published sizes, with commas between")
    parser.add_argument("--layers", type=int, help="default: as published")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="with commas between")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds-per-way", type=float, default=30.0)
    parser.add_argument("--vllm-python", type=Path, help="interpreter of an environment that has vLLM")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args(arguments)
    device = choose_device(given.device)
    for size in given.size.split(","):
        with tempfile.TemporaryDirectory(prefix="qwen3-rag-benchmarks-") as folder:
            setup = Setup(
                size, given.layers, device, choose_dtype("auto", device), Path(folder), given.vllm_python
            )
            report = tables.reporter(given.folder / f"gpu-{size}.json")
            results = run(setup, SIZES, given.workloads.split(","), PEERS, given.seconds_per_way, report)
        for line in results["skipped"]:
            print(f"{size}, skipped: {line}")
