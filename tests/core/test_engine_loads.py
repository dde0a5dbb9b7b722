"""However a load goes, or what closes or fails meanwhile: every call ends, and nothing is loaded in vain."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from qwen3_rag import EngineClosedError, Reranker
from qwen3_rag.engine import Engine
from sum_backend import SumBackend, ids, submit

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


def test_closing_while_loading_fails_what_waits_at_once() -> None:
    backend, may_load = SumBackend(), threading.Event()

    def load() -> SumBackend:
        assert may_load.wait(30)
        return backend

    engine = Engine(load)
    future = submit(engine, [ids(1)])
    while not engine._devices[0].is_loading:
        time.sleep(0.001)
    engine.close()
    assert isinstance(future.exception(0), EngineClosedError)
    may_load.set()
    engine._devices[0].threads[0].join(30)
    assert backend.closed
    assert backend.rounds == []


def test_who_waits_for_a_load_learns_of_a_close_and_of_a_failure() -> None:
    may_end, fails = threading.Event(), threading.Event()

    def load() -> SumBackend:
        assert may_end.wait(30)
        if fails.is_set():
            raise OSError("no such device")
        return SumBackend()

    engine = Engine(SumBackend, load)
    with ThreadPoolExecutor(2) as pool:
        fails.set()
        both = [pool.submit(engine.load) for _ in range(2)]
        while len(engine._devices[1].load_futures) < 2:
            time.sleep(0.001)
        may_end.set()
        ends = [one.exception(30) for one in both]
        assert all(isinstance(end, OSError) for end in ends)
        assert ends[0] is not ends[1]
        may_end.clear()
        fails.clear()
        again = pool.submit(engine.load)
        while not engine._devices[1].is_loading:
            time.sleep(0.001)
        engine.close()
        assert isinstance(again.exception(30), EngineClosedError)
        may_end.set()
    with pytest.raises(EngineClosedError):
        engine.load()


def test_loading_what_is_loaded_waits_for_no_round() -> None:
    backend = SumBackend()
    engine = Engine(lambda: backend)
    engine.load()
    backend.gate.clear()
    running = submit(engine, [ids(1)])
    assert backend.running.wait(30)
    engine.load()
    assert not running.done()
    backend.gate.set()
    assert running.result(30).values.tolist() == [1]
    engine.close()


def test_closing_waits_for_no_load_that_is_about_to_begin() -> None:
    may_load, closed = threading.Event(), threading.Event()

    def load() -> SumBackend:
        assert may_load.wait(60)
        return SumBackend()

    def close() -> None:
        engine.close()
        closed.set()

    def interrupted(device: Any) -> bool:
        found = is_wanted(device)
        if found and sys._getframe(1).f_code.co_name == "_load":
            closer.start()
            closer.join(0.3)  # a moment in which it may come between
        return found

    engine = Engine(load)
    closer = threading.Thread(target=close)
    is_wanted, engine._is_wanted = engine._is_wanted, interrupted  # type: ignore[method-assign]
    future = submit(engine, [ids(1)])
    try:
        assert closed.wait(20)
        assert isinstance(future.exception(20), EngineClosedError)
    finally:
        may_load.set()


def test_callers_of_a_model_that_cannot_be_loaded_get_errors_of_their_own() -> None:
    may_fail = threading.Event()

    def load() -> SumBackend:
        assert may_fail.wait(30)
        raise OSError("no such device")

    engine = Engine(load)
    futures = [submit(engine, [ids(token)]) for token in range(8)]
    may_fail.set()
    ends = [future.exception(30) for future in futures]
    assert all(isinstance(end, OSError) and str(end) == "no such device" for end in ends)
    assert len({id(end) for end in ends}) == len(ends)
    engine.close()


def test_a_device_that_cannot_load_fails_every_call_until_it_can() -> None:
    """Whatever another device could compute meanwhile: else some calls would fail, as it happens."""
    good, broken, loads_fail = SumBackend(), SumBackend(), threading.Event()

    def load() -> SumBackend:
        if loads_fail.is_set():
            raise OSError("no such device")
        return broken

    loads_fail.set()
    engine = Engine(lambda: good, load)
    for _ in range(2):
        calls = [submit(engine, [ids(token)]) for token in range(8)]
        assert all(isinstance(call.exception(30), OSError) for call in calls)
    assert good.rounds == []
    loads_fail.clear()
    assert submit(engine, [ids(7)]).result(30).values.tolist() == [7]
    engine.close()


def test_an_idle_device_is_not_asked_what_it_could_take() -> None:
    """On a GPU that asks the driver, which may raise once the device is lost."""

    class Lost(SumBackend):
        asked = 0

        @property
        def token_budget(self) -> int:  # type: ignore[override]
            self.asked += 1
            raise RuntimeError("the device is lost")

    backend = Lost()
    engine = Engine(lambda: backend)
    engine.load()
    for _ in range(3):
        with pytest.raises(RuntimeError, match="the device is lost"):
            submit(engine, [ids(1)]).result(30)
    while not engine._idle:
        time.sleep(0.001)
    asked = backend.asked
    with engine._changed:
        engine._changed.notify_all()
    time.sleep(0.1)  # a thread that asks and fails would ask again at once
    assert backend.asked == asked
    engine.close()


def test_a_thread_that_cannot_start_is_the_caller_s_error_and_can_be_repeated() -> None:
    backend = SumBackend()
    engine = Engine(lambda: backend)
    no_more = patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread"))
    with no_more, pytest.raises(RuntimeError, match="can't start"):
        submit(engine, [ids(1)])
    assert submit(engine, [ids(2)]).result(30).values.tolist() == [2]
    engine.close()


def test_a_thread_whose_start_was_interrupted_loads_nothing_and_ends() -> None:
    loads: list[int] = []
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def load() -> SumBackend:
        loads.append(1)
        time.sleep(0.2)  # in which another thread may load too
        return SumBackend()

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        started.append(thread)
        raise KeyboardInterrupt

    engine = Engine(load)
    with patch.object(threading.Thread, "start", interrupted), pytest.raises(KeyboardInterrupt):
        submit(engine, [ids(1)])
    assert submit(engine, [ids(2)]).result(30).values.tolist() == [2]
    started[0].join(5)
    assert not started[0].is_alive()
    assert loads == [1]
    engine.close()


def test_an_unwanted_call_does_not_load_the_model() -> None:
    loads: list[int] = []

    def load() -> SumBackend:
        loads.append(1)
        return SumBackend()

    engine = Engine(load)
    with engine._changed:  # holds the worker back until the call is cancelled
        future = submit(engine, [ids(1)])
        assert future.cancel()
    while engine.metrics.queued_calls:
        time.sleep(0.001)
    assert loads == []
    engine.close()


def test_models_that_are_loaded_at_the_same_time_are_loaded_right(reranking_checkpoint: Path) -> None:
    """Transformers changes its classes while it loads; overlapping loads left tied heads without weights."""

    def score(number: int) -> float:
        with Reranker(str(reranking_checkpoint), token_budget=5000 + number, **OPTIONS) as reranker:
            return float(reranker.score("why?", ["because"])[0])

    with ThreadPoolExecutor(8) as pool:
        scores = list(pool.map(score, range(24)))
    np.testing.assert_allclose(scores, scores[0], atol=1e-6)
