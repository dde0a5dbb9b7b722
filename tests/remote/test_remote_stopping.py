"""Nobody waits for a silent server once its answer is not wanted any more."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from qwen3_rag import DeadlineExceededError, Embedder, EngineClosedError
from server import Answer, Reply, Request, Server
from workload import RIGHT, TEXTS

Serve = Callable[[Answer], Server]
Make = Callable[..., Any]


def silent(_: Request) -> Reply:
    return Reply({}, delay=100.0)  # longer than any test waits


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.01)
    assert condition()


def test_closing_cancels_requests_and_their_calls_say_that_it_was_closed(serve: Serve, embedder: Make) -> None:
    server = serve(silent)
    made = embedder(
        server.url, timeout=9.0, deadline=10.0
    )  # by which what is not cancelled ends, as another error
    with ThreadPoolExecutor(2) as threads:
        call = threads.submit(made.embed_documents, TEXTS)
        wait_for(lambda: len(server.requests) == 1)
        threads.submit(made.close).result(60)
        with pytest.raises(EngineClosedError):
            call.result(60)


def test_a_call_that_ran_out_of_time_leaves_no_request_behind(serve: Serve, embedding_folder: Path) -> None:
    server = serve(silent)
    kwargs = {"server": "vllm", "base_url": server.url}
    with Embedder(str(embedding_folder), timeout=0.2, backend="remote", model_kwargs=kwargs) as embedder:
        with pytest.raises(DeadlineExceededError):
            embedder.load().embed_documents(TEXTS)
        remote: Any = embedder.backend
        wait_for(lambda: not remote._client._in_flight)
        assert embedder.metrics.cancelled_calls == 1


def test_a_run_goes_on_for_a_call_that_shares_it_with_one_that_was_cancelled(
    serve: Serve, embedding_folder: Path
) -> None:
    ready = threading.Event()

    def answer(request: Request) -> Reply:
        if len(server.requests) > 1:  # the first holds up the others, which then share a run
            ready.wait(10)
            time.sleep(0.3)
        return Reply(RIGHT(request).body, delay=0.2)

    server = serve(answer)
    kwargs = {"server": "vllm", "base_url": server.url, "max_connections": 1}
    common: dict[str, Any] = {"backend": "remote", "model_kwargs": kwargs}
    with (
        Embedder(str(embedding_folder), **common) as patient,
        Embedder(str(embedding_folder), timeout=0.5, **common) as hasty,
        ThreadPoolExecutor(3) as threads,
    ):
        patient.load()
        first = threads.submit(patient.embed_documents, ["first"])
        wait_for(lambda: len(server.requests) == 1)
        waits, gives_up = (threads.submit(one.embed_documents, ["t"]) for one in (patient, hasty))
        first.result(10)
        with pytest.raises(DeadlineExceededError):
            gives_up.result(10)
        ready.set()
        assert waits.result(10).shape == (1, 64)
    assert len(server.requests) == 2, "both calls were in one request"


SCRIPT = """
import signal, sys
from qwen3_rag import Embedder
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
made = Embedder(sys.argv[1], backend="remote", model_kwargs={"server": "vllm", "base_url": sys.argv[2]})
made.embed_documents(["text"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")
def test_an_interrupt_ends_a_program_that_waits_for_a_silent_server(
    serve: Serve, embedding_folder: Path
) -> None:
    server = serve(silent)
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(embedding_folder), server.url], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(server.requests) == 1, seconds=60)
    program.send_signal(signal.SIGINT)
    try:
        _, said = program.communicate(timeout=60)
    finally:
        program.kill()
    assert said.rstrip().endswith("KeyboardInterrupt")
