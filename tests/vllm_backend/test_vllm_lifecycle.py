"""Starting and stopping engines, with objects in the place of vLLM's."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from qwen3_rag import Embedder
from qwen3_rag.backends.vllm import VllmStartError, backend, engine, lifecycle

SPAWN = multiprocessing.get_context("spawn")
OF_ITS_OWN: dict[str, Any] = {"backend": "vllm", "dtype": "float32", "device": "cpu", "max_queued": 7}
"""Settings that no other test has: components of equal settings share an engine."""


@pytest.fixture(scope="module", autouse=True)
def _what_is_there_is_not_collected() -> Iterator[None]:
    """Stopping an engine collects garbage, which takes a second among a million objects of modules."""
    gc.freeze()
    yield
    gc.unfreeze()


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


def test_an_answer_that_was_sent_before_the_process_died_is_not_lost(
    workers: list[BaseProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(lifecycle, "_GRACE_SECONDS", 60)
    running = lifecycle.start(lambda: EngineWithProcess(workers), always_apart=True)

    def answer() -> str:
        running.processes[0].kill()
        running.processes[0].join()
        time.sleep(0.2)
        return "the answer"

    try:
        assert running.result_of(answer) == "the answer"
    finally:
        lifecycle.stop(running)


def test_a_process_that_does_not_end_when_asked_is_killed(
    workers: list[BaseProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_SECONDS_TO_STOP", 0.2)
    running = lifecycle.start(lambda: EngineWithProcess(workers), always_apart=True)
    (process,) = running.processes
    monkeypatch.setattr(running.engine, "shutdown", lambda: None)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)  # so that it does not even terminate
    lifecycle.stop(running)
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture
def nothing_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of other tests do not count."""
    monkeypatch.setattr(lifecycle, "_here", lifecycle._InProcess([], []))


@pytest.mark.usefixtures("nothing_runs_here")
def test_engines_of_this_process_are_shut_down_together_whatever_one_of_them_raises() -> None:
    ended: list[str] = []

    def made(name: str) -> lifecycle.Running:
        def shutdown() -> None:
            ended.append(name)
            if name == "second":
                raise RuntimeError("will not")

        core = SimpleNamespace(shutdown=shutdown)  # as vllm.LLM has it, which has no such method itself
        return lifecycle.start(lambda: SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core)))

    first, second, third = map(made, ("first", "second", "third"))
    assert first.in_process
    lifecycle.stop(first)
    lifecycle.stop(second)
    assert ended == []
    with pytest.raises(RuntimeError, match="will not"):
        lifecycle.stop(third)
    assert sorted(ended) == ["first", "second", "third"]
    assert first.engine is second.engine is third.engine is None


@pytest.mark.usefixtures("nothing_runs_here")
@pytest.mark.parametrize(
    ("own_process", "earlier", "apart"), [("1", False, True), ("0", False, False), ("1", True, False)]
)
def test_vllm_runs_an_engine_apart_unless_told_not_to_or_one_is_here_already(
    own_process: str, earlier: bool, apart: bool, workers: list[BaseProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_SECONDS_TO_STOP", 0.2)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", own_process)
    if earlier:
        lifecycle.stop(lifecycle.start(object))
    running = lifecycle.start(lambda: EngineWithProcess(workers))
    assert running.in_process == (not apart)
    lifecycle.stop(running)
    assert not running.processes[0].is_alive()


@pytest.mark.usefixtures("nothing_runs_here")
def test_engines_of_this_process_take_turns() -> None:
    first, second = lifecycle.start(object), lifecycle.start(object)
    entered, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def slow() -> None:
        entered.set()
        assert go_on.wait(60)
        order.append("first")

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(first.result_of, slow)]
        assert entered.wait(60)
        calls.append(pool.submit(second.result_of, lambda: order.append("second")))
        time.sleep(0.1)  # in which the second would be done, if it could
        go_on.set()
        for call in calls:
            call.result(60)
    assert order == ["first", "second"]
    for running in (first, second):
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
