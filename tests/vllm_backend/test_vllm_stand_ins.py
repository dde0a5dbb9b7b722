"""What is made of what vLLM answers and raises, with objects in the place of its engines."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from qwen3_rag import BackendError, ConfigurationError, PromptTooLongError
from qwen3_rag.backends.device.memory import CPU_TOKEN_BUDGET
from qwen3_rag.backends.vllm import VllmBackend, VllmDiedError, VllmStartError, backend, create, engine
from qwen3_rag.backends.vllm.arguments import EngineArguments
from qwen3_rag.errors import MissingExtraError
from qwen3_rag.settings import EngineSettings
from sum_backend import ids


class EngineDeadError(Exception):
    """Named as vLLM's, which is in a private module."""


class Scripted:
    """An engine that answers as it is told.

    Attributes:
        made: all engines, oldest first.
        pool: what its calls do.
    """

    made: list[Scripted]
    pool: Callable[[Sequence[list[int]]], list[engine.Pooled]]

    def __init__(self, *_: Any) -> None:
        self.stops = 0
        self.made.append(self)

    def stop(self) -> None:
        self.stops += 1


class Copies(Scripted):
    """In the place of `ParallelEngine`."""


@pytest.fixture(scope="module", autouse=True)
def _what_is_there_is_not_collected() -> Iterator[None]:
    """Stopping an engine collects garbage, which takes a second among a million objects of modules."""
    import vllm  # noqa: F401

    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "made", [], raising=False)
    monkeypatch.setattr(Scripted, "pool", staticmethod(sums), raising=False)
    monkeypatch.setattr(backend, "OfflineEngine", Scripted)
    monkeypatch.setattr(backend, "ParallelEngine", Copies)


def sums(prompts: Sequence[list[int]]) -> list[engine.Pooled]:
    """The sum of each prompt's ids, of which one less than all but the last were in the cache."""
    return [engine.Pooled(np.array([sum(ids)], np.float32), len(ids) - 2) for ids in prompts]


def made(kind: Any = "reranking", *, hidden_size: int = 1, parallel: bool = False) -> VllmBackend:
    arguments = EngineArguments({"model": "small", "dtype": "float32"}, torch.device("cpu"), max_model_len=4)
    return VllmBackend(kind, arguments, hidden_size=hidden_size, parallel=parallel, token_budget=100)


def test_answers_keep_their_order_and_tokens_in_the_cache_were_not_computed() -> None:
    output = made().run([ids(1, 2, 3, 4), ids(5, 6)])
    assert output.values.tolist() == [10, 11]
    assert output.computed.tolist() == [2, 2]


def test_no_prompts_have_no_answers() -> None:
    assert made().run([]).values.shape == (0,)
    assert made("embedding", hidden_size=3).run([]).values.shape == (0, 3)


def test_a_prompt_that_is_too_long_reaches_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Scripted, "pool", staticmethod(asked.append))
    with pytest.raises(PromptTooLongError, match=r'5 tokens.*max_model_len=4.*"max_model_len": 5'):
        made().run([ids(1), ids(1, 2, 3, 4, 5)])
    assert asked == []


def test_an_engine_that_died_is_stopped_and_the_next_call_starts_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dies(_: Any) -> Any:
        raise EngineDeadError("EngineCore_DP0")

    tested = made()
    monkeypatch.setattr(Scripted, "pool", staticmethod(dies))
    with pytest.raises(VllmDiedError, match=r"small died.*the next call starts another") as caught:
        tested.run([ids(1)])
    assert isinstance(caught.value.__cause__, EngineDeadError)
    assert [one.stops for one in Scripted.made] == [1]
    monkeypatch.setattr(Scripted, "pool", staticmethod(sums))
    assert tested.run([ids(1, 2)]).values.tolist() == [3]
    tested.close()
    tested.close()
    assert [one.stops for one in Scripted.made] == [1, 1]


def test_trouble_with_stopping_a_dead_engine_does_not_hide_that_it_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    died, unstoppable = EngineDeadError("EngineCore_DP0"), OSError("its socket is gone")
    tested = made()
    monkeypatch.setattr(Scripted, "pool", MagicMock(side_effect=died))
    monkeypatch.setattr(Scripted, "stop", MagicMock(side_effect=unstoppable))
    with pytest.raises(VllmDiedError, match="small died") as caught:
        tested.run([ids(1)])
    assert caught.value.__cause__ is unstoppable
    assert unstoppable.__context__ is died
    monkeypatch.setattr(Scripted, "pool", staticmethod(sums))
    assert tested.run([ids(1, 2)]).values.tolist() == [3]


def test_any_other_error_is_the_calls_and_leaves_the_engine_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_: Any) -> Any:
        raise BackendError("vLLM refused a prompt")

    tested = made()
    monkeypatch.setattr(Scripted, "pool", staticmethod(refuses))
    with pytest.raises(BackendError, match="refused a prompt"):
        tested.run([ids(1)])
    monkeypatch.setattr(Scripted, "pool", staticmethod(sums))
    assert tested.run([ids(1, 2)]).values.tolist() == [3]
    assert [one.stops for one in Scripted.made] == [0]


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (TypeError("no_such_argument"), ConfigurationError, "refuses its arguments: no_such_argument"),
        (ValueError("too large"), ConfigurationError, "refuses its arguments: too large"),
        (torch.OutOfMemoryError("out of memory"), torch.OutOfMemoryError, "^out of memory$"),
        (MissingExtraError("vllm", "vllm"), MissingExtraError, "pip install"),
        (ImportError("no vllm._C"), ImportError, "^no vllm._C$"),
        (RuntimeError("Engine core failed"), VllmStartError, "could not start: Engine core failed"),
    ],
    ids=repr,
)
def test_why_vllm_did_not_start_is_told(
    raised: Exception, expected: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise raised

    monkeypatch.setattr(backend, "OfflineEngine", fails)
    with pytest.raises(expected, match=message) as caught:
        made()
    assert raised in (caught.value, caught.value.__cause__)


@pytest.mark.parametrize(
    ("parallel", "own_process", "advised"), [(False, "0", False), (False, "1", True), (True, "0", True)]
)
def test_scripts_are_told_of_the_guard_where_vllm_imports_them_again(
    parallel: bool, own_process: str, advised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("Engine core failed")

    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", own_process)
    monkeypatch.setattr(backend, "ParallelEngine" if parallel else "OfflineEngine", fails)
    with pytest.raises(VllmStartError) as caught:
        made(parallel=parallel)
    assert ("__main__" in str(caught.value)) == advised


@pytest.mark.parametrize(
    ("copies", "longest", "asked", "budget"),
    [
        (1, 1000, None, CPU_TOKEN_BUDGET),
        (1, CPU_TOKEN_BUDGET + 1, None, CPU_TOKEN_BUDGET + 1),
        (2, 1000, None, 2 * CPU_TOKEN_BUDGET),
        (2, 1000, 77, 77),
    ],
)
def test_one_run_brings_work_for_all_copies_and_the_longest_prompt(
    copies: int, longest: int, asked: int | None, budget: int, embedding_folder: Path
) -> None:
    options = {"data_parallel_size": copies, "max_model_len": longest}
    settings = EngineSettings(
        "embedding", str(embedding_folder), "vllm", "cpu", token_budget=asked, model_kwargs=options
    )
    started = create(settings)
    assert started.token_budget == budget
    assert started.concurrency == 1, "vLLM batches what one run brings"
    assert started.device.type == "cpu"
    assert [type(one) for one in Scripted.made] == [Copies if copies > 1 else Scripted]


def test_weights_of_a_hub_are_fetched(embedding_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def download(model: str, allow_patterns: list[str], **_: Any) -> str:
        patterns.append((model, "*.safetensors" in allow_patterns))
        return str(embedding_folder)

    patterns: list[Any] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    create(EngineSettings("embedding", "nobody/small", "vllm", "cpu"))
    assert patterns == [("nobody/small", True)]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[engine.Pooled]]]:
    """Has the engine of `vllm.LLM` give these answers."""
    import vllm

    answers: list[dict[str, Any]] = []

    def embed(prompts: list[Any], **_: Any) -> list[Any]:
        assert [prompt["prompt_token_ids"] for prompt in prompts] == [[i] for i in range(len(answers))]
        return [SimpleNamespace(outputs=SimpleNamespace(embedding=[3.0, 4.0]), **answer) for answer in answers]

    monkeypatch.setattr(vllm, "LLM", lambda **_: SimpleNamespace(embed=embed))
    tested = engine.OfflineEngine("embedding", {})

    def pool(*given: dict[str, Any]) -> list[engine.Pooled]:
        answers[:] = given
        return tested.pool([[i] for i in range(len(given))])

    yield pool
    tested.stop()


def test_what_a_release_does_not_tell_of_the_cache_counts_as_computed(
    offline: Callable[..., list[engine.Pooled]],
) -> None:
    told = [{}, {"num_cached_tokens": None}, {"num_cached_tokens": -1}, {"num_cached_tokens": 5, "error": None}]
    found = offline(*told)
    assert [one.cached for one in found] == [0, 0, 0, 5]
    assert [one.values.tolist() for one in found] == [[3, 4]] * 4
    assert {one.values.dtype for one in found} == {np.dtype(np.float32)}


def test_a_prompt_that_vllm_refuses_is_an_error_and_no_vector(
    offline: Callable[..., list[engine.Pooled]],
) -> None:
    with pytest.raises(BackendError, match="refused a prompt: too long"):
        offline({}, {"error": "too long"})


def test_a_copy_that_ends_a_request_without_an_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import AsyncLLMEngine

    async def encode(*_: Any) -> Any:
        yield SimpleNamespace(finished=False)

    made = SimpleNamespace(encode=encode, shutdown=lambda: None)
    monkeypatch.setattr(AsyncLLMEngine, "from_engine_args", lambda _: made)
    parallel = engine.ParallelEngine("embedding", {"model": "m"})
    with pytest.raises(BackendError, match="without an answer"):
        parallel.pool([[1, 2]])
    parallel.stop()


def test_after_a_prompt_that_fails_the_copies_compute_none_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vllm import AsyncLLMEngine

    stopped: list[int] = []

    async def encode(prompt: Any, *_: Any) -> Any:
        (number,) = prompt["prompt_token_ids"]
        if number == 2:
            raise ValueError("no such prompt")
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(number)
        yield

    made = SimpleNamespace(encode=encode, shutdown=lambda: None)
    monkeypatch.setattr(AsyncLLMEngine, "from_engine_args", lambda _: made)
    parallel = engine.ParallelEngine("embedding", {"model": "m"})
    with pytest.raises(ValueError, match="no such prompt"):
        parallel.pool([[1], [2], [3]])
    assert sorted(stopped) == [1, 3]
    parallel.stop()


def test_copies_that_do_not_start_leave_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import AsyncLLMEngine

    def fails(_: Any) -> Any:
        threads.append(threading.current_thread())
        raise RuntimeError("Engine core failed")

    threads: list[threading.Thread] = []
    monkeypatch.setattr(AsyncLLMEngine, "from_engine_args", fails)
    with pytest.raises(RuntimeError, match="Engine core failed"):
        engine.ParallelEngine("embedding", {"model": "m"})
    assert [thread.is_alive() for thread in threads] == [False]
