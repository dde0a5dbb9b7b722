"""Which settings mean the same engine, and that they are a component's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from qwen3_rag import ConfigurationError, Embedder, Reranker, engines
from qwen3_rag.settings import EngineSettings

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


def test_dimensions_out_of_range_are_refused_before_anything_is_computed(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), **OPTIONS).load() as embedder:
        before = embedder.metrics.rounds
        with pytest.raises(ConfigurationError, match="32 to 64"):
            embedder.embed_documents(["a"] * 600, dimensions=4096)
        assert embedder.metrics.rounds == before


def test_what_a_caller_does_to_its_dict_later_changes_nothing(embedding_checkpoint: Path) -> None:
    before = len(engines._engines)
    model_kwargs: dict[str, Any] = {"use_safetensors": True}
    embedder = Embedder(str(embedding_checkpoint), model_kwargs=model_kwargs, **OPTIONS).load()
    model_kwargs["use_safetensors"] = False
    assert embedder.arguments["model_kwargs"] == {"use_safetensors": True}
    embedder.close()
    assert len(engines._engines) == before


def test_nor_does_what_it_does_to_dicts_and_lists_in_it() -> None:
    device_map, urls, limits = {"": "cpu"}, ["http://127.0.0.1:8000"], {"image": 0}
    given = {"device_map": device_map, "base_url": urls, "all": [limits]}
    embedder = Embedder("m", model_kwargs=given)
    device_map["lm_head"] = "disk"
    urls.clear()
    limits.clear()
    kept = {"device_map": {"": "cpu"}, "base_url": ["http://127.0.0.1:8000"], "all": [{"image": 0}]}
    assert embedder.arguments["model_kwargs"] == kept
    embedder.arguments["model_kwargs"]["device_map"].clear()
    assert embedder.arguments["model_kwargs"] == kept


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"max_wait_ms": 0}, {"max_wait_ms": 0.0}),
        ({"device": "cpu"}, {"device": ["cpu"]}),
        ({"model_kwargs": None}, {"model_kwargs": {}}),
        (
            {"model_kwargs": {"max_memory": {0: "20GiB", "cpu": "60GiB"}, "ids": [1, 2]}},
            {"model_kwargs": {"ids": (1, 2), "max_memory": {"cpu": "60GiB", 0: "20GiB"}}},
        ),
        ({"model_kwargs": {"a": 1, "b": 2}}, {"model_kwargs": {"b": 2, "a": 1}}),
    ],
)
def test_settings_that_mean_the_same_share_an_engine(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert Embedder("m", **one)._settings.key == Embedder("m", **other)._settings.key


@pytest.mark.parametrize(
    "other",
    [
        {"backend": "vllm"},
        {"device": "cpu"},
        {"device": ["cpu", "cpu"]},
        {"dtype": "float32"},
        {"revision": "v1"},
        {"hub": "modelscope"},
        {"token_budget": 1},
        {"share_prefixes": False},
        {"max_wait_ms": 1000},
        {"max_queued": 1},
        {"model_kwargs": {"use_safetensors": False}},
        {"model_kwargs": {"quantization_config": frozenset({1})}},
    ],
    ids=str,
)
def test_settings_that_mean_something_else_do_not(other: dict[str, Any]) -> None:
    assert Embedder("m")._settings.key != Embedder("m", **other)._settings.key
    assert Embedder("m", **other)._settings.key != Reranker("m", **other)._settings.key


def test_an_option_that_cannot_be_hashed_shares_an_engine_only_with_itself() -> None:
    one, equal = {"a"}, {"a"}
    first, again, other = (
        Embedder("m", model_kwargs={"names": names})._settings.key for names in (one, one, equal)
    )
    assert first == again != other


def test_prefixes_are_shared_where_the_backend_can_and_nobody_said_no() -> None:
    assert EngineSettings("embedding", "m").shares_prefixes is True
    assert EngineSettings("embedding", "m", share_prefixes=False).shares_prefixes is False
    assert EngineSettings("embedding", "m", backend="sentence-transformers").shares_prefixes is False


@pytest.mark.parametrize("wrong", [{"max_wait_ms": 1000.5}, {"model": ""}, {"device": []}], ids=str)
def test_what_is_out_of_range_is_refused_when_a_component_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Embedder(**{"model": "m", **wrong})
