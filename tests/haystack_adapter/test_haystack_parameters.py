"""Arguments of the constructors: the core's, all of them, and how a ready component stands beside them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from haystack.utils import ComponentDevice, Device, DeviceMap
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder, Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from qwen3_rag import Embedder, Reranker
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.plugins import ADAPTERS, load_plugin

CLASSES = [Qwen3TextEmbedder, Qwen3DocumentEmbedder, Qwen3Ranker]
every_class = pytest.mark.parametrize("adapter", CLASSES)


def parameters(cls: Any) -> dict[str, inspect.Parameter]:
    return {name: p for name, p in inspect.signature(cls.__init__).parameters.items() if name != "self"}


@every_class
def test_parameters_of_the_core_are_all_there_with_their_defaults(adapter: Any) -> None:
    core = {name: p.default for name, p in parameters(adapter.core_class).items()}
    own = {name: p.default for name, p in parameters(adapter).items()}
    assert core == {name: own.get(name, "missing") for name in core}


@every_class
def test_no_parameter_of_the_core_is_made_up(adapter: Any) -> None:
    haystacks = {"meta_fields_to_embed", "embedding_separator", "progress_bar", "top_k", "score_threshold"}
    assert parameters(adapter).keys() - parameters(adapter.core_class).keys() - haystacks == {adapter.ready}


@every_class
def test_arguments_are_keyword_only(adapter: Any) -> None:
    assert {p.kind for p in parameters(adapter).values()} == {inspect.Parameter.KEYWORD_ONLY}


@every_class
def test_every_parameter_is_documented(adapter: Any) -> None:
    assert [name for name in parameters(adapter) if f"        {name}: " not in adapter.__doc__] == []


@every_class
def test_arguments_keep_their_names_and_reach_the_core(adapter: Any) -> None:
    changed: dict[str, Any] = {
        "model": "somewhere",
        "instruction": "Find poems",
        "max_tokens": 512,
        "device": "cuda:1",
        "dtype": "bfloat16",
        "revision": "v1",
        "hub": "modelscope",
        "parse_special_tokens": True,
        "token_budget": 100,
        "share_prefixes": False,
        "model_kwargs": {"use_cache": False},
    }
    component = adapter(**changed)
    core = getattr(component, adapter.ready)
    assert {name: getattr(component, name) for name in changed} == changed
    assert {name: core.arguments[name] for name in changed} == changed
    saved = component.to_dict()["init_parameters"]
    assert {name: saved[name] for name in changed} == changed


@every_class
def test_making_one_loads_nothing(adapter: Any) -> None:
    component = adapter(model="no/such-model")
    assert getattr(component, adapter.ready).backend is None


@every_class
@pytest.mark.parametrize(
    "wrong", [{"dtype": "float64"}, {"model": ""}, {"hub": "other"}, {"max_wait_ms": -1}, {"max_queued": 0}]
)
def test_arguments_out_of_range_are_found_at_once(adapter: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        adapter(**wrong)


@pytest.mark.parametrize("adapter", [Qwen3DocumentEmbedder, Qwen3Ranker])
def test_one_string_of_meta_fields_is_refused(adapter: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a list of names, got the string 'title'"):
        adapter(meta_fields_to_embed="title")


def test_list_of_meta_fields_is_the_components_own() -> None:
    fields = ["title"]
    component = Qwen3DocumentEmbedder(meta_fields_to_embed=fields)
    fields.append("page")
    assert component.meta_fields_to_embed == ["title"]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (None, None),
        ("cpu", "cpu"),
        (("cuda:0", "cuda:1"), ["cuda:0", "cuda:1"]),
        (ComponentDevice.from_single(Device.gpu(1)), "cuda:1"),
        (
            ComponentDevice.from_multiple(
                DeviceMap({"a": Device.gpu(0), "b": Device.gpu(1), "c": Device.gpu(0)})
            ),
            ["cuda:0", "cuda:1"],
        ),
    ],
)
@every_class
def test_device_may_be_haystacks_or_a_name_or_several(adapter: Any, device: Any, expected: Any) -> None:
    component = adapter(device=device)
    assert getattr(component, adapter.ready).arguments["device"] == expected
    assert component.device == device


@pytest.mark.parametrize("devices", [{}, {"a": Device.gpu(0), "b": Device.disk()}])
def test_device_map_must_name_devices_that_run_a_model(devices: dict[str, Device]) -> None:
    with pytest.raises(ConfigurationError, match="device"):
        Qwen3TextEmbedder(device=ComponentDevice.from_multiple(DeviceMap(devices)))


def test_ready_component_is_used_and_its_options_are_shown(embedder: Embedder, reranker: Reranker) -> None:
    for component, ready in [
        (Qwen3TextEmbedder(embedder=embedder), embedder),
        (Qwen3DocumentEmbedder(embedder=embedder, progress_bar=False), embedder),
        (Qwen3Ranker(reranker=reranker, top_k=3), reranker),
    ]:
        assert getattr(component, component.ready) is ready
        assert {name: getattr(component, name) for name in ready.arguments} == ready.arguments


def test_ready_component_beside_other_options_is_refused_by_name(
    embedder: Embedder, reranker: Reranker
) -> None:
    with pytest.raises(ConfigurationError, match="embedder is given together with dimensions, share_prefixes"):
        Qwen3TextEmbedder(embedder=embedder, dimensions=32, share_prefixes=False)
    with pytest.raises(ConfigurationError, match="reranker is given together with instruction"):
        Qwen3Ranker(reranker=reranker, instruction="Find poems")


def test_ready_component_beside_what_it_has_anyway_is_fine(embedder: Embedder) -> None:
    Qwen3TextEmbedder(embedder=embedder, dtype="float32", dimensions=None)


def test_ready_component_of_the_other_kind_is_refused(embedder: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"must be a qwen3_rag\.Reranker, got Embedder"):
        Qwen3Ranker(reranker=embedder)


@pytest.mark.parametrize(
    ("name", "expected"), [*zip(["text-embedder", "document-embedder", "ranker"], CLASSES, strict=True)]
)
def test_entry_points_name_the_components(name: str, expected: Any) -> None:
    assert load_plugin(ADAPTERS, f"haystack-{name}") is expected
