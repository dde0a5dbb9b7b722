"""The adapters of all frameworks live and are copied by one set of rules."""

from __future__ import annotations

import asyncio
import copy
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from adapters import USES, component, every_adapter, every_pydantic_adapter
from haystack import Document as HaystackDocument
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder, Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from langchain_core.documents import Document
from langchain_qwen3_rag import Qwen3Embeddings, Qwen3Reranker
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from qwen3_rag import Embedder, Reranker
from qwen3_rag.testing.weights import holds_tensor


@pytest.fixture(scope="module")
def options(embedding_checkpoint: Path, reranking_checkpoint: Path) -> dict[Any, dict[str, Any]]:
    exact = {"dtype": "float32", "device": "cpu"}
    return {
        Embedder: {"model": str(embedding_checkpoint), **exact},
        Reranker: {"model": str(reranking_checkpoint), **exact},
    }


@pytest.fixture(scope="module", autouse=True)
def _loaded(options: dict[Any, dict[str, Any]]) -> Any:
    """Weights stay loaded while adapters come and go."""
    with Embedder(**options[Embedder]).load(), Reranker(**options[Reranker]).load():
        yield


@pytest.fixture
def own(adapter: Any, options: dict[Any, dict[str, Any]]) -> Any:
    """An adapter that made its component."""
    return adapter(**options[adapter.core_class])


@pytest.fixture
def given(adapter: Any, options: dict[Any, dict[str, Any]]) -> Any:
    """An adapter with a ready component."""
    return adapter(**{adapter.ready: adapter.core_class(**options[adapter.core_class])})


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns in the middle of what they do."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@every_adapter
def test_load_loads_and_says_what_it_is(own: Any) -> None:
    assert component(own).backend is None
    assert own.load() is own
    assert component(own).backend is not None


@every_adapter
def test_after_close_the_next_use_loads_again_and_usage_goes_on(adapter: Any, own: Any) -> None:
    with own as entered:
        assert entered is own
        before = USES[adapter](own)
    assert own.usage.texts == 1
    assert component(own).backend is None
    own.close()
    assert USES[adapter](own) == before
    assert component(own).backend is not None
    assert own.usage.texts == 2


@every_adapter
@pytest.mark.usefixtures("hasty_threads")
def test_threads_that_close_at_once_count_usage_once(adapter: Any, own: Any) -> None:
    USES[adapter](own)
    with ThreadPoolExecutor(8) as threads:
        together = threading.Barrier(8)
        ended = [threads.submit(lambda: (together.wait(60), own.close())) for _ in range(8)]
    assert [one.exception() for one in ended] == [None] * 8
    assert own.usage.texts == 1
    assert component(own).backend is None


@pytest.mark.parametrize("adapter", [Qwen3Embeddings, Qwen3Rerank, Qwen3TextEmbedder])
def test_calls_come_through_while_threads_close(adapter: Any, own: Any) -> None:
    """Another component keeps the weights, so that no close ends a call."""
    expected = USES[adapter](own)
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(task, own) for _ in range(8) for task in (USES[adapter], adapter.close)][::2]
    assert [one.result() for one in calls] == [expected] * 8
    assert own.usage.texts == 9


@every_adapter
def test_a_ready_component_stays_open(adapter: Any, given: Any) -> None:
    ready = component(given)
    with given:
        USES[adapter](given)
    given.close()
    assert component(given) is ready
    assert ready.backend is not None
    assert given.usage == ready.usage


@every_adapter
def test_a_shallow_copy_works_with_the_same_ready_component(adapter: Any, given: Any) -> None:
    with copy.copy(given) as copied:
        assert component(copied) is component(given)
        USES[adapter](copied)
    assert component(given).backend is not None


@every_adapter
def test_closing_a_copy_leaves_the_original_open(adapter: Any, own: Any) -> None:
    USES[adapter](own)
    backend = component(own).backend
    for make in (copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))):
        with make(own) as copied:
            assert component(copied) is not component(own)
        assert component(own).backend is backend


@every_pydantic_adapter
def test_pydantics_older_copy_closes_nothing_of_the_original_and_heeds_its_changes(
    adapter: Any, own: Any
) -> None:
    USES[adapter](own)
    with own.copy(update={"max_tokens": 100}) as copied:
        assert component(copied).arguments["max_tokens"] == 100
    assert component(own).backend is not None


@every_adapter
def test_a_deep_copy_of_an_adapter_with_a_ready_component_closes_its_own(adapter: Any, given: Any) -> None:
    USES[adapter](given)
    for make in (copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))):
        copied = make(given)
        USES[adapter](copied)
        its_own = component(copied)
        assert its_own is not component(given)
        copied.close()
        assert its_own.backend is None
        assert component(given).backend is not None


@every_adapter
@pytest.mark.parametrize("kind", ["own", "given"])
def test_what_travels_is_no_weights_but_finds_those_that_are_loaded(
    adapter: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    used = request.getfixturevalue(kind)
    expected = USES[adapter](used)
    assert holds_tensor(used)
    for copied in (copy.deepcopy(used), pickle.loads(pickle.dumps(used))):
        assert component(copied)._engine is None
        assert component(copied).backend is None
        assert not holds_tensor(copied)
        assert component(copied).arguments == component(used).arguments
        assert USES[adapter](copied) == expected
        assert component(copied).backend is component(used).backend


def nodes(texts: list[str]) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text)) for text in texts]


def haystack_documents(texts: list[str]) -> list[HaystackDocument]:
    return [HaystackDocument(content=text) for text in texts]


LISTS: dict[Any, tuple[Callable[[list[str]], list[Any]], Callable[[Any, list[Any]], Any]]] = {
    Qwen3Reranker: (lambda texts: [*map(Document, texts)], lambda a, given: a.acompress_documents(given, "q")),
    Qwen3Rerank: (nodes, lambda a, given: a.apostprocess_nodes(given, query_str="q")),
    Qwen3DocumentEmbedder: (haystack_documents, lambda a, given: a.run_async(given)),
    Qwen3Ranker: (haystack_documents, lambda a, given: a.run_async("q", given)),
}


@pytest.mark.parametrize("adapter", [Qwen3Reranker, Qwen3Rerank, Qwen3Ranker])
def test_for_no_documents_no_reranker_is_looked_for(adapter: Any) -> None:
    found = asyncio.run(LISTS[adapter][1](adapter(model="no/such-model"), []))
    assert (found["documents"] if adapter is Qwen3Ranker else found) == []


@pytest.mark.parametrize("adapter", LISTS)
@pytest.mark.parametrize("change", [list.reverse, list.clear], ids=["reversed", "cleared"])
def test_what_the_owner_does_to_a_list_while_a_call_waits_is_not_seen(
    adapter: Any, change: Callable[[list[Any]], None], own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, call = LISTS[adapter]
    given = make(["Beijing is a city.", "Cats sleep.", "Gravity pulls."])
    expected = asyncio.run(call(own, list(given)))
    backend = component(own).backend
    running, gate, run = threading.Event(), threading.Event(), backend.run

    def held_up(prompts: Any) -> Any:
        running.set()
        assert gate.wait(60)
        return run(prompts)

    async def changed() -> Any:
        task = asyncio.create_task(call(own, given))
        while not running.is_set():
            await asyncio.sleep(0.001)
        change(given)
        gate.set()
        return await task

    monkeypatch.setattr(backend, "run", held_up)
    assert asyncio.run(changed()) == expected
