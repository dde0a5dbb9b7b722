"""A user's subclass with a constructor, fields and validators of its own works, and is copied as it stands."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from typing import Any

import pytest
from copies import every_copy
from llama_index.core.callbacks import CallbackManager
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator
from qwen3_rag import ConfigurationError, Embedder, Reranker
from qwen3_rag.testing.llama_index import QUERY, TEXTS, events, nodes


class Task(Qwen3Embedding):
    """Has an argument of its own, which it keeps in a private attribute, and a lock."""

    _task: str = PrivateAttr()
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, task: str, **options: Any) -> None:
        super().__init__(instruction=f"Find code that can {task}", **options)
        self._task = task


class Floor(Qwen3Rerank):
    """Has fields of its own, one of which is not saved, and passes nothing on."""

    floor: float = Field(default=0.1, le=1)
    note: str = Field(exclude=True)

    def __init__(self, size: str, floor: float) -> None:
        super().__init__(model=f"Qwen/Qwen3-Reranker-{size}", floor=floor, note="n")


class Polite(Qwen3Rerank):
    """Changes what it is given, each time that it is asked."""

    @field_validator("instruction")
    @classmethod
    def _please(cls, instruction: str | None) -> str:
        return f"Please: {instruction}"


class Sized(Qwen3Embedding):
    """Takes the model's size, and another name for an option."""

    max_tokens: int = Field(default=512, alias="longest")

    @model_validator(mode="before")
    @classmethod
    def _named_by_size(cls, options: dict[str, Any]) -> dict[str, Any]:
        size = options.pop("size", None)
        return options if size is None else {**options, "model": f"Qwen/Qwen3-Embedding-{size}"}


@every_copy
def test_no_constructor_is_needed_for_a_copy(make: Any) -> None:
    made = Task("sort", model="demo", dimensions=32)
    twin = make(made)
    assert type(twin) is Task
    assert (twin._task, twin.instruction, twin.model_name) == ("sort", "Find code that can sort", "demo")
    assert twin.embedder.arguments == made.embedder.arguments
    assert twin.embedder is not made.embedder
    assert twin.to_dict() == made.to_dict()


@every_copy
def test_fields_of_a_subclass_are_kept(make: Any) -> None:
    twin = make(Floor("4B", 0.3))
    assert (twin.floor, twin.model, twin.note) == (0.3, "Qwen/Qwen3-Reranker-4B", "n")
    assert twin.callback_manager.handlers == []


@every_copy
def test_validators_do_not_see_a_value_twice(make: Any) -> None:
    twin = make(Polite(instruction="rank"))
    assert twin.instruction == twin.reranker.arguments["instruction"] == "Please: rank"


def test_what_a_copy_changes_is_validated_and_nothing_else() -> None:
    changed = Polite(instruction="rank").model_copy(update={"top_n": "7"})
    assert (changed.top_n, changed.instruction) == (7, "Please: rank")
    with pytest.raises(ValidationError, match="floor"):
        Floor("4B", 0.3).model_copy(update={"floor": 2})
    with pytest.raises(ConfigurationError, match=r"Floor has no option size; there are: .*floor"):
        Floor("4B", 0.3).model_copy(update={"size": "8B"})


def test_copies_share_callbacks_and_cache_which_pickles_leave_behind() -> None:
    store, callbacks = SimpleKVStore(), CallbackManager([])
    made = Task("sort", embeddings_cache=store, callback_manager=callbacks)
    for twin in (copy.copy(made), copy.deepcopy(made), made.model_copy(update={"dimensions": 32})):
        assert twin.embeddings_cache.store is store
        assert twin.callback_manager is callbacks
    twin = pickle.loads(pickle.dumps(made))
    assert twin.embeddings_cache is None
    assert twin.callback_manager.handlers == []


def test_a_copy_of_other_options_has_other_keys_in_the_same_cache(embedder: Embedder) -> None:
    cached = Qwen3Embedding(embedder=embedder, embeddings_cache=SimpleKVStore())
    whole = cached.get_text_embedding("a")
    assert len(cached.model_copy(update={"dimensions": 32}).get_text_embedding("a")) == 32
    assert cached.get_text_embedding("a") == whole


def test_a_pipeline_may_use_processes(embedder: Embedder) -> None:
    options = {name: value for name, value in embedder.arguments.items() if name != "instruction"}
    task = Task("sort", **options)
    run = IngestionPipeline(transformations=[task])
    embedded = run.run(nodes=[TextNode(text=text) for text in TEXTS], num_workers=2)
    expected = task.get_text_embedding_batch(TEXTS)
    assert [node.embedding for node in embedded] == [pytest.approx(vector, abs=1e-5) for vector in expected]


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("max_tokens", -1, ConfigurationError),
        ("top_n", -1, ValidationError),
        ("floor", "low", ValidationError),
        ("flor", 0.1, ConfigurationError),
    ],
)
def test_what_is_unpickled_is_checked(name: str, value: Any, error: type[Exception]) -> None:
    remake, (cls, state) = Floor("4B", 0.3).__reduce__()
    state.fields[name] = value
    with pytest.raises(error, match=name):
        remake(cls, state)


def test_aliases_and_names_of_ones_own_are_taken() -> None:
    assert Sized(size="4B").embedder.model == "Qwen/Qwen3-Embedding-4B"
    made = Sized(model_name="demo", longest=99)
    for twin in (made, copy.copy(made), pickle.loads(pickle.dumps(made)), Sized.from_dict(made.to_dict())):
        assert (twin.embedder.model, twin.embedder.arguments["max_tokens"]) == ("demo", 99)
    with pytest.raises(ConfigurationError, match=r"Sized has no option sise; there are: .*max_tokens, longest"):
        Sized(sise="4B")


class Lower(Qwen3Embedding):
    """Overrides only what is sync."""

    def _get_query_embedding(self, query: str) -> list[float]:
        return super()._get_query_embedding(query.lower())

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return super()._get_text_embeddings([text.lower() for text in texts])


class Best(Qwen3Rerank):
    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return super()._postprocess_nodes(nodes, query_bundle)[:1]


def test_async_calls_go_through_an_overridden_sync_method(embedder: Embedder, reranker: Reranker) -> None:
    lower = Lower(embedder=embedder)
    assert asyncio.run(lower.aget_query_embedding("A")) == lower.get_query_embedding("a")
    assert asyncio.run(lower.aget_text_embedding("A")) == lower.get_text_embedding("a")
    batch = asyncio.run(lower.aget_text_embedding_batch(["A", "B"]))
    assert batch == lower.get_text_embedding_batch(["a", "b"])
    best = Best(reranker=reranker, top_n=None)
    with events() as seen:
        found = asyncio.run(best.apostprocess_nodes(nodes(), query_str=QUERY))
    assert [event.class_name() for event in seen] == ["ReRankStartEvent", "ReRankEndEvent"]
    assert found == best.postprocess_nodes(nodes(), query_str=QUERY)
    assert len(found) == 1
