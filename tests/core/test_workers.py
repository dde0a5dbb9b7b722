"""One thread computes for all models on a CPU, keeps nothing, and is not waited for by itself."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from qwen3_rag import Embedder, OutOfMemoryError, Reranker
from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.backends.device import exclusive
from qwen3_rag.backends.transformers import backend
from qwen3_rag.engine import Engine
from qwen3_rag.tokens import Prompt
from qwen3_rag.workers import SharedThread, WorkerThread
from sum_backend import SumBackend, ids, submit


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[SharedThread]:
    kept = SharedThread(request.node.name)
    kept.retain()
    yield kept
    kept.release()


def threads(worker: SharedThread) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == worker._name]


def fail_while_more_waits(worker: SharedThread) -> tuple[threading.Thread, threading.Thread]:
    """Return the thread in which something failed, and the one in which the next was done."""
    began, go_on = threading.Event(), threading.Event()
    failed: list[threading.Thread] = []

    def fail() -> None:
        began.set()
        assert go_on.wait(60)
        failed.append(threading.current_thread())
        raise ArithmeticError("poison")

    with ThreadPoolExecutor(2) as pool:
        bad = pool.submit(worker.run, fail)
        assert began.wait(60)
        good = pool.submit(worker.run, threading.current_thread)
        while not worker._queue:
            time.sleep(0.001)
        go_on.set()
        with pytest.raises(ArithmeticError, match="poison"):
            bad.result(60)
        return failed[0], good.result(60)


def test_all_callers_share_one_thread_that_does_one_thing_at_a_time(worker: SharedThread) -> None:
    inside: list[int] = []

    def work(number: int) -> tuple[int, threading.Thread]:
        inside.append(number)
        assert inside == [number]
        inside.remove(number)
        return number, threading.current_thread()

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda number: worker.run(lambda: work(number)), range(200)))
    assert [number for number, _ in done] == list(range(200))
    assert {thread for _, thread in done} == set(threads(worker))
    assert len(threads(worker)) == 1


def test_a_failure_is_its_callers_and_the_rest_is_done_in_a_new_thread(worker: SharedThread) -> None:
    failed, good = fail_while_more_waits(worker)
    failed.join(60)
    assert not failed.is_alive()
    assert [good] == threads(worker) == [worker.run(threading.current_thread)]


def test_a_failure_leaves_the_old_thread_at_work_where_none_can_be_started(worker: SharedThread) -> None:
    first = worker.run(threading.current_thread)
    with patch.object(WorkerThread, "start", side_effect=MemoryError):
        assert fail_while_more_waits(worker) == (first, first)


def test_a_thread_that_is_to_be_replaced_ends_after_what_it_does(worker: SharedThread) -> None:
    def replace() -> threading.Thread:
        worker.replace_thread()
        return threading.current_thread()

    first = worker.run(replace)
    second = worker.run(threading.current_thread)
    assert second is not first
    assert worker.run(threading.current_thread) is second


def test_what_cannot_have_a_thread_is_done_by_its_caller(worker: SharedThread) -> None:
    with patch.object(WorkerThread, "start", side_effect=RuntimeError("can't start new thread")):
        assert worker.run(threading.current_thread) is threading.current_thread()
    assert worker.run(threading.current_thread) is not threading.current_thread()


def test_what_the_thread_asks_of_itself_is_done_at_once(worker: SharedThread) -> None:
    assert worker.run(lambda: worker.run(threading.current_thread)) in threads(worker)


def test_the_thread_ends_when_nobody_keeps_it_and_all_is_done(worker: SharedThread) -> None:
    first = worker.run(threading.current_thread)
    worker.retain()
    worker.release()
    assert worker.run(threading.current_thread) is first
    worker.release()
    first.join(60)
    assert not first.is_alive()
    later = worker.run(threading.current_thread)
    later.join(60)
    assert not later.is_alive()
    worker.retain()
    assert worker.run(threading.current_thread) not in (first, later)


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_an_idle_thread_keeps_nothing_of_what_it_did(worker: SharedThread, fails: bool) -> None:
    class Large:
        def work(self) -> None:
            if fails:
                raise ArithmeticError("poison")

    large = Large()
    left = weakref.ref(large)
    gc.disable()  # nothing waits for a collection, either
    try:
        with suppress(ArithmeticError):
            worker.run(large.work)
        del large
        worker.run(lambda: None)
        assert left() is None
    finally:
        gc.enable()


def test_a_garbage_collection_in_a_worker_may_close_what_waits_for_it(worker: SharedThread) -> None:
    class Waiting(SumBackend):
        def run(self, prompts: Sequence[Prompt]) -> BackendOutput:
            self.running.set()
            return worker.run(lambda: SumBackend.run(self, prompts))

    other = Waiting()
    engine = Engine(lambda: other)

    def collect() -> None:
        future = submit(engine, [ids(1)])
        assert other.running.wait(60)
        engine.close()  # its round is behind this in the worker's queue
        futures.append(future)

    futures: list[Any] = []
    with ThreadPoolExecutor(1) as pool:
        pool.submit(worker.run, collect).result(60)
    assert futures[0].result(60).values.tolist() == [1.0]


# In a process of its own: models that other tests leave open keep the thread.
TWO_MODELS = """
import sys, threading
from qwen3_rag import Embedder, Reranker
from qwen3_rag.backends.device import exclusive
from qwen3_rag.backends.transformers import backend
seen = {"load_model": [], "_run": []}
def note(place, name):
    original = getattr(place, name)
    def noted(*args, **options):
        seen[name].append(threading.current_thread())
        return original(*args, **options)
    setattr(place, name, noted)
note(backend, "load_model")
note(backend.TransformersBackend, "_run")
options = dict(device="cpu", dtype="float32")
with Embedder(sys.argv[1], **options) as embedder, Reranker(sys.argv[2], **options) as reranker:
    for _ in range(2):
        embedder.embed_documents(["a"])
        reranker.score("a", ["b"])
    loads, (run,) = seen["load_model"], set(seen["_run"])
    for load in loads:
        load.join(60)
    assert [load.is_alive() for load in loads] == [False, False] and run.is_alive()
run.join(60)
assert not run.is_alive()
"""


def test_two_models_on_a_cpu_compute_in_one_thread_that_ends_with_them_and_loads_leave_none(
    embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    command = [sys.executable, "-c", TWO_MODELS, str(embedding_checkpoint), str(reranking_checkpoint)]
    ended = subprocess.run(command, check=False, timeout=120, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("count", [1, 2], ids=["does not fit", "fits in halves"])
def test_a_thread_in_which_memory_ran_out_computes_no_other_models_texts(
    count: int, embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    """A thread in which oneDNN could not make a kernel gets none any more, however much memory there is."""
    failed: list[threading.Thread] = []
    forward = backend.TransformersBackend._forward

    def fail_once(self: Any, batch: Any, *arguments: Any) -> Any:
        if not failed:
            failed.append(threading.current_thread())
            raise RuntimeError("could not create a primitive")
        return forward(self, batch, *arguments)

    options: dict[str, Any] = {"device": "cpu", "dtype": "float32", "share_prefixes": False}
    with (
        patch.object(backend.TransformersBackend, "_forward", fail_once),
        Embedder(str(embedding_checkpoint), **options) as embedder,
        Reranker(str(reranking_checkpoint), **options) as reranker,
    ):
        texts = ["one", "two"][:count]
        with pytest.raises(OutOfMemoryError, match="text 0") if count == 1 else nullcontext():
            embedder.embed_documents(texts)
        assert exclusive.compute("cpu", threading.current_thread) not in failed
        assert reranker.score("a", ["b"]).shape == (1,)
        assert embedder.embed_documents(texts).shape == (count, embedder.dimensions)
