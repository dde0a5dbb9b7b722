"""Several devices: a process each, the same results in the same order, and deaths that are noticed."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3_rag import CheckpointError, Embedder, Reranker, WorkerDiedError
from qwen3_rag.backends.process import ProcessBackend
from qwen3_rag.engine import Engine
from sum_backend import SumBackend, ids, submit

TEXTS = [f"text {i} " * (1 + i % 7) for i in range(700)]


def children(component: Any) -> list[ProcessBackend]:
    return list(component._engine.backends)


@pytest.fixture(scope="module")
def pair(embedding_checkpoint: Path) -> Any:
    with Embedder(str(embedding_checkpoint), dtype="float32", device=["cpu", "cpu"]) as embedder:
        yield embedder.load()


def test_two_devices_give_the_results_of_one_in_order(pair: Embedder, embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), dtype="float32", device="cpu") as one:
        np.testing.assert_allclose(pair.embed_documents(TEXTS), one.embed_documents(TEXTS), atol=1e-5)
    first, second = children(pair)
    assert first.pid != second.pid
    assert os.getpid() not in (first.pid, second.pid)


def test_a_worker_killed_at_work_fails_its_call_clearly_and_is_replaced(pair: Embedder) -> None:
    expected = pair.embed_documents(TEXTS[:4])
    old = [child for worker in children(pair) if (child := worker._child) is not None]
    for process in old:
        process.send_signal(signal.SIGSTOP)  # whichever takes the call, it holds it
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(pair.embed_documents, ["held"])
        while pair.metrics.queued_calls == 0 or pair.metrics.queued_prompts > 0:
            time.sleep(0.001)
        for process in old:
            process.kill()
        for process in old:
            process.wait(60)  # else the idle one may take the next call and die with it
        with pytest.raises(WorkerDiedError, match=r"killed by signal 9.*starts a new one"):
            call.result(60)
    np.testing.assert_allclose(pair.embed_documents(TEXTS[:4]), expected, atol=1e-6)
    assert pair.metrics.queued_calls == 0


def test_an_error_in_a_worker_reaches_the_caller_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "hidden_size": 8}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="tokenizer"):
        Reranker(str(tmp_path), device=["cpu", "cpu"]).score("q", ["d"])


def test_a_failed_load_leaves_no_process_and_tells_where_it_failed(embedding_checkpoint: Path) -> None:
    before = _child_pids()
    settings = Embedder(str(embedding_checkpoint), dtype="float32", device="nonsense")._settings
    with pytest.raises(ValueError, match="nonsense") as caught:
        ProcessBackend(settings)
    there = str(caught.value.__cause__)
    assert "in the process of nonsense" in there
    assert "in choose_device" in there, "where it happened"
    assert _child_pids() <= before


def test_idle_devices_divide_what_waits() -> None:
    backends = [SumBackend(), SumBackend()]
    for backend in backends:
        backend.token_budget = 100_000
        backend.gate.clear()
    engine = Engine(*(lambda backend=backend: backend for backend in backends))
    engine.load()
    while len(engine._idle) < 2:
        time.sleep(0.001)
    call = submit(engine, [ids(*[n] * 100) for n in range(1, 101)])
    assert all(backend.running.wait(30) for backend in backends)
    for backend in backends:
        backend.gate.set()
    assert call.result(30).values.tolist() == [100 * n for n in range(1, 101)]
    assert sorted(len(backend.rounds[0]) for backend in backends) == [50, 50]
    engine.close()


def test_a_backend_with_concurrency_runs_several_rounds_at_once() -> None:
    class Server(SumBackend):
        concurrency = 3

        def __init__(self) -> None:
            super().__init__()
            self.meeting = threading.Barrier(3)

        def run(self, prompts: Any) -> Any:
            self.meeting.wait(30)
            return super().run(prompts)

    threads_before = set(threading.enumerate())
    backend = Server()
    engine = Engine(lambda: backend)
    engine.load()
    futures = [submit(engine, [ids(*[n] * 100)]) for n in (1, 2, 3)]
    assert [int(future.result(30).values[0]) for future in futures] == [100, 200, 300]
    engine.close()
    assert backend.closed
    assert not set(threading.enumerate()) - threads_before


def _is_alive(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _child_pids() -> set[int]:
    return {
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _parent_of(entry) == os.getpid() and _is_alive(int(entry.name))
    }


def _parent_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0
