"""Constructors, copies and serialised forms."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import pickle
import subprocess
import sys
from typing import Any

import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from pydantic import SecretStr
from qwen3_rag import ConfigurationError, Embedder, EngineClosedError, Reranker
from qwen3_rag.plugins import ADAPTERS, load_plugin

PAIRS: Any = [(Qwen3Embedding, Embedder), (Qwen3Rerank, Reranker)]
CLASSES: Any = [Qwen3Embedding, Qwen3Rerank]
CHANGED: dict[str, Any] = {
    "backend": "vllm",
    "instruction": "code",
    "max_tokens": 512,
    "device": ["cpu", "cpu"],
    "dtype": "float32",
    "revision": "main",
    "hub": "modelscope",
    "parse_special_tokens": True,
    "token_budget": 99,
    "share_prefixes": False,
    "timeout": 9.5,
    "max_wait_ms": 2.0,
    "max_queued": 7,
    "model_kwargs": {"attn": False},
}


@pytest.mark.parametrize(("adapter", "core"), PAIRS)
def test_every_option_of_the_core_is_there_with_its_default(adapter: Any, core: Any) -> None:
    ours = inspect.signature(adapter).parameters
    for name, parameter in inspect.signature(core).parameters.items():
        assert ours[name].default == parameter.default, name


@pytest.mark.parametrize(("adapter", "core"), PAIRS)
def test_every_option_reaches_the_core(adapter: Any, core: Any) -> None:
    options = {"model": "a/b", **CHANGED}
    if adapter is Qwen3Embedding:
        options["dimensions"] = 64
    assert set(options) == set(inspect.signature(core).parameters)
    made = adapter(**options)
    component = made.embedder if adapter is Qwen3Embedding else made.reranker
    assert component.arguments == options


@pytest.mark.parametrize("adapter", CLASSES)
def test_construction_imports_no_torch(adapter: Any) -> None:
    program = f"import sys; from {adapter.__module__} import {adapter.__name__} as A; A(); A().to_json()"
    program += "; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_batch_size_is_the_largest_that_the_framework_allows() -> None:
    bounds = BaseEmbedding.model_fields["embed_batch_size"].metadata
    assert Qwen3Embedding().embed_batch_size == max(getattr(bound, "le", 0) for bound in bounds)


def test_model_name_is_another_word_for_model() -> None:
    assert Qwen3Embedding(model_name="a/b").embedder.model == "a/b"
    assert Qwen3Embedding(model="a/b").model_name == "a/b"
    assert Qwen3Embedding(model="a/b").to_dict()["model_name"] == "a/b"
    with pytest.raises(ConfigurationError, match=r"model='a/b' and model_name='c/d'"):
        Qwen3Embedding(model="a/b", model_name="c/d")


@pytest.mark.parametrize("adapter", CLASSES)
def test_a_misspelt_option_is_an_error(adapter: Any) -> None:
    with pytest.raises(ValueError, match="instructon"):
        adapter(instructon="code")


def test_a_ready_component_brings_its_options(embedder: Embedder) -> None:
    embedding = Qwen3Embedding(embedder=embedder)
    assert embedding.embedder is embedder
    assert embedding.model == embedding.model_name == embedder.model
    assert embedding.to_dict()["dtype"] == "float32"


@pytest.mark.parametrize(("adapter", "core"), PAIRS)
def test_options_that_contradict_a_ready_component_are_named(adapter: Any, core: Any) -> None:
    ready = {core.__name__.lower(): core("a/b", max_tokens=100)}
    with pytest.raises(ConfigurationError, match=r"max_tokens, dtype|dtype, max_tokens"):
        adapter(**ready, max_tokens=200, dtype="float32")
    assert adapter(**ready, max_tokens=100, dtype="auto").max_tokens == 100


def test_a_component_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"embedder must be a qwen3_rag\.Embedder, got Reranker"):
        Qwen3Embedding(embedder=Reranker())


@pytest.mark.parametrize("adapter", CLASSES)
def test_options_cannot_be_assigned(adapter: Any) -> None:
    made = adapter()
    with pytest.raises(ValueError, match="frozen"):
        made.max_tokens = 5
    assert made.model_copy(update={"max_tokens": 500})._component.arguments["max_tokens"] == 500


def test_closing_leaves_a_given_component_open(embedder: Embedder) -> None:
    with Qwen3Embedding(embedder=embedder):
        pass
    assert len(embedder.embed_queries(["still there"])) == 1


def test_closing_closes_an_own_component(embedder: Embedder) -> None:
    own = Qwen3Embedding(**embedder.arguments)
    with own:
        pass
    with pytest.raises(EngineClosedError):
        own.get_query_embedding("too late")


@pytest.mark.parametrize("adapter", CLASSES)
def test_copies_and_pickles_keep_every_option(adapter: Any) -> None:
    made = adapter(model="a/b", **CHANGED)
    for twin in (pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made), made.model_copy()):
        assert twin.to_dict() == made.to_dict()
        assert twin._component is not made._component


def test_copies_work_with_the_same_callbacks_and_cache() -> None:
    store, callbacks = SimpleKVStore(), CallbackManager([])
    made = Qwen3Embedding(embeddings_cache=store, callback_manager=callbacks)
    for twin in (copy.copy(made), copy.deepcopy(made), made.model_copy(update={"dimensions": 32})):
        assert twin.embeddings_cache.store is store
        assert twin.callback_manager is callbacks


def test_pickling_leaves_the_original_as_it_was() -> None:
    """The framework's own way removes attributes that cannot be pickled from the living object."""
    made = Qwen3Embedding(callback_manager=CallbackManager([]))
    made.callback_manager.unpicklable = lambda: None
    pickle.dumps(made)
    assert callable(made.callback_manager.unpicklable)


@pytest.mark.parametrize("adapter", CLASSES)
def test_serialised_forms_hold_no_secret(adapter: Any) -> None:
    kwargs = {"api_key": SecretStr("hush"), "headers": [{"x": SecretStr("hush")}], "url": "http://x"}
    made = adapter(model_kwargs=kwargs)
    assert made._component.arguments["model_kwargs"] == kwargs
    forms = [repr(made), str(made), made.to_json(), made.model_dump_json(), str(made.to_dict())]
    assert not any("hush" in form for form in forms)
    assert json.loads(made.to_json())["model_kwargs"] == {"headers": [{}], "url": "http://x"}


def test_values_that_are_no_secret_stay_the_objects_they_are() -> None:
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_8bit=True)
    made = Qwen3Embedding(model_kwargs={"quantization_config": config})
    assert Qwen3Embedding.from_dict(made.to_dict()).model_kwargs == {"quantization_config": config}


@pytest.mark.parametrize("adapter", CLASSES)
def test_json_makes_the_same_adapter_again(adapter: Any) -> None:
    made = adapter(model="a/b", **CHANGED)
    assert adapter.from_json(made.to_json()).to_dict() == made.to_dict()
    assert adapter.model_validate(made.model_dump()).to_dict() == made.to_dict()
    assert made.to_dict()["class_name"] == adapter.__name__
    assert "token_budget" in adapter.model_json_schema()["properties"]


@pytest.mark.parametrize(
    ("name", "adapter"), [("llama-index-embedding", Qwen3Embedding), ("llama-index-rerank", Qwen3Rerank)]
)
def test_the_entry_points_lead_here(name: str, adapter: Any) -> None:
    assert load_plugin(ADAPTERS, name) is adapter


def test_async_and_sync_calls_may_alternate(embedding: Qwen3Embedding) -> None:
    """Nothing is bound to the first event loop."""
    first = asyncio.run(embedding.aget_query_embedding("q"))
    assert embedding.get_query_embedding("q") == asyncio.run(embedding.aget_query_embedding("q")) == first


def test_usage_counts_what_was_computed(embedder: Embedder) -> None:
    own = Qwen3Embedding(**embedder.arguments).load()
    assert own.embedder.backend is not None
    own.get_text_embedding_batch(["one", "two"])
    assert (own.usage.texts, own.usage) == (2, own.embedder.usage)


@pytest.mark.parametrize("adapter", CLASSES)
def test_an_adapter_that_holds_a_secret_is_not_pickled(adapter: Any) -> None:
    made = adapter(model_kwargs={"api_key": SecretStr("sk-secret")})
    with pytest.raises(TypeError, match="api_key_env") as caught:
        pickle.dumps(made)
    assert "sk-secret" not in str(caught.value)
    assert copy.deepcopy(made).model_kwargs == made.model_kwargs
