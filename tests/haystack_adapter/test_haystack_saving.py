"""Files, pickles and copies: what they carry, and what they never do."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from haystack import Pipeline
from haystack.core.errors import DeserializationError, SerializationError
from haystack.utils import ComponentDevice, Device, DeviceMap, Secret
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder, Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from pydantic import SecretStr
from qwen3_rag import Embedder, Reranker

KEY = "sk-do-not-show-this"


def as_file(component: Any) -> str:
    pipeline = Pipeline()
    pipeline.add_component("it", component)
    return pipeline.dumps()


def from_file(text: str) -> Any:
    return Pipeline.loads(text).get_component("it")


def test_secret_is_saved_by_the_name_of_its_variable_and_runs(
    monkeypatch: pytest.MonkeyPatch, reranker: Reranker
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    kwargs = {
        "server": "vllm",
        "base_url": "http://127.0.0.1:9",
        "api_key": Secret.from_env_var("MY_KEY"),
        "max_retries": 0,
    }
    component = Qwen3Ranker(model=reranker.model, backend="remote", model_kwargs=kwargs)
    text, pickled = as_file(component), pickle.dumps(component)
    assert "MY_KEY" in text
    assert KEY not in text
    assert KEY.encode() not in pickled
    for again in (from_file(text), pickle.loads(pickled)):
        assert again.model_kwargs == kwargs
        monkeypatch.delenv("MY_KEY")
        with pytest.raises(ValueError, match="MY_KEY"):
            again.warm_up()
        monkeypatch.setenv("MY_KEY", KEY)
        with again:
            again.warm_up()


KEYS: list[dict[str, Any]] = [
    {"token": KEY},
    {"api_key": KEY},
    {"hf_token": KEY},
    {"password": KEY.encode()},
    {"headers": {"Authorization": KEY}},
    {"headers": [{"x-api-key": [KEY]}]},
]


@pytest.mark.parametrize("kwargs", KEYS)
def test_plain_string_that_is_a_key_is_not_saved(kwargs: dict[str, Any]) -> None:
    with pytest.raises(SerializationError, match="is a plain string, which would show in the file") as caught:
        as_file(Qwen3TextEmbedder(model_kwargs=kwargs))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("save", [as_file, pickle.dumps])
def test_name_of_a_key_is_not_a_key(save: Any) -> None:
    kwargs = {"api_key_env": "MY_KEY", "pad_token": "<pad>", "max_tokens_per_request": 5}
    assert save(Qwen3TextEmbedder(model_kwargs=kwargs))


def test_secret_that_holds_a_token_is_not_saved() -> None:
    component = Qwen3TextEmbedder(model_kwargs={"headers": {"key": Secret.from_token(KEY)}})
    with pytest.raises(ValueError, match="Cannot serialize token-based secret") as caught:
        as_file(component)
    assert KEY not in str(caught.value)


def test_objects_that_a_file_cannot_hold_are_refused_by_place_and_type() -> None:
    component = Qwen3TextEmbedder(model_kwargs={"headers": [SecretStr(KEY)]})
    with pytest.raises(
        SerializationError, match=r"model_kwargs\['headers'\]\[0\] is of type SecretStr"
    ) as caught:
        as_file(component)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("kwargs", [*KEYS, {"a": [Secret.from_token(KEY)]}, {"a": {"b": SecretStr(KEY)}}])
def test_secret_is_not_pickled(kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"model_kwargs\[.*holds a secret") as caught:
        pickle.dumps(Qwen3TextEmbedder(model_kwargs=kwargs))
    assert KEY not in str(caught.value)


def test_objects_that_a_pickle_can_hold_are_pickled() -> None:
    again = pickle.loads(pickle.dumps(Qwen3TextEmbedder(model_kwargs={"config": Path("a")})))
    assert again.model_kwargs == {"config": Path("a")}


def test_keys_that_are_no_strings_are_refused() -> None:
    with pytest.raises(
        SerializationError, match=r"keys of model_kwargs\['max_memory'\] must be strings, got 3"
    ):
        Qwen3TextEmbedder(model_kwargs={"max_memory": {3: "x"}}).to_dict()


def test_deep_copy_keeps_tokens_and_never_shows_them() -> None:
    secret = Secret.from_token(KEY)
    component = copy.deepcopy(Qwen3TextEmbedder(model_kwargs={"api_key": secret}))
    assert component.embedder.arguments["model_kwargs"]["api_key"] is secret
    assert KEY not in repr(component) + repr(component.embedder)


@pytest.mark.parametrize(
    "device",
    [
        None,
        "cpu",
        ["cuda:0", "cuda:1"],
        ComponentDevice.from_str("cuda:1"),
        ComponentDevice.from_multiple(DeviceMap({"a": Device.gpu(0), "b": Device.gpu(1)})),
    ],
)
def test_device_comes_back_as_it_was(device: Any) -> None:
    again = from_file(as_file(Qwen3DocumentEmbedder(device=device)))
    assert again.device == device
    assert type(again.device) is type(device)


def test_false_and_zero_come_back_as_they_were() -> None:
    options: dict[str, Any] = {
        "share_prefixes": False,
        "top_k": 0,
        "score_threshold": 0.0,
        "embedding_separator": "",
        "meta_fields_to_embed": [],
    }
    again = from_file(as_file(Qwen3Ranker(**options)))
    assert {name: getattr(again, name) for name in options} == options
    assert again.reranker.arguments["share_prefixes"] is False


def test_ready_component_is_saved_as_its_configuration(embedder: Embedder) -> None:
    given, made = Qwen3TextEmbedder(embedder=embedder), Qwen3TextEmbedder(**embedder.arguments)
    assert given.to_dict() == made.to_dict()
    again = from_file(as_file(given))
    again.warm_up()
    assert again.embedder is not embedder
    assert again.embedder.backend is embedder.backend


def test_dictionary_of_another_class_is_refused() -> None:
    with pytest.raises(DeserializationError):
        Qwen3Ranker.from_dict(Qwen3TextEmbedder().to_dict())


def test_unknown_argument_in_a_file_is_refused() -> None:
    saved = Qwen3Ranker().to_dict()
    saved["init_parameters"]["top_n"] = 3
    with pytest.raises(TypeError, match="top_n"):
        Qwen3Ranker.from_dict(saved)
