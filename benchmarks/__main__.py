"""Measures this package beside its peers on this machine.

    python -m benchmarks [--workloads bulk,rerank] [--peers vllm,snippet] [--json FILE] ...
    python -m benchmarks plot [FILE ...]
    python -m benchmarks gpu [--size 0.6B,4B,8B] [--folder FOLDER] ...

From the root of the repository; benchmarks/README.md says what to install and what the numbers mean.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is local; a peer may not wait for a network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from qwen3_rag.backends.device.choice import choose_device, choose_dtype

from benchmarks import gpu, peers, tables
from benchmarks.arguments import chosen_of
from benchmarks.run_setup import Setup
from benchmarks.runner import BY_DEFAULT, WORKLOADS, run
from benchmarks.workloads import Sizes

_CPU_LAYERS: Final = 8


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["plot"]:
        from benchmarks import plot  # matplotlib, which no measurement needs

        plot.main(arguments[1:])
    elif arguments[:1] == ["gpu"]:
        gpu.main(arguments[1:])
    else:
        _measure(_parser().parse_args(arguments))


def _measure(given: argparse.Namespace) -> None:
    device = choose_device(given.device)
    dtype = choose_dtype(given.dtype, device)
    layers = given.layers if given.layers is not None or device.type != "cpu" else _CPU_LAYERS

    with tempfile.TemporaryDirectory(prefix="qwen3-rag-benchmarks-") as folder:
        setup = Setup(given.size, layers, device, dtype, Path(folder), given.vllm_python)
        sizes = Sizes(
            rounds=given.rounds,
            texts=given.texts,
            uniform=given.uniform,
            latency=given.latency,
            concurrent=given.concurrent,
            passages=given.passages,
            many=given.many,
            shallow=given.shallow,
        )
        results = run(
            setup, sizes, given.workloads, given.peers, given.seconds_per_way, tables.reporter(given.json)
        )
    for line in results["skipped"]:
        print(f"skipped: {line}")
    if failed := tables.failures(results):
        sys.exit(f"failed: {', '.join(failed)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--workloads",
        type=chosen_of(WORKLOADS),
        default=BY_DEFAULT,
        help=f"of {', '.join(WORKLOADS)}; default: {', '.join(BY_DEFAULT)}",
    )
    add("--peers", type=chosen_of(peers.NAMES), default=peers.NAMES, help=f"of {', '.join(peers.NAMES)}")
    add("--size", choices=["0.6B", "4B", "8B"], default="0.6B", help="published widths of the checkpoints")
    add("--layers", type=int, help=f"default: {_CPU_LAYERS} on a CPU, else as published")
    add("--device", help="cpu, cuda, cuda:1; default: the best there is")
    add("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    add("--rounds", type=int, default=5)
    add("--seconds-per-way", type=float, default=60.0, help="slower ways have fewer rounds, at least one")
    add("--texts", type=int, default=48, help="of mixed lengths")
    add("--uniform", type=int, default=8, help="texts of 512 tokens")
    add("--latency", type=int, default=30, help="queries one at a time")
    add("--concurrent", type=int, default=100, help="queries at once")
    add("--passages", type=int, default=100, help="of one query")
    add("--many", type=int, default=50, help="queries with 20 passages each")
    add("--shallow", type=int, default=2, help="layers of the checkpoint for memory and the 32K document")
    add("--vllm-python", type=Path, help="interpreter of an environment that has vLLM")
    add("--json", type=Path, help="write the results to this file, after each workload")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
