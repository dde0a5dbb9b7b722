"""Token ids in, pooled values out: vLLM's two interfaces behind one.

Rerankers return log-odds: `use_activation=False` leaves out the sigmoid. Embedding models keep the default:
whether vLLM normalises depends on the checkpoint's files, the name of the argument for it on the release, and
the core normalises anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.backends.event_loop import LoopThread
from qwen3_rag.backends.vllm import lifecycle
from qwen3_rag.errors import BackendError
from qwen3_rag.models import ModelKind


@dataclass(frozen=True)
class Pooled:
    """vLLM's result for one prompt.

    Attributes:
        values: float32; the hidden state, normalised or not, shape (hidden_size,), or the log-odds,
            shape (1,).
        cached: tokens of the prompt that were found in the prefix cache.
    """

    values: NDArray[np.float32]
    cached: int


class PoolingEngine(Protocol):
    """A started vLLM engine."""

    def pool(self, prompts: Sequence[list[int]]) -> list[Pooled]:
        """Run prompts, given as token ids, and return their results in order.

        Raises:
            BackendError: vLLM refused a prompt. Otherwise whatever vLLM raises.
        """
        ...

    def stop(self) -> None:
        """Stop it; see `lifecycle.stop`."""
        ...


class OfflineEngine:
    """`vllm.LLM`.

    Args:
        kind: which of its methods to call.
        arguments: for its constructor.
    """

    def __init__(self, kind: ModelKind, arguments: Mapping[str, Any]) -> None:
        from vllm import LLM, PoolingParams, TokensPrompt

        self._kind = kind
        self._prompt = TokensPrompt
        self._params = PoolingParams() if kind == "embedding" else PoolingParams(use_activation=False)
        self._running = lifecycle.start(lambda: LLM(**arguments))

    def pool(self, prompts: Sequence[list[int]]) -> list[Pooled]:
        """See `PoolingEngine.pool`."""
        return self._running.result_of(lambda: self._pool(prompts))

    def stop(self) -> None:
        """See `PoolingEngine.stop`."""
        lifecycle.stop(self._running)

    def _pool(self, prompts: Sequence[list[int]]) -> list[Pooled]:
        llm = self._running.engine
        given = [self._prompt(prompt_token_ids=ids) for ids in prompts]
        if self._kind == "embedding":
            outputs = llm.embed(given, use_tqdm=False, pooling_params=self._params)
            return [_pooled(output, output.outputs.embedding) for output in outputs]
        outputs = llm.classify(given, use_tqdm=False, pooling_params=self._params)
        return [_pooled(output, output.outputs.probs) for output in outputs]


class ParallelEngine:
    """`AsyncLLM` on an event loop of its own, since `LLM` refuses data parallelism.

    Args:
        kind: which task to give it.
        arguments: as for `vllm.LLM`.
    """

    def __init__(self, kind: ModelKind, arguments: Mapping[str, Any]) -> None:
        from vllm import AsyncEngineArgs, AsyncLLMEngine, PoolingParams, TokensPrompt

        self._prompt = TokensPrompt
        self._params = (
            PoolingParams(task="embed")
            if kind == "embedding"
            else PoolingParams(task="classify", use_activation=False)
        )
        self._numbers = count()
        self._loop = LoopThread("qwen3-rag-vllm")

        async def make() -> Any:
            return AsyncLLMEngine.from_engine_args(AsyncEngineArgs(**arguments))

        try:
            self._running = lifecycle.start(lambda: self._loop.result_of(make()), always_apart=True)
        except BaseException:
            self._loop.close()
            raise

    def pool(self, prompts: Sequence[list[int]]) -> list[Pooled]:
        """See `PoolingEngine.pool`."""
        return self._running.result_of(lambda: self._loop.result_of(self._pool_all(prompts)))

    def stop(self) -> None:
        """See `PoolingEngine.stop`."""
        try:
            lifecycle.stop(self._running)
        finally:
            self._loop.close()

    async def _pool_all(self, prompts: Sequence[list[int]]) -> list[Pooled]:
        tasks = [asyncio.ensure_future(self._pool_one(ids)) for ids in prompts]
        try:
            return await asyncio.gather(*tasks)
        finally:  # after one that failed the others go on, and the engine computes in vain
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pool_one(self, ids: list[int]) -> Pooled:
        stream = self._running.engine.encode(
            self._prompt(prompt_token_ids=ids), self._params.clone(), f"qwen3-rag-{next(self._numbers)}"
        )
        async for output in stream:
            if output.finished:
                return _pooled(output, output.outputs.data.float())
        raise BackendError("vLLM ended a request without an answer")


def _pooled(output: Any, values: Any) -> Pooled:
    # Some releases lack these attributes, or leave them unset.
    error = getattr(output, "error", None)
    if error is not None:
        raise BackendError(f"vLLM refused a prompt: {error}")
    cached = getattr(output, "num_cached_tokens", None)
    return Pooled(np.asarray(values, dtype=np.float32).reshape(-1), 0 if cached is None else max(0, cached))
