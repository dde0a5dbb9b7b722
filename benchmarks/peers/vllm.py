"""vLLM, which needs an environment of its own: a worker process with that environment's interpreter.

It gets token ids, so that its tokenisation is not counted (in its favour; some milliseconds), and the
worker's own clock is used, so that the exchange of files is not counted either.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import torch
from qwen3_rag.models import ModelKind
from transformers import AutoTokenizer

from benchmarks.checkpoints import QUERY_PROMPT
from benchmarks.peers import UnavailableError
from benchmarks.peers.snippets import rerank_token_ids
from benchmarks.run_setup import Setup
from benchmarks.ways import Outcome, Peer, Run

_CACHE_TOKENS: Final = 17 << 10
_SECONDS_TO_END: Final = 20
_LEAST_SHARE: Final = 0.01
"""Of a GPU's memory: with a cache of fixed size it says only what must be free at the start."""

_VARIANTS: Final[dict[ModelKind, dict[str, dict[str, Any]]]] = {
    "embedding": {"default": {}, "eager": {"enforce_eager": True}},
    "reranking": {"default": {}, "blocks of 32": {"block_size": 32}},
}
"""Starting an engine takes half a minute, so few are tried. Blocks of 32: on a CPU the default of 128 tokens
is longer than what the prompts of a query share, so that nothing would be computed once only."""

TokenIds = Callable[[Sequence[Any]], list[list[int]]]


def embedding(setup: Setup, stack: ExitStack) -> list[Peer]:
    """`LLM.embed`."""
    tokenizer = AutoTokenizer.from_pretrained(setup.checkpoint("embedding"))
    arguments = {"convert": "embed"}

    def documents(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(list(texts))["input_ids"]
        return ids

    def queries(texts: Sequence[str]) -> list[list[int]]:
        return documents([QUERY_PROMPT + text for text in texts])

    engines = _start(setup, "embedding", arguments, stack)
    settings = {name: engine.run(documents, empty_cache=True) for name, engine in engines.items()}
    asked = {name: engine.run(queries, empty_cache=False) for name, engine in engines.items()}
    return [Peer("vLLM", settings, "default", asked, facts=_facts(engines))]


def reranking(setup: Setup, stack: ExitStack) -> list[Peer]:
    """`LLM.classify` with the yes and no rows of the head."""
    tokenizer = AutoTokenizer.from_pretrained(setup.checkpoint("reranking"))
    overrides = {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    }
    engines = _start(setup, "reranking", {"hf_overrides": overrides}, stack)

    def prompts(pairs: Sequence[Any]) -> list[list[int]]:
        return rerank_token_ids(tokenizer, pairs)

    settings = {name: engine.run(prompts, empty_cache=True) for name, engine in engines.items()}
    return [Peer("vLLM", settings, "default", facts=_facts(engines))]


class _Engine:
    """A worker process. Its log is kept in a file, whose end an error shows."""

    def __init__(self, setup: Setup, kind: ModelKind, name: str, arguments: dict[str, Any]) -> None:
        assert setup.vllm_python is not None
        self._folder = setup.work / f"vllm-{kind}-{name.replace(' ', '-')}"
        self._folder.mkdir()
        worker = Path(__file__).parent.parent / "vllm_worker"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(setup.vllm_python), str(worker), json.dumps({"kind": kind, "arguments": arguments})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_environment(),
                start_new_session=True,  # what vLLM does to its process group at the end is not for us
            )
        self.facts = self._answer()

    @property
    def _log(self) -> Path:
        return self._folder / "log.txt"

    def run(self, token_ids: TokenIds, *, empty_cache: bool) -> Run:
        """Return a run over items of which `token_ids` makes prompts."""

        def run(items: Sequence[Any]) -> Outcome:
            ids, values = self._folder / "ids.json", self._folder / "values.npy"
            ids.write_text(json.dumps(token_ids(items)))
            asked = {"ids": str(ids), "values": str(values), "empty_cache": empty_cache}
            _open(self._process.stdin).write(json.dumps(asked) + "\n")
            _open(self._process.stdin).flush()
            seconds: float = self._answer()["seconds"]
            return Outcome(np.load(values), seconds)

        return run

    def close(self) -> None:
        """End the process: without further lines it ends by itself."""
        _open(self._process.stdin).close()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = _open(self._process.stdout).readline()
        if not line:
            self.close()
            raise UnavailableError(f"the vLLM worker ended: ...{self._log.read_text()[-600:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _start(setup: Setup, kind: ModelKind, arguments: dict[str, Any], stack: ExitStack) -> dict[str, _Engine]:
    if setup.vllm_python is None:
        raise UnavailableError("needs --vllm-python, the interpreter of an environment with vLLM")
    model = setup.model(kind)
    cache = _CACHE_TOKENS * model.layers * 2 * model.kv_heads * model.head_dim * setup.dtype.itemsize
    engines = {}
    for name, variant in _VARIANTS[kind].items():
        given = {
            "model": str(setup.checkpoint(kind)),
            "runner": "pooling",
            "dtype": setup.dtype_name,
            "max_model_len": 8192,
            "kv_cache_memory_bytes": cache,
            "gpu_memory_utilization": _LEAST_SHARE,
            "disable_log_stats": True,
            **arguments,
            **variant,
        }
        engines[name] = _Engine(setup, kind, name, given)
        stack.callback(engines[name].close)
    return engines


def _environment() -> dict[str, str]:
    threads = f"0-{torch.get_num_threads() - 1}"
    return {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", threads),
    }


def _facts(engines: dict[str, _Engine]) -> dict[str, Any]:
    return {name: engine.facts for name, engine in engines.items()}


def _open(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
