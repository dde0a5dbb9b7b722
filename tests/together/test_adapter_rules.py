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

import numpy as np
import pytest
from haystack import Document as HaystackDocument
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder, Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from langchain_core.documents import Document
from langchain_qwen3_rag import Qwen3CrossEncoder, Qwen3Embeddings, Qwen3Reranker
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from pydantic import BaseModel
from qwen3_rag import ConfigurationError, Embedder, Reranker
from qwen3_rag.testing.weights import holds_tensor
from transformers import BitsAndBytesConfig

USES: dict[Any, Callable[[Any], Any]] = {
    Qwen3Embeddings: lambda a: a.embed_query("q"),
    Qwen3Reranker: lambda a: a.compress_documents([Document("d")], "q"),
    Qwen3CrossEncoder: lambda a: a.score([("q", "d")]),
    Qwen3Embedding: lambda a: a.get_query_embedding("q"),
    Qwen3Rerank: lambda a: (
        a.postprocess_nodes([NodeWithScore(node=TextNode(text="d"))], query_str="q")[0].score
    ),
    Qwen3TextEmbedder: lambda a: a.run("q")["embedding"],
    Qwen3DocumentEmbedder: lambda a: a.run([HaystackDocument(content="d")])["documents"],
    Qwen3Ranker: lambda a: a.run("q", [HaystackDocument(content="d")])["documents"],
}
every_adapter = pytest.mark.parametrize("adapter", USES)
every_pydantic_adapter = pytest.mark.parametrize("adapter", [a for a in USES if issubclass(a, BaseModel)])


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


def component(adapter: Any) -> Any:
    return getattr(adapter, adapter.ready)


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
def test_a_path_names_a_folder_and_is_kept_as_a_string(adapter: Any, tmp_path: Path) -> None:
    made = adapter(model=tmp_path)
    for one in (made, copy.copy(made), pickle.loads(pickle.dumps(made))):
        assert one.model == component(one).arguments["model"] == str(tmp_path)
    assert adapter(**{adapter.ready: adapter.core_class(tmp_path)}, model=tmp_path).model == str(tmp_path)
    written = made.model_dump() if issubclass(adapter, BaseModel) else made.to_dict()["init_parameters"]
    assert str(tmp_path) in written.values()


@every_pydantic_adapter
def test_dumps_inside_other_models_tell_quantisations_apart(adapter: Any) -> None:
    class Step(BaseModel):
        model: adapter

    def step(**options: Any) -> Step:
        config = BitsAndBytesConfig(**options)
        return Step(model=adapter(model_kwargs={"quantization_config": config, "nested": [{"config": config}]}))

    four, eight = step(load_in_4bit=True), step(load_in_8bit=True)
    assert four.model_dump() != eight.model_dump()
    assert four.model_dump_json() != eight.model_dump_json()
    assert four.model_dump() == step(load_in_4bit=True).model_dump()
    again = Step.model_validate_json(four.model_dump_json())
    assert again.model.model_kwargs["quantization_config"]["load_in_4bit"] is True
    assert again.model.model_kwargs["nested"][0]["config"]["quant_method"] == "bitsandbytes"


@every_pydantic_adapter
def test_what_an_options_own_dict_holds_is_dumped_without_secrets(adapter: Any) -> None:
    class Config:
        def to_dict(self) -> dict[str, Any]:
            return {"bits": 4, "hf_token": "sk-1"}

    made = adapter(model_kwargs={"config": Config()})
    assert made.model_dump()["model_kwargs"] == {"config": {"bits": 4}}
    assert "sk-1" not in made.model_dump_json()


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


@every_pydantic_adapter
def test_what_pydantic_refuses_shows_no_key(adapter: Any) -> None:
    with pytest.raises(ValueError, match="modl") as refused:
        adapter.model_validate({"modl": "demo", "model_kwargs": {"api_key": "sk-secret"}})
    assert "sk-secret" not in str(refused.value)


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


@every_adapter
@pytest.mark.parametrize("kwargs", [{"token": "sk-1"}, {"a": [{"X-Api-Key": "sk-1"}]}, {"password": ["sk-1"]}])
def test_a_secret_is_copied_and_not_pickled(adapter: Any, kwargs: dict[str, Any]) -> None:
    made = adapter(model_kwargs=kwargs)
    for copied in (copy.copy(made), copy.deepcopy(made)):
        assert component(copied).arguments["model_kwargs"] == kwargs
    with pytest.raises(TypeError, match=r"model_kwargs\[.*holds a secret") as caught:
        pickle.dumps(made)
    assert "sk-1" not in str(caught.value)


@every_adapter
def test_a_ready_component_of_another_kind_is_refused(adapter: Any) -> None:
    wrong = Reranker if adapter.core_class is Embedder else Embedder
    with pytest.raises(
        ConfigurationError, match=f"{adapter.ready} must be a qwen3_rag.*, got {wrong.__name__}"
    ):
        adapter(**{adapter.ready: wrong()})


@every_adapter
@pytest.mark.parametrize("given_devices", [["cpu", "cpu"], ("cpu", "cpu")])
def test_devices_beside_a_ready_component_are_a_list_or_a_tuple(adapter: Any, given_devices: Any) -> None:
    ready = adapter.core_class(device=["cpu", "cpu"])
    assert component(adapter(**{adapter.ready: ready}, device=given_devices)) is ready


@every_adapter
def test_an_option_is_not_assigned_and_its_value_not_shown(adapter: Any) -> None:
    made = adapter(model="some/model")
    for name in [*component(made).arguments, adapter.ready]:
        with pytest.raises(ConfigurationError, match=rf"^{name} of a {adapter.__name__} is fixed") as caught:
            setattr(made, name, {"api_key": "sk-1"})
        assert "sk-1" not in str(caught.value)
    assert component(made).arguments == component(adapter(model="some/model")).arguments


@every_adapter
def test_what_the_caller_does_to_its_own_options_later_is_not_seen(adapter: Any) -> None:
    devices, kwargs = ["cpu"], {"a": 1}
    made = adapter(device=devices, model_kwargs=kwargs)
    devices.append("cuda")
    kwargs["b"] = 2
    for one in (made, copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert (one.device, one.model_kwargs) == (["cpu"], {"a": 1})
        assert component(one).arguments["device"] == ["cpu"]
        assert component(one).arguments["model_kwargs"] == {"a": 1}


WRONG = [{"max_tokens": -1}, {"max_tokens": 50.5}, {"dimensions": 3}, {"dimensions": True}]


@every_adapter
@pytest.mark.parametrize("wrong", WRONG)
def test_a_number_that_no_model_takes_is_refused_at_once(adapter: Any, wrong: dict[str, Any]) -> None:
    (name,) = wrong
    if name == "dimensions" and adapter.core_class is Reranker:
        pytest.skip("a score has no dimensions")
    with pytest.raises((ValueError, TypeError), match=name):
        adapter(model="no/such-model", **wrong)


@every_adapter
def test_numpys_whole_numbers_are_taken(adapter: Any) -> None:
    made = adapter(model="no/such-model", max_tokens=np.int64(77))
    assert made.max_tokens == component(made).arguments["max_tokens"] == 77
    assert type(component(made).arguments["max_tokens"]) is int


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
