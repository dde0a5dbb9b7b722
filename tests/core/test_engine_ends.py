"""However a round goes, and however long a call waits: it ends, with its own error or none."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from qwen3_rag import BackendError, DeadlineExceededError, Embedder, opening
from qwen3_rag.backends.base import BackendOutput, RunAbandonedError
from qwen3_rag.engine import Engine
from qwen3_rag.tokens import Prompt
from sum_backend import POISON, SumBackend, ids, submit

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


class BackendDownError(BackendError):
    concerns_every_prompt = True


class DownBackend(SumBackend):
    def run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        super().run(prompts)
        raise BackendDownError("nobody answers")


@dataclass(frozen=True)
class GoneError(Exception):
    """Nothing of it can be set once it is made."""


class RaisingBackend(SumBackend):
    """Raises an error of any kind."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        super().run(prompts)
        raise self._error


class ForgetfulBackend(SumBackend):
    """Gives no costs."""

    def run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        return BackendOutput(super().run(prompts).values, np.zeros(0, np.int64))


class EmptyHandedBackend(SumBackend):
    """Gives no values."""

    def run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        return BackendOutput(np.zeros(0, np.float32), super().run(prompts).computed)


class PatientBackend(SumBackend):
    """Answers never, and can be stopped."""

    def run_while(self, prompts: Sequence[Prompt], is_wanted: Callable[[], bool]) -> BackendOutput:
        assert prompts
        self.running.set()
        while is_wanted():
            time.sleep(0.001)
        raise RunAbandonedError("nobody waits for it")


def merged(backend: SumBackend, tokens: Sequence[int]) -> list[BaseException | None]:
    """Submit one call per token while the backend is held up, so that they share a round; how each ended."""
    engine = Engine(lambda: backend)
    engine.load()
    backend.gate.clear()
    first = submit(engine, [ids(1)])
    assert backend.running.wait(30)
    futures = [submit(engine, [ids(token)]) for token in tokens]
    backend.gate.set()
    first.exception(30)
    ends = [future.exception(30) for future in futures]
    engine.close()
    return ends


def test_an_error_of_the_backend_itself_is_not_asked_for_once_per_call() -> None:
    backend = DownBackend()
    ends = merged(backend, range(2, 66))
    assert all(isinstance(end, BackendDownError) for end in ends)
    assert len({id(end) for end in ends}) == len(ends), "a traceback holds what one caller was about"
    assert len(backend.rounds) == 2


def test_an_error_carries_nothing_of_other_calls() -> None:
    ends = merged(SumBackend(), [POISON, 2, POISON, 3, POISON])
    assert [type(end) for end in ends] == [ArithmeticError, type(None)] * 2 + [ArithmeticError]
    assert len({id(end) for end in ends if end is not None}) == 3
    for end in ends:
        assert end is None or (end.__context__, end.__cause__) == (None, None)


@pytest.mark.parametrize("backend", [ForgetfulBackend, EmptyHandedBackend])
def test_a_backend_that_gives_too_little_is_an_error_and_nobody_waits_for_ever(
    backend: Callable[[], SumBackend],
) -> None:
    ends = merged(backend(), [2, 3, 4])
    assert all(isinstance(end, BackendError) and "a cost for each" in str(end) for end in ends)


def test_a_run_that_nobody_wanted_any_more_is_no_failure_of_the_backend() -> None:
    backend = PatientBackend()
    engine = Engine(lambda: backend)
    future = submit(engine, [ids(1)])
    assert backend.running.wait(30)
    assert future.cancel()
    engine.close()
    assert (engine.metrics.cancelled_calls, engine.metrics.failed_rounds) == (1, 0)


@pytest.mark.parametrize(
    ("error", "expected"), [(StopIteration("no more"), BackendError), (GoneError(), GoneError)], ids=repr
)
def test_whatever_a_backend_raises_reaches_those_who_await_it(
    error: Exception, expected: type[Exception]
) -> None:
    engine = Engine(lambda: RaisingBackend(error))

    async def end() -> BaseException | None:
        future = asyncio.wrap_future(submit(engine, [ids(1)]))
        done, _ = await asyncio.wait([future], timeout=10)
        return future.exception() if done else None

    try:
        ended = asyncio.run(end())
        assert isinstance(ended, expected)
        assert repr(error) in (repr(ended), repr(ended.__cause__))
    finally:
        engine.close()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_timeout_covers_opening_the_checkpoint(embedding_checkpoint: Path, is_async: bool) -> None:
    embedder = Embedder(str(embedding_checkpoint), timeout=0.2, **OPTIONS)
    arrived = threading.Event()

    def slow(*_: Any, **__: Any) -> Any:
        assert arrived.wait(30)
        raise OSError("the hub was slow")

    def call() -> Any:
        return asyncio.run(embedder.aembed_documents(["a"])) if is_async else embedder.embed_documents(["a"])

    with patch.object(opening, "open_checkpoint", slow), pytest.raises(DeadlineExceededError):
        call()
    arrived.set()


def test_sync_calls_in_the_loop_s_threads_and_async_calls_do_not_wait_for_each_other(
    embedding_checkpoint: Path,
) -> None:
    """Places are held by calls that still tokenise; that must not need the threads that wait for places."""
    long = "sun moon " * 3000  # tokenised in a thread

    async def mixed() -> Any:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        tasks = [embedder.aembed_documents([long]) for _ in range(6)]
        tasks += [asyncio.to_thread(embedder.embed_documents, [f"t{i}"]) for i in range(6)]
        return await asyncio.wait_for(asyncio.gather(*tasks), 120)

    with Embedder(str(embedding_checkpoint), max_queued=1, max_tokens=64, **OPTIONS) as embedder:
        embedder.load()
        assert [len(vectors) for vectors in asyncio.run(mixed())] == [1] * 12
