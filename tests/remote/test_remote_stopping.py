"""Nobody waits for a silent server once its answer is not wanted any more."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from qwen3_rag import (
    DeadlineExceededError,
    Embedder,
    EngineClosedError,
)
from qwen3_rag.backends.remote import (
    RemoteOptions,
    RemoteRefusalError,
    RemoteUnavailableError,
    backend,
    client,
)
from qwen3_rag.backends.remote.servers import Setup, dialect_of
from qwen3_rag.prompts import EmbeddingWords
from qwen3_rag.tokens import Prompt
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


class FakeClient:
    """Stands in for a client; a test says what becomes of each request by its number, 1 being the first."""

    def __init__(self, send: Callable[[int], Awaitable[np.ndarray]]) -> None:
        self.calls = 0
        self._send = send

    async def send(self, *_: Any, **__: Any) -> np.ndarray:
        self.calls += 1
        return await self._send(self.calls)

    async def close(self) -> None:
        pass

    def run(self, prompts: int) -> None:
        """Run so many prompts, one in each request, of which two may be under way; then close the backend."""
        options = RemoteOptions(server="vllm", base_url=("http://localhost",))
        made = backend.RemoteBackend(
            dialect_of(Setup(options, "m", 64, len), "embedding"),
            lambda: cast("client.Client", self),
            max_inputs=1,
            max_tokens=100,
            connections=2,
            token_budget=None,
        )
        words = EmbeddingWords("", "t", is_query=False)
        try:
            made.run([Prompt(np.array([1], np.int32), words, index) for index in range(prompts)])
        finally:
            made.close()


def test_a_cancellation_that_is_lost_does_not_go_on_asking() -> None:
    """`asyncio.wait_for` of Python 3.10 and 3.11 can lose one. Here each is lost."""

    async def send(call: int) -> np.ndarray:
        if call == 1:
            await asyncio.sleep(0.1)
            raise RemoteUnavailableError("gone")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.3)
        return np.ones((1, 64), np.float32)

    deaf = FakeClient(send)
    with pytest.raises(RemoteUnavailableError):
        deaf.run(50)
    assert deaf.calls == 2


def test_an_error_is_raised_when_the_requests_beside_it_have_ended() -> None:
    """The first one would be silent for long. It is cancelled, and takes a moment to end."""
    seen: list[str] = []

    async def send(call: int) -> np.ndarray:
        if call == 2:
            raise RemoteUnavailableError("gone")
        try:
            await asyncio.sleep(60.0)
        finally:
            seen.append("its end")
            await asyncio.sleep(0.05)
            seen.append("its end is over")
        raise AssertionError("it was not cancelled")

    class Watched(FakeClient):
        async def close(self) -> None:
            seen.append("the client's end")

    with pytest.raises(RemoteUnavailableError, match="gone"):
        Watched(send).run(2)
    assert seen == ["its end", "its end is over", "the client's end"]


@pytest.mark.usefixtures("short_pauses")
def test_an_error_ends_the_requests_beside_it(serve: Serve, embedder: Make) -> None:
    def answer(request: Request) -> Reply:
        is_first = len(server.requests) == 1
        return Reply({}, 404) if is_first else Reply(RIGHT(request).body, delay=0.5)

    server = serve(answer)
    made = embedder(server.url, max_inputs_per_request=5, max_connections=2)
    with pytest.raises(RemoteRefusalError):
        made.embed_documents(TEXTS)
    assert len(server.requests) <= 3, "a call that has failed went on asking"
    server.answer = RIGHT
    assert made.embed_documents(TEXTS).shape == (60, 64)


def test_closing_ends_connections_and_thread(serve: Serve, embedder: Make) -> None:
    server = serve(RIGHT)
    made = embedder(server.url)
    made.embed_documents(TEXTS)
    remote = made.backend
    assert isinstance(remote, backend.RemoteBackend)
    assert "qwen3-rag-remote" in {thread.name for thread in threading.enumerate()}
    made.close()
    assert "qwen3-rag-remote" not in {thread.name for thread in threading.enumerate()}
    assert remote._client._http.is_closed


def test_garbage_that_is_collected_in_the_event_loops_thread_ends_that_thread(
    serve: Serve, embedding_folder: Path
) -> None:
    """A finaliser there must wait for nothing: the engine's thread closes the connections in this very loop."""
    kwargs = {"server": "vllm", "base_url": serve(RIGHT).url}
    garbage = [Embedder(str(embedding_folder), backend="remote", model_kwargs=kwargs)]
    garbage[0].embed_documents(["text"])
    remote = garbage[0].backend
    assert isinstance(remote, backend.RemoteBackend)
    loop = remote._loop._loop
    del remote
    loop.call_soon_threadsafe(garbage.clear)
    deadline = time.monotonic() + 10
    while not loop.is_closed() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert loop.is_closed()
