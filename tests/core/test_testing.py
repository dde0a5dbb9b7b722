"""Contracts for others find what they are there to find."""

from __future__ import annotations

import asyncio
import copy
import subprocess
import sys
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from qwen3_rag import Embedder
from qwen3_rag.testing.backend import EmbeddingBackendContract
from qwen3_rag.testing.event_loop import EventLoopContract, Gate, run_while_held
from qwen3_rag.testing.recording import holding, recording
from qwen3_rag.testing.weights import holds_tensor
from qwen3_rag.tokenization import PromptTokenizer
from qwen3_rag.tokens import Prompts


class Adapter:
    """Waits for its model on the event loop, or beside it."""

    def __init__(self, is_blocking: bool, patience_seconds: float = 30) -> None:
        self.gate = Gate(patience_seconds)
        self.is_blocking = is_blocking

    async def ask(self) -> int:
        await asyncio.sleep(0)
        if self.is_blocking:
            self.gate.wait()
        else:
            await asyncio.to_thread(self.gate.wait)
        return 7


class Contract(EventLoopContract):
    @contextmanager
    def hold(self, adapter: Adapter) -> Iterator[Gate]:
        yield adapter.gate


@pytest.mark.parametrize("times", [1, 20])
def test_an_adapter_that_blocks_the_event_loop_is_found(times: int) -> None:
    # A task beside it may get a turn before each call, and after each: no count of those tells.
    adapter = Adapter(is_blocking=True, patience_seconds=0.2)
    with pytest.raises(AssertionError, match="the event loop stood still"):
        Contract().check_loop_turns(adapter, adapter.ask, times)


@pytest.mark.parametrize("times", [1, 20])
def test_an_adapter_that_waits_beside_the_event_loop_passes(times: int) -> None:
    adapter = Adapter(is_blocking=False)
    assert Contract().check_loop_turns(adapter, adapter.ask, times) == [7] * times


def test_a_call_that_never_reaches_the_gate_proves_nothing() -> None:
    async def idle() -> None:
        await asyncio.sleep(0)

    async def run() -> None:
        await run_while_held([idle()], Gate())

    with pytest.raises(AssertionError, match="ended without the model"):
        asyncio.run(run())


def test_without_a_way_to_hold_the_model_the_test_is_skipped() -> None:
    with pytest.raises(pytest.skip.Exception, match="override `hold`"):
        EventLoopContract().check_loop_turns(None, lambda: asyncio.sleep(0))


def turned(embedder: Embedder, call: Awaitable[Any]) -> list[Any]:
    async def run(gate: Gate) -> list[Any]:
        return await run_while_held([call], gate)

    with holding(embedder) as gate:
        return asyncio.run(run(gate))


def test_a_component_is_held_while_it_loads_and_while_it_runs(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), device="cpu") as embedder:
        for _ in ("cold", "loaded"):
            assert turned(embedder, embedder.aembed_queries(["q"]))[0].shape == (1, 64)
        assert embedder.embed_queries(["not held any more"]).shape == (1, 64)


@pytest.mark.parametrize("fault", ["absent", "doubled"])
def test_a_closing_token_that_is_absent_or_doubled_is_found(fault: str, embedding_checkpoint: Path) -> None:
    # Both components have the fault, so that comparing one with the other shows nothing.
    encode_texts = PromptTokenizer.encode_texts

    def faulty(*args: Any, **kwargs: Any) -> Prompts:
        prompts = encode_texts(*args, **kwargs)
        return replace(prompts, prompts=[replace(p, token_ids=ids(p.token_ids)) for p in prompts.prompts])

    def ids(right: Any) -> Any:
        return np.append(right, right[-1]) if fault == "doubled" else np.append(right[:-1], right[0] + 1)

    check = EmbeddingBackendContract().test_the_backend_gets_token_ids_with_one_closing_token
    with Embedder(str(embedding_checkpoint), device="cpu") as one, copy.deepcopy(one) as other:
        check(one, other)
        with patch.object(PromptTokenizer, "encode_texts", faulty), pytest.raises(AssertionError):
            check(one, other)


_OF_ANOTHER_AUTHOR = """
from types import SimpleNamespace

import numpy as np
import pytest
from qwen3_rag.testing.backend import EmbeddingBackendContract


@pytest.fixture
def component():
    return SimpleNamespace(embed_documents=lambda texts: np.zeros((1, 2)), dimensions=7)


class TestMine(EmbeddingBackendContract):
    pass
"""


def test_what_fails_in_a_contract_shows_the_values(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(_OF_ANOTHER_AUTHOR)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "nothing", "test_mine.py"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300).stdout
    assert "assert (1, 2) == (0, 7)" in told


class _Model:
    def __init__(self) -> None:
        self.layers = {"first": [torch.zeros(1)]}


class _Slotted:
    __slots__ = ("model",)

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self) -> None: ...


def test_weights_are_found_wherever_they_are() -> None:
    assert holds_tensor(_Model())
    assert holds_tensor(_Slotted([_Model()]))
    assert holds_tensor({"a": (torch.nn.Linear(1, 1),)})


def test_configurations_hold_no_weights(embedding_checkpoint: Path) -> None:
    assert not holds_tensor(_Slotted({"a": [1.0, "b"]}))
    with Embedder(str(embedding_checkpoint), device="cpu") as embedder:
        assert not holds_tensor(embedder)
        assert holds_tensor(embedder.load())
        assert not holds_tensor(copy.deepcopy(embedder))


def test_a_recording_leaves_the_backend_as_it_was(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), device="cpu").load() as embedder:
        assert embedder.backend is not None
        with recording(embedder) as record:
            embedder.embed_documents(["a"])
        embedder.embed_documents(["b"])
        assert len(record.prompts) == 1
        assert "run" not in vars(embedder.backend)


def test_a_recording_sees_every_device(embedding_checkpoint: Path) -> None:
    texts = [f"a text of some length, number {i}" for i in range(2000)]
    with Embedder(str(embedding_checkpoint), device=["cpu", "cpu"]) as embedder, recording(embedder) as record:
        embedder.embed_documents(texts)
    assert len(record.prompts) == len(texts)
