"""Run by test_vllm_processes.py: what a script must not do when vLLM starts processes.

The process that vLLM would start, having imported itself for half a minute, is started here directly.
"""

import multiprocessing
import sys

from qwen3_rag import Embedder

if multiprocessing.current_process().name == "MainProcess":
    child = multiprocessing.get_context("spawn").Process(target=print)
    child.start()
    child.join()
    sys.exit(child.exitcode)

Embedder(sys.argv[1], backend="vllm", dtype="float32", device="cpu").load()
