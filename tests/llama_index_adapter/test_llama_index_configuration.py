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
from llama_index.core.schema import MetadataMode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from pydantic import SecretStr
from qwen3_rag import ConfigurationError, Embedder, Reranker
from qwen3_rag.plugins import ADAPTERS, load_plugin
from qwen3_rag.testing.llama_index import CallbackLog, events, nodes

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


WITHOUT_LLAMA_INDEX = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "llama_index.core":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
importlib.import_module(sys.argv[1])
"""


@pytest.mark.parametrize("package", ["llama_index.embeddings.qwen3_rag", "llama_index.postprocessor.qwen3_rag"])
def test_without_llama_index_the_error_names_the_extra(package: str) -> None:
    command = [sys.executable, "-c", WITHOUT_LLAMA_INDEX, package]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    last = run.stderr.splitlines()[-1]
    assert last.startswith("qwen3_rag.errors.MissingExtraError: llama_index.")
    assert 'pip install "qwen3-rag[llama-index]"' in last


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


@pytest.mark.parametrize("update", [{"model": "c/d"}, {"model_name": "c/d"}])
def test_a_copy_may_name_another_model(update: dict[str, Any]) -> None:
    copied = Qwen3Embedding(model="a/b", dimensions=64).model_copy(update=update)
    assert (copied.model, copied.model_name, copied.embedder.model) == ("c/d",) * 3
    assert copied.dimensions == 64


@pytest.mark.parametrize("edit", [{"model": "c/d"}, {"model_name": "c/d"}])
def test_a_saved_configuration_may_be_edited(edit: dict[str, Any]) -> None:
    saved = Qwen3Embedding(model="a/b").to_dict()
    for made in (Qwen3Embedding.from_dict({**saved, **edit}), Qwen3Embedding.from_dict(saved, **edit)):
        assert (made.model, made.model_name, made.embedder.model) == ("c/d",) * 3
    assert Qwen3Rerank.from_dict({**Qwen3Rerank(model="a/b").to_dict(), "model": "c/d"}).reranker.model == "c/d"


@pytest.mark.parametrize("adapter", CLASSES)
def test_a_misspelt_option_is_an_error_that_shows_no_value(adapter: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"no option instructon; there are: .*instruction") as caught:
        adapter(instructon="sk-secret")
    assert "sk-secret" not in str(caught.value)


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


def test_several_devices_are_a_list_or_a_tuple() -> None:
    ready = Embedder(device=("cpu", "cpu"))
    assert Qwen3Embedding(embedder=ready, device=["cpu", "cpu"]).embedder is ready
    with pytest.raises(ConfigurationError, match="together with device"):
        Qwen3Embedding(embedder=ready, device=["cpu"])


def test_a_component_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"embedder must be a qwen3_rag\.Embedder, got Reranker"):
        Qwen3Embedding(embedder=Reranker())


@pytest.mark.parametrize("adapter", CLASSES)
def test_options_cannot_be_assigned(adapter: Any) -> None:
    made = adapter()
    with pytest.raises(ConfigurationError, match=f"max_tokens of a {adapter.__name__} is fixed"):
        made.max_tokens = 5
    assert made.model_copy(update={"max_tokens": 500})._component.arguments["max_tokens"] == 500


def test_model_copy_keeps_a_ready_component_unless_it_changes_its_options(embedder: Embedder) -> None:
    given = Qwen3Embedding(embedder=embedder)
    assert given.model_copy().embedder is embedder
    assert given.model_copy(update={"embed_batch_size": 7}).embedder is embedder
    assert given.model_copy(update={"dtype": "float32"}).embedder is embedder
    short = given.model_copy(update={"dimensions": 32})
    assert short.embedder.arguments == {**embedder.arguments, "dimensions": 32}
    assert given.model_copy(deep=True).embedder is not embedder


def test_model_copy_takes_another_ready_component(embedder: Embedder) -> None:
    other = Embedder("some/model", dimensions=128)
    for made in (Qwen3Embedding(embedder=embedder), Qwen3Embedding(max_tokens=7)):
        copied = made.model_copy(update={"embedder": other})
        assert copied.embedder is other
        assert (copied.model, copied.model_name, copied.dimensions) == ("some/model", "some/model", 128)
        assert copied.max_tokens == 8192
    own = copied.model_copy(update={"embedder": None})
    assert own.embedder is not other
    assert own.embedder.arguments == other.arguments


@pytest.mark.parametrize("change", [{"top_n": -1}, {"top_n": "all"}, {"metadata_mode": "some"}])
def test_an_assigned_value_is_checked(change: dict[str, Any]) -> None:
    rerank = Qwen3Rerank()
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=name):
        setattr(rerank, name, value)
    assert getattr(rerank, name) == getattr(Qwen3Rerank(), name)
    rerank.top_n, rerank.metadata_mode = None, MetadataMode.NONE
    assert (rerank.top_n, rerank.metadata_mode) == (None, MetadataMode.NONE)


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


@pytest.mark.parametrize("secret", [SecretStr("sk-hush"), "sk-hush"])
@pytest.mark.parametrize("adapter", CLASSES)
def test_serialised_forms_hold_no_secret(adapter: Any, secret: Any) -> None:
    kwargs = {"api_key": secret, "token": secret, "headers": [{"x-api-key": secret}], "url": "http://x"}
    made = adapter(model_kwargs=kwargs)
    assert made._component.arguments["model_kwargs"] == kwargs
    forms = [repr(made), str(made), made.to_json(), made.model_dump_json(), str(made.to_dict())]
    forms += [str(made.model_dump()), str(made.dict()), made.json()]
    assert not any("sk-hush" in form for form in forms)
    assert json.loads(made.to_json())["model_kwargs"] == {"headers": [{}], "url": "http://x"}


def test_events_hold_no_secret(embedder: Embedder, reranker: Reranker) -> None:
    # Transformers takes and ignores an unknown name only as far as it takes `token`.
    kwargs = {"token": "sk-hush"}
    embedding = Qwen3Embedding(**{**embedder.arguments, "model_kwargs": kwargs})
    rerank = Qwen3Rerank(**{**reranker.arguments, "model_kwargs": kwargs})
    calls = CallbackLog()
    embedding.callback_manager = rerank.callback_manager = CallbackManager([calls])
    with events() as seen, embedding, rerank:
        embedding.get_query_embedding("q")
        embedding.get_text_embedding_batch(["t"])
        rerank.postprocess_nodes(nodes(), query_str="q")
    written = [str(event.model_dump()) for event in seen] + [str(calls.started), str(calls.ended)]
    assert len(seen) >= 6
    assert not any("sk-hush" in text for text in written)


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
@pytest.mark.parametrize("secret", [SecretStr("sk-secret"), "sk-secret"])
def test_an_adapter_that_holds_a_secret_is_not_pickled(adapter: Any, secret: Any) -> None:
    made = adapter(model_kwargs={"headers": {"Authorization": secret}})
    with pytest.raises(TypeError, match="api_key_env") as caught:
        pickle.dumps(made)
    assert "sk-secret" not in str(caught.value)
    assert copy.deepcopy(made).model_kwargs == made.model_kwargs
