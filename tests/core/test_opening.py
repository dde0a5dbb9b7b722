"""Opening a checkpoint may take long or fail; it holds up nobody but those who wait for it."""

from __future__ import annotations

import asyncio
import copy
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import huggingface_hub
import pytest
from qwen3_rag import (
    BackendError,
    CheckpointError,
    DeadlineExceededError,
    Embedder,
    EngineClosedError,
    Reranker,
    checkpoint,
    opening,
)
from qwen3_rag.opening import Opening
from qwen3_rag.settings import EngineSettings

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


class SlowHub:
    """A hub that answers when it is let."""

    def __init__(self, answer: Callable[[], str]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.go = threading.Event()
        self._answer = answer

    def __call__(self, model: str, **options: Any) -> str:
        self.asked.append({"model": model, **options})
        assert self.go.wait(60)
        return self._answer()


@contextmanager
def slow_hub(answer: Callable[[], str]) -> Iterator[SlowHub]:
    hub = SlowHub(answer)
    with patch.object(huggingface_hub, "snapshot_download", hub):
        try:
            yield hub
        finally:
            hub.go.set()


def failing() -> str:
    raise OSError("no such host")


def test_a_timeout_holds_for_whoever_only_asks_for_the_length_of_vectors() -> None:
    embedder = Embedder("somebody/model", timeout=0.01, **OPTIONS)
    with slow_hub(failing) as hub:
        with pytest.raises(DeadlineExceededError, match=r"0\.01 s"):
            assert embedder.dimensions
        while not hub.asked:  # or the next test's hub would be asked
            time.sleep(0.001)


def test_all_who_wait_share_one_attempt_and_its_failure(embedding_checkpoint: Path) -> None:
    embedder = Embedder("somebody/model", **OPTIONS)
    waiting = threading.Semaphore(0)
    ask = embedder._opening.ask

    def asked() -> Any:
        found = ask()
        waiting.release()
        return found

    with (
        slow_hub(failing) as hub,
        ThreadPoolExecutor(8) as pool,
        patch.object(embedder._opening, "ask", asked),
    ):
        calls = [pool.submit(embedder.embed_documents, ["a"]) for _ in range(8)]
        for _ in calls:
            assert waiting.acquire(timeout=60)
        hub.go.set()
        ends = [call.exception(60) for call in calls]
        assert all(isinstance(end, CheckpointError) and "no such host" in str(end) for end in ends)
        assert len({id(end) for end in ends}) == len(ends), "a traceback holds what one caller was about"
        assert len(hub.asked) == 1
    with slow_hub(lambda: str(embedding_checkpoint)) as hub:
        hub.go.set()
        assert embedder.embed_documents(["a"]).shape == (1, 64), "the next call tries again"


def test_a_thread_that_cannot_start_leaves_no_call_waiting_for_it(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), timeout=60, **OPTIONS)
    no_more = patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread"))
    with no_more, pytest.raises(RuntimeError, match="can't start"):
        embedder.embed_documents(["a"])
    assert embedder.embed_documents(["a"]).shape == (1, 64)


def test_a_slow_disk_holds_up_no_close(embedding_checkpoint: Path) -> None:
    asked, go = threading.Event(), threading.Event()

    def slow(*_: Any) -> tuple[()]:
        asked.set()
        assert go.wait(60)
        return ()

    embedder = Embedder(str(embedding_checkpoint), **OPTIONS)
    with patch.object(checkpoint, "file_versions", slow), ThreadPoolExecutor(2) as pool:
        call = pool.submit(embedder.embed_documents, ["a"])
        assert asked.wait(60)
        closing = pool.submit(embedder.close)
        try:
            closing.result(20)
        finally:
            go.set()
        with pytest.raises(EngineClosedError):
            call.result(60)


def test_a_hub_that_does_not_answer_holds_up_no_other_model(reranking_checkpoint: Path) -> None:
    async def both() -> Any:
        first = [asyncio.ensure_future(stuck.aembed_documents(["a"])) for stuck in many]
        await asyncio.sleep(0.05)
        scores = await asyncio.wait_for(reranker.ascore("q", ["word " * 9000]), 60)  # tokenised in a thread
        for call in first:
            call.cancel()
        await asyncio.gather(*first, return_exceptions=True)
        return scores

    many = [Embedder("somebody/model", **OPTIONS) for _ in range(20)]
    with slow_hub(failing), Reranker(str(reranking_checkpoint), max_tokens=100, **OPTIONS).load() as reranker:
        assert asyncio.run(both()).shape == (1,)


def test_an_opening_that_raises_what_ends_a_generator_leaves_nobody_waiting() -> None:
    embedder = Embedder("somebody/model", timeout=30, **OPTIONS)
    with (
        patch.object(opening, "open_checkpoint", side_effect=StopIteration("no more files")),
        pytest.raises(BackendError, match="no more files"),
    ):
        asyncio.run(embedder.aembed_documents(["a"]))


def test_a_cancelled_call_leaves_the_opening_to_others(embedding_checkpoint: Path) -> None:
    async def run() -> Any:
        first, second = (asyncio.ensure_future(embedder.aembed_documents(["a"])) for _ in range(2))
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.sleep(0.05)
        hub.go.set()
        assert first.cancelled()
        return await second

    embedder = Embedder("somebody/model", **OPTIONS)
    with slow_hub(lambda: str(embedding_checkpoint)) as hub:
        assert asyncio.run(run()).shape == (1, 64)


def test_closing_waits_for_no_hub_and_the_call_says_that_it_was_closed(embedding_checkpoint: Path) -> None:
    embedder = Embedder("somebody/model", **OPTIONS)
    with slow_hub(lambda: str(embedding_checkpoint)) as hub, ThreadPoolExecutor(1) as pool:
        call = pool.submit(embedder.embed_documents, ["a"])
        while not hub.asked:
            pass
        embedder.close()
        hub.go.set()
        with pytest.raises(EngineClosedError):
            call.result(60)


def test_a_handler_may_close_whatever_its_thread_is_doing() -> None:
    with Embedder("somebody/model", **OPTIONS) as embedder, ThreadPoolExecutor(1) as pool:

        def interrupted() -> None:
            with embedder._lock:
                embedder.close()

        pool.submit(interrupted).result(60)


CLOSED_BY_A_SIGNAL = """
import signal, sys, threading, time
import huggingface_hub
from qwen3_rag import Embedder, EngineClosedError
embedder = Embedder("somebody/model", device="cpu")
signal.signal(signal.SIGALRM, lambda *_: embedder.close())
def slow(*_, **__):
    signal.raise_signal(signal.SIGALRM)
    time.sleep(0.5)
    return sys.argv[1]
huggingface_hub.snapshot_download = slow
try:
    embedder.embed_documents(["a"])
except EngineClosedError:
    sys.exit(7)
"""

LEFT_BEHIND = """
import sys, time
import huggingface_hub
from qwen3_rag import DeadlineExceededError, Embedder
huggingface_hub.snapshot_download = lambda *_, **__: time.sleep(300)
try:
    Embedder("somebody/model", device="cpu", timeout=0.2).embed_documents(["a"])
except DeadlineExceededError:
    sys.exit(7)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(
    "script", [CLOSED_BY_A_SIGNAL, LEFT_BEHIND], ids=["a handler closes", "a timeout ends"]
)
def test_nothing_waits_for_an_opening_that_nobody_wants(script: str, embedding_checkpoint: Path) -> None:
    command = [sys.executable, "-c", script, str(embedding_checkpoint)]
    assert subprocess.run(command, check=False, timeout=120).returncode == 7


def test_an_opening_runs_in_the_context_of_the_call_that_first_asks() -> None:
    """So a hub's requests belong to that call's trace."""
    trace: ContextVar[str] = ContextVar("trace")
    trace.set("of the call")
    shared = Opening(cast("Any", trace.get))
    assert shared.ask().result(60) == "of the call"


def test_a_forked_child_keeps_what_was_open_and_opens_anew_what_its_parent_was_opening() -> None:
    go = threading.Event()
    shared = Opening(cast("Any", lambda: go.wait(60)))
    left = shared.ask()
    with ThreadPoolExecutor(1) as pool, shared._lock:  # as if another thread had held it at the fork
        shared.renew_after_fork()
        again = pool.submit(shared.ask).result(60)
    assert again is not left
    go.set()
    assert again.result(60)
    shared.renew_after_fork()
    assert shared.ask() is again


def test_hub_options_go_to_the_hub_and_not_to_the_loader(embedding_checkpoint: Path) -> None:
    options = {"token": "hf_x", "cache_dir": "/there", "local_files_only": True}
    with slow_hub(lambda: str(embedding_checkpoint)) as hub:
        hub.go.set()
        given = {**options, "use_safetensors": True}
        embedder = Embedder("somebody/model", revision="main", model_kwargs=given, **OPTIONS)
        assert embedder.embed_documents(["a"]).shape == (1, 64)
    assert len(hub.asked) == 2
    for asked in hub.asked:
        assert {name: asked[name] for name in options} == options
        assert asked["revision"] == "main"
        assert "use_safetensors" not in asked
    assert EngineSettings("embedding", "m", model_kwargs={**options, "compile": True}).loader_options == {
        "compile": True
    }


def test_a_copy_is_made_of_the_arguments_secrets_included() -> None:
    embedder = Embedder("somebody/model", model_kwargs={"token": "hf_x"})
    for twin in (copy.copy(embedder), copy.deepcopy(embedder)):
        assert twin.arguments == embedder.arguments
