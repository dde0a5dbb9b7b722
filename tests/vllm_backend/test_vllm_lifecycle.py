"""Starting and stopping engines, with objects in the place of vLLM's."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3_rag import Embedder
from qwen3_rag.backends.vllm import VllmStartError, backend, engine, lifecycle

SPAWN = multiprocessing.get_context("spawn")
OF_ITS_OWN: dict[str, Any] = {"backend": "vllm", "dtype": "float32", "device": "cpu", "max_queued": 7}
"""Settings that no other test has: components of equal settings share an engine."""


def started(name: str) -> BaseProcess:
    process = SPAWN.Process(target=time.sleep, args=(300,), name=name, daemon=True)
    process.start()
    return process


@pytest.fixture
def workers() -> Iterator[list[BaseProcess]]:
    """Processes that a user's program starts, in another thread, while an engine starts."""
    made: list[BaseProcess] = []
    yield made
    for process in made:
        process.kill()
        process.join()


class EngineWithProcess:
    """Starts one process, named as vLLM's, and ends it when it is shut down."""

    def __init__(self, beside: list[BaseProcess]) -> None:
        thread = threading.Thread(target=lambda: beside.append(started("SpawnProcess-1")))
        thread.start()
        self.process = started("EngineCore_DP0")
        thread.join()

    def shutdown(self) -> None:
        self.process.kill()


def test_a_process_that_another_thread_started_meanwhile_is_not_the_engines(
    workers: list[BaseProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_SECONDS_TO_STOP", 0.2)
    running = lifecycle.start(lambda: EngineWithProcess(workers), always_apart=True)
    assert [process.name for process in running.processes] == ["EngineCore_DP0"]
    lifecycle.stop(running)
    assert not running.processes[0].is_alive()
    assert workers[0].is_alive()


def test_the_end_of_another_threads_process_does_not_fail_a_call(
    workers: list[BaseProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(lifecycle, "_GRACE_SECONDS", 0.05)
    running = lifecycle.start(lambda: EngineWithProcess(workers), always_apart=True)
    try:
        workers[0].kill()
        workers[0].join()
        assert running.result_of(lambda: time.sleep(0.5)) is None
        running.processes[0].kill()
        with pytest.raises(lifecycle.EngineDeadError, match="EngineCore_DP0 ended with exit code -9"):
            running.result_of(lambda: time.sleep(0.5))
    finally:
        lifecycle.stop(running)


def test_what_a_call_raises_after_the_engines_process_died_is_its_death(
    workers: list[BaseProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While vLLM closes the sockets of a dead engine, its own calls fail with an error of those."""

    def call() -> None:
        raise OSError("Socket operation on non-socket")

    monkeypatch.setattr(lifecycle, "_SECONDS_TO_STOP", 0.2)
    running = lifecycle.start(lambda: EngineWithProcess(workers), always_apart=True)
    try:
        with pytest.raises(OSError, match="non-socket"):
            running.result_of(call)
        running.processes[0].kill()
        running.processes[0].join()
        with pytest.raises(lifecycle.EngineDeadError, match="ended with exit code -9") as caught:
            running.result_of(call)
        assert isinstance(caught.value.__cause__, OSError)
    finally:
        lifecycle.stop(running)


class Silent:
    """An engine of zeros, with a life as vLLM's engines have it.

    Attributes:
        stopped: names of the threads in which engines were stopped.
    """

    stopped: list[str]

    def __init__(self, *_: Any) -> None:
        self._running = lifecycle.start(object)

    def pool(self, prompts: Sequence[list[int]]) -> list[engine.Pooled]:
        return [engine.Pooled(np.ones(128, np.float32), 0) for _ in prompts]

    def stop(self) -> None:
        lifecycle.stop(self._running)
        self.stopped.append(threading.current_thread().name)


def test_garbage_that_is_collected_while_another_engine_starts_is_stopped_afterwards(
    embedding_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finaliser that waited for the stop would wait for the lock that its own thread holds."""
    monkeypatch.setattr(backend, "OfflineEngine", Silent)
    monkeypatch.setattr(Silent, "stopped", [], raising=False)
    garbage = [Embedder(str(embedding_folder), **OF_ITS_OWN).load()]

    def make() -> object:
        garbage.clear()
        gc.collect()
        assert Silent.stopped == []
        return object()

    starting = threading.Thread(target=lambda: lifecycle.stop(lifecycle.start(make)), daemon=True)
    starting.start()
    starting.join(20)
    assert not starting.is_alive(), "a deadlock"
    deadline = time.monotonic() + 20
    while not Silent.stopped and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [name.startswith("qwen3-rag-engine") for name in Silent.stopped] == [True]


def test_a_stop_that_fails_ends_the_engines_thread_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import AsyncLLMEngine

    class Stubborn:
        def shutdown(self) -> None:
            raise RuntimeError("will not")

    monkeypatch.setattr(AsyncLLMEngine, "from_engine_args", lambda _: Stubborn())
    parallel = engine.ParallelEngine("embedding", {"model": "m"})
    with pytest.raises(RuntimeError, match="will not"):
        parallel.stop()
    assert not parallel._loop._thread.is_alive()
    assert parallel._loop._loop.is_closed()


def test_an_engine_that_cannot_start_again_is_no_single_prompts_fault(
    embedding_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(backend, "OfflineEngine", fails)
    with (
        Embedder(str(embedding_folder), **OF_ITS_OWN) as embedder,
        pytest.raises(VllmStartError, match="vLLM could not start: no memory left") as caught,
    ):
        embedder.embed_documents(["text"])
    assert caught.value.concerns_every_prompt
