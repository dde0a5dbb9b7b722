"""How long a call may take, how many may wait, and what a service can see of it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from qwen3_rag import ConfigurationError, DeadlineExceededError, Embedder, EngineClosedError, EngineMetrics
from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.calls import Call
from qwen3_rag.engine import Engine
from qwen3_rag.gate import Gate
from qwen3_rag.steps import Steps, drive
from qwen3_rag.testing.recording import recording
from sum_backend import POISON, SumBackend, ids, submit

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


def held_up(component: Any) -> tuple[threading.Event, Any]:
    """Make a component's backend wait until the event is set; the second value restores it."""
    backend = component.load().backend
    gate, run = threading.Event(), backend.run

    def slow(prompts: Any) -> Any:
        assert gate.wait(60)
        return run(prompts)

    backend.run = slow
    return gate, lambda: backend.__dict__.pop("run")


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_ends_at_its_timeout_and_its_work_is_dropped(embedding_checkpoint: Path, is_async: bool) -> None:
    with Embedder(str(embedding_checkpoint), timeout=0.2, token_budget=501, **OPTIONS) as embedder:
        gate, restore = held_up(embedder)
        call = (
            (lambda texts: asyncio.run(embedder.aembed_documents(texts)))
            if is_async
            else embedder.embed_documents
        )
        with pytest.raises(DeadlineExceededError, match=r"timeout of 0\.2 s") as caught:
            call(["late"])
        assert isinstance(caught.value, TimeoutError)
        restore()
        gate.set()
        patient = Embedder(str(embedding_checkpoint), token_budget=501, **OPTIONS)
        assert patient.embed_documents(["later"]).shape == (1, 64)
        assert patient.metrics.queued_calls == 0
        patient.close()


def test_an_async_call_without_asyncios_event_loop_says_what_it_needs(embedding_checkpoint: Path) -> None:
    """As under Trio, whose loop drives coroutines too."""
    with Embedder(str(embedding_checkpoint), **OPTIONS) as embedder:
        for texts in (["a text"], []):
            call = embedder.aembed_documents(texts)
            with pytest.raises(ConfigurationError, match=r"event loop of asyncio.*trio\.to_thread"):
                call.send(None)


@pytest.mark.parametrize("timeout", [float("inf"), 1e12])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_timeout_may_be_longer_than_a_thread_can_wait(
    embedding_checkpoint: Path, timeout: float, is_async: bool
) -> None:
    with Embedder(str(embedding_checkpoint), timeout=timeout, **OPTIONS) as embedder:
        call: Any = embedder.embed_queries
        if is_async:
            call = lambda texts: asyncio.run(embedder.aembed_queries(texts))  # noqa: E731
        assert call(["patient"]).shape == (1, 64)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_must_be_positive(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="seconds above 0"):
        Embedder(timeout=timeout)


@pytest.mark.parametrize(
    ("option", "requirement"),
    [({"max_wait_ms": -1}, "0 to 1000"), ({"max_queued": 0}, "1 or more"), ({"device": []}, "at least one")],
)
def test_engine_options_out_of_range_are_refused(option: dict[str, Any], requirement: str) -> None:
    with pytest.raises(ConfigurationError, match=requirement):
        Embedder(**option)


def test_a_full_queue_makes_callers_wait_and_loses_nobody(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), max_queued=2, **OPTIONS)
    expected = embedder.embed_documents([f"t{i}" for i in range(20)])
    gate, restore = held_up(embedder)
    queued: list[int] = []

    async def many() -> Any:
        tasks = [asyncio.create_task(embedder.aembed_documents([f"t{i}"])) for i in range(20)]
        await asyncio.sleep(0.2)
        queued.append(embedder.metrics.queued_calls)
        tasks[7].cancel()
        restore()
        gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(many())
    assert queued == [2]
    assert isinstance(results.pop(7), asyncio.CancelledError)
    np.testing.assert_allclose(np.concatenate(results), np.delete(expected, 7, axis=0), atol=1e-5)
    # Every place was given back: as many calls as places go through once more.
    assert embedder.embed_documents(["one more"]).shape == (1, 64)
    embedder.close()


def test_who_waits_at_a_full_queue_still_has_a_timeout(embedding_checkpoint: Path) -> None:
    options = {**OPTIONS, "max_queued": 1, "token_budget": 502}
    with Embedder(str(embedding_checkpoint), **options) as patient:
        gate, restore = held_up(patient)
        first = threading.Thread(target=patient.embed_documents, args=(["first"],))
        first.start()
        while patient.metrics.queued_calls == 0:
            time.sleep(0.001)
        with (
            Embedder(str(embedding_checkpoint), timeout=0.1, **options) as hasty,
            pytest.raises(DeadlineExceededError),
        ):
            hasty.embed_documents(["second"])
        restore()
        gate.set()
        first.join(30)
        assert patient.embed_documents(["third"]).shape == (1, 64)


def test_a_failed_tokenisation_gives_its_place_back(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), max_queued=1, **OPTIONS) as embedder:
        for _ in range(3):
            with pytest.raises(ValueError, match="lone surrogate"):
                embedder.embed_documents(["\ud800"])
        assert embedder.embed_documents(["fine"]).shape == (1, 64)


def test_a_call_that_is_interrupted_as_soon_as_it_is_queued_gives_its_place_back() -> None:
    engine, queue = Engine(SumBackend, max_queued=1), Engine._submit

    def interrupted(self: Engine, call: Call) -> Future[BackendOutput]:
        queue(self, call)
        raise KeyboardInterrupt

    engine.enter().result(30)
    with patch.object(Engine, "_submit", interrupted), pytest.raises(KeyboardInterrupt):
        engine.submit(Call([ids(1)]))
    try:
        assert engine.enter().done()
    finally:
        engine.close()


def test_places_go_to_those_who_wait_longest() -> None:
    gate = Gate(1)
    first, second, third, fourth = (gate.enter() for _ in range(4))
    gate.give_up(second)
    assert (first.done(), third.done(), gate.waiting) == (True, False, 2)
    gate.leave()
    assert (third.done(), fourth.done()) == (True, False)
    gate.close(lambda: EngineClosedError("closed"))
    assert isinstance(fourth.exception(), EngineClosedError)
    assert isinstance(gate.enter().exception(), EngineClosedError)


def test_places_that_an_event_loop_cancelled_are_passed_over() -> None:
    """It cancels a place as soon as its task is cancelled; that this one gives up comes later."""
    gate = Gate(1)
    first, second, third, fourth, fifth = (gate.enter() for _ in range(5))
    second.cancel()
    gate.leave()
    assert (first.done(), third.done(), fourth.done()) == (True, True, False)
    fourth.cancel()
    gate.close(lambda: EngineClosedError("closed"))
    assert isinstance(fifth.exception(), EngineClosedError)
    gate.give_up(second)


def test_a_round_waits_for_company_but_not_when_it_is_full() -> None:
    backend = SumBackend()
    engine = Engine(lambda: backend, max_wait_ms=1000)
    engine.load()
    started = time.monotonic()
    futures = [submit(engine, [ids(*[n] * 10)]) for n in range(1, 10)]
    time.sleep(0.05)
    assert backend.rounds == []
    futures.append(submit(engine, [ids(*[10] * 10)]))
    assert [int(future.result(30).values[0]) for future in futures] == [10 * n for n in range(1, 11)]
    assert time.monotonic() - started < 1
    assert len(backend.rounds) == 1
    engine.close()


def test_a_hundred_concurrent_queries_take_two_rounds(embedding_checkpoint: Path) -> None:
    async def hundred() -> Any:
        return await asyncio.gather(*(embedder.aembed_queries([f"q{i}"]) for i in range(100)))

    with Embedder(str(embedding_checkpoint), **OPTIONS) as embedder:
        alone = np.concatenate([embedder.embed_queries([f"q{i}"]) for i in range(100)])
        with recording(embedder, calls=100) as record:
            together = np.concatenate(asyncio.run(hundred()))
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert len(record.rounds) <= 2


def test_an_interactive_query_is_in_the_next_round_after_the_running_one() -> None:
    backend = SumBackend()
    engine = Engine(lambda: backend)
    engine.load()
    backend.gate.clear()
    bulk = [submit(engine, [ids(*[n] * 10) for n in range(1, 513)]) for _ in range(3)]
    assert backend.running.wait(30)
    query = submit(engine, [ids(5000)])
    backend.gate.set()
    assert query.result(30).values.tolist() == [5000]
    assert [5000 in first for first in backend.rounds].index(True) == 1
    for call in bulk:
        call.cancel()
    engine.close()


def test_metrics_tell_queue_waiting_and_work() -> None:
    backend = SumBackend()
    engine = Engine(lambda: backend)
    engine.load()
    backend.gate.clear()
    first = submit(engine, [ids(1)])
    assert backend.running.wait(30)
    bad, dropped, last = submit(engine, [ids(POISON)]), submit(engine, [ids(3)]), submit(engine, [ids(4, 4)])
    dropped.cancel()
    seen = engine.metrics
    assert (seen.queued_calls, seen.queued_prompts, seen.queued_tokens) == (4, 3, 4)
    backend.gate.set()
    assert (first.result(30).values[0], last.result(30).values[0]) == (1, 8)
    assert isinstance(bad.exception(30), ArithmeticError)
    after = engine.metrics
    assert (after.queued_calls, after.failed_calls, after.cancelled_calls) == (0, 1, 1)
    assert (after.prompts, after.prompt_tokens, after.computed_tokens) == (2, 3, 3)
    assert after.rounds == 2
    assert after.budgeted_tokens == 200
    assert after.batch_fill == pytest.approx(0.015)
    assert 0 < after.longest_wait_seconds <= after.wait_seconds
    assert after.tokens_per_second > 0
    engine.close()


def test_waiting_is_counted_from_when_the_caller_asked() -> None:
    backend = SumBackend()
    engine = Engine(lambda: backend)
    engine.load()
    engine._submit(Call([ids(1)], asked=time.monotonic() - 60)).result(30)
    assert 60 <= engine.metrics.longest_wait_seconds < 90
    engine.close()


def test_metrics_are_zeros_before_the_first_use_and_count_reuse(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), token_budget=503, **OPTIONS) as embedder:
        assert embedder.metrics == EngineMetrics()
        usage = embedder.embed(["a", "b", "c"], role="query").usage
        metrics = embedder.metrics
    assert metrics.prefix_reuse == pytest.approx(usage.reused_tokens / usage.prompt_tokens)
    assert metrics.prompts == 3


@pytest.mark.parametrize(("timeout", "last"), [(None, 0.5), (3600.0, 0.5), (0.3, 0.3)])
def test_a_thread_that_waits_looks_up_for_signals(
    timeout: float | None, last: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python notices none that comes in the moment before it begins to wait, until that ends."""
    waits: list[float] = []

    def wait(futures: Sequence[Future[str]], seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            futures[0].set_result("done")

    def steps() -> Steps[str]:
        return (yield Future())

    monkeypatch.setattr(concurrent.futures, "wait", wait)
    assert drive(steps(), timeout) == "done"
    assert 0 < max(waits) <= last


AFTER_MAIN = """
import threading
from qwen3_rag import Embedder, component
component._INLINE_NUMBERS = 0  # everything is done beside the caller
embedder = Embedder("demo", device="cpu", timeout=60).load()
embedder.embed_documents(["a"])
def later():
    threading.main_thread().join()
    print(embedder.embed_documents(["a text"] * 3).shape, flush=True)
threading.Thread(target=later).start()
"""


def test_threads_that_go_on_after_the_main_one_still_get_their_vectors() -> None:
    command = [sys.executable, "-c", AFTER_MAIN]
    ended = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
    assert ended.stdout == "(3, 256)\n", ended.stderr
