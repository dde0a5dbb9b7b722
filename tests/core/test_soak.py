"""Threads and coroutines, cancellations, failures and closes all at once: every call ends, and ends right."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from qwen3_rag import DeadlineExceededError, Embedder, EngineClosedError, engines

THREADS, COROUTINES, CALLS = 64, 200, 2000
TEXTS = [f"text {i} " * (1 + i % 3) for i in range(97)]
# The budget sets these engines apart from those that other tests may have left open.
OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu", "token_budget": 4093}
POISON = "a text that the model chokes on"


class InjectedError(Exception):
    pass


@contextmanager
def choking(embedder: Embedder) -> Iterator[None]:
    """Rounds that hold the poisonous text fail."""
    backend = embedder.load().backend
    assert backend is not None
    run = backend.run

    def poisoned(prompts: Any) -> Any:
        if any(prompt.words.text == POISON for prompt in prompts):
            raise InjectedError
        return run(prompts)

    with patch.object(backend, "run", poisoned):
        yield


def one_round(checkpoint: Path, expected: np.ndarray, seed: int, models: list[Any]) -> dict[str, int]:
    """Make all calls once, check results, and count how calls ended. Adds the model used to `models`."""
    options: dict[str, Any] = {**OPTIONS, "max_queued": 100}
    ends = {"right": 0, "failed": 0, "cancelled": 0, "late": 0, "closed": 0}
    counting = threading.Lock()
    embedder = Embedder(str(checkpoint), **options)

    def check(texts: list[int], vectors: np.ndarray) -> None:
        np.testing.assert_allclose(vectors, expected[texts], atol=1e-5)

    def count(end: str) -> None:
        with counting:
            ends[end] += 1

    def call(number: int) -> None:
        chance = random.Random((seed, number).__hash__())
        chosen = [chance.randrange(len(TEXTS)) for _ in range(chance.choice((1, 1, 1, 5)))]
        # Now and then a component of its own shares the engine for one call, is in a hurry, and closes;
        # or has an engine of its own, closed while it works.
        own = embedder
        if chance.random() < 0.05:
            own = Embedder(str(checkpoint), timeout=chance.choice((0.02, 60)), **options)
        elif chance.random() < 0.02:
            own = Embedder(str(checkpoint), **{**options, "token_budget": 4000 + number})
            threading.Timer(chance.random() * 0.1, own.close).start()
        try:
            if chance.random() < 0.02:
                own.embed_documents([*(TEXTS[i] for i in chosen), POISON])
                count("right")  # by an engine of its own, that does not choke
            else:
                check(chosen, own.embed_documents([TEXTS[i] for i in chosen]))
                count("right")
        except InjectedError:
            count("failed")
        except DeadlineExceededError:
            count("late")
        except EngineClosedError:
            count("closed")
        finally:
            if own is not embedder:
                own.close()

    async def acall(number: int) -> None:
        chance = random.Random((seed, -number).__hash__())
        chosen = [chance.randrange(len(TEXTS)) for _ in range(chance.choice((1, 1, 1, 5)))]
        poison = [POISON] if chance.random() < 0.02 else []
        task = asyncio.ensure_future(embedder.aembed_documents([*(TEXTS[i] for i in chosen), *poison]))
        if chance.random() < 0.1:
            await asyncio.sleep(chance.random() * 0.05)
            task.cancel()
        try:
            check(chosen, await task)
            count("right")
        except InjectedError:
            count("failed")
        except asyncio.CancelledError:
            count("cancelled")

    async def coroutines() -> None:
        queue = iter(range(CALLS // 2))

        async def worker() -> None:
            for number in queue:
                await acall(number)

        await asyncio.gather(*(worker() for _ in range(COROUTINES)))

    with choking(embedder), ThreadPoolExecutor(THREADS) as pool:
        threads = [pool.submit(call, number) for number in range(CALLS - CALLS // 2)]
        asyncio.run(asyncio.wait_for(coroutines(), 600))
        for future in threads:
            future.result(120)
    assert (embedder.metrics.queued_calls, embedder.metrics.waiting_calls) == (0, 0)
    models.append(weakref.ref(embedder.backend._model.decoder))  # type: ignore[union-attr]
    embedder.close()
    return ends


def soak(checkpoint: Path, seconds: float) -> None:
    with Embedder(str(checkpoint), **OPTIONS) as alone:
        expected = np.concatenate([alone.embed_documents([text]) for text in TEXTS])
    models: list[Any] = []
    before, open_before = set(threading.enumerate()), len(engines._engines)
    deadline, seed = time.monotonic() + seconds, 0
    while True:
        ends = one_round(checkpoint, expected, seed, models)
        assert sum(ends.values()) == CALLS
        assert min(ends[end] for end in ("right", "failed", "cancelled")) > 0, ends
        seed += 1
        if time.monotonic() >= deadline:
            break
    gc.collect()
    assert [model() for model in models] == [None] * seed
    assert len(engines._engines) == open_before
    started = {each for each in threading.enumerate() if each.name.startswith("qwen3-rag-engine")} - before
    for thread in started:
        thread.join(60)  # nobody waits for an engine that was closed while it loaded
    assert not any(thread.is_alive() for thread in started)


def test_two_thousand_mixed_calls_all_end_right(embedding_checkpoint: Path) -> None:
    soak(embedding_checkpoint, 0)


@pytest.mark.soak
@pytest.mark.skipif("QWEN3_RAG_SOAK_SECONDS" not in os.environ, reason="set QWEN3_RAG_SOAK_SECONDS to run it")
def test_minutes_of_mixed_calls_all_end_right(embedding_checkpoint: Path) -> None:
    soak(embedding_checkpoint, float(os.environ["QWEN3_RAG_SOAK_SECONDS"]))
