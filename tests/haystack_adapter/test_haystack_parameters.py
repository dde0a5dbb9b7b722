"""Arguments of the constructors: the core's, all of them, and how a ready component stands beside them."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from haystack import Document
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
    documented = adapter.__init__.__doc__  # that of the class is shown to language models
    assert [name for name in parameters(adapter) if f"            {name}: " not in documented] == []


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


WRONG_TYPES: list[tuple[dict[str, Any], str]] = [
    ({"meta_fields_to_embed": ["title", 1]}, r"must be a list of names, got \['title', 1\]"),
    ({"meta_fields_to_embed": 5}, "must be a list of names, got 5"),
    ({"embedding_separator": None}, "embedding_separator must be a str, got NoneType; for nothing between"),
    ({"top_k": "2"}, "top_k must be a whole number, 0 or more, or None for all, got '2'"),
    ({"score_threshold": "0.5"}, "score_threshold must be a number, 0 to 1, or None for no limit, got '0.5'"),
    ({"score_threshold": True}, "score_threshold must be a number, .* got True"),
    ({"progress_bar": "no"}, "progress_bar must be True or False, got 'no'"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_TYPES)
def test_a_wrong_type_is_told_where_it_is_given_and_nothing_is_computed(
    wrong: dict[str, Any], message: str
) -> None:
    ((name, value),) = wrong.items()
    documents = [Document(content="a")]
    for adapter in (Qwen3DocumentEmbedder, Qwen3Ranker):
        if name in parameters(adapter):
            with pytest.raises(TypeError, match=message):
                adapter(model="no/such-model", **wrong)
    made: Any = Qwen3Ranker(model="no/such-model")
    if name in ("top_k", "score_threshold"):
        with pytest.raises(TypeError, match=message):
            made.run("q", documents, **wrong)
    given: list[Any] = ["q", documents]
    if name == "progress_bar":
        made, given = Qwen3DocumentEmbedder(model="no/such-model"), [documents]
    setattr(made, name, value)
    for run in (made.run, lambda *given: asyncio.run(made.run_async(*given))):
        with pytest.raises(TypeError, match=message):
            run(*given)


@pytest.mark.parametrize("wrong", [5.0, -0.1, float("nan")])
def test_a_threshold_that_no_score_can_have_is_refused_and_nothing_is_computed(wrong: float) -> None:
    message = f"score_threshold must be a number, 0 to 1, or None for no limit, got {wrong}"
    with pytest.raises(ConfigurationError, match=message):
        Qwen3Ranker(model="no/such-model", score_threshold=wrong)
    ranker = Qwen3Ranker(model="no/such-model")
    with pytest.raises(ConfigurationError, match=message):
        ranker.run("q", [Document(content="a")], score_threshold=wrong)
    ranker.score_threshold = wrong
    with pytest.raises(ConfigurationError, match=message):
        ranker.run("q", [Document(content="a")])


def test_numbers_may_be_numpys_and_are_saved_as_pythons(reranker: Reranker) -> None:
    given: dict[str, Any] = {
        "top_k": np.int64(1),
        "score_threshold": np.float64(0),
        "max_tokens": np.int32(512),
        "timeout": np.float32(60),
    }
    ranker = Qwen3Ranker(**{**reranker.arguments, **given})
    assert len(ranker.run("q", [Document(content="a"), Document(content="b")])["documents"]) == 1
    saved = ranker.to_dict()["init_parameters"]
    assert {name: saved[name] for name in given} == given
    assert [type(saved[name]) for name in given] == [int, float, int, float]


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


@every_class
def test_device_that_is_no_name_is_told_by_the_core(adapter: Any) -> None:
    with pytest.raises(TypeError, match=r"device must be a torch device's name .* got 0"):
        adapter(device=0)


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


@pytest.mark.parametrize(
    "device", [ComponentDevice.from_single(Device.cpu()), "cpu", ComponentDevice.from_str("cpu")]
)
def test_device_of_haystacks_beside_a_ready_component_is_compared_as_the_core_takes_it(
    device: Any, embedder: Embedder
) -> None:
    component = Qwen3TextEmbedder(embedder=embedder, device=device)
    assert component.embedder is embedder
    assert component.device == "cpu"
    with pytest.raises(ConfigurationError, match="together with device"):
        Qwen3TextEmbedder(embedder=embedder, device=ComponentDevice.from_single(Device.gpu(1)))


def test_several_devices_are_a_list_or_a_tuple() -> None:
    ready = Embedder(device=("cuda:0", "cuda:1"))
    both = ComponentDevice.from_multiple(DeviceMap({"a": Device.gpu(0), "b": Device.gpu(1)}))
    for device in (["cuda:0", "cuda:1"], ("cuda:0", "cuda:1"), both):
        assert Qwen3TextEmbedder(embedder=ready, device=device).embedder is ready


@every_class
def test_option_of_the_model_cannot_be_assigned_since_that_would_change_nothing(adapter: Any) -> None:
    component = adapter(model="some/model")
    for name in [*parameters(adapter.core_class), adapter.ready]:
        with pytest.raises(ConfigurationError, match=rf"^{name} of a {adapter.__name__} is fixed") as caught:
            setattr(component, name, "sk-secret")
        assert "sk-secret" not in str(caught.value)
    assert component.to_dict() == adapter(model="some/model").to_dict()


def test_assigned_options_of_a_run_are_used_and_checked(reranker: Reranker) -> None:
    ranker = Qwen3Ranker(reranker=reranker)
    documents = [Document(content="a", meta={"title": "t"}), Document(content="b")]
    ranker.top_k, ranker.meta_fields_to_embed, ranker.embedding_separator = 1, ["title"], " "
    (best,) = ranker.run("q", documents)["documents"]
    assert best.score == pytest.approx(max(reranker.score("q", ["t a", "b"])), abs=1e-5)
    ranker.top_k = -1
    with pytest.raises(ConfigurationError, match="top_k must be 0 or more"):
        ranker.run("q", documents)
    ranker.top_k, ranker.meta_fields_to_embed = None, "title"  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="must be a list of names"):
        ranker.run("q", documents)


WITHOUT_HAYSTACK = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "haystack":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
importlib.import_module(sys.argv[1])
"""


@pytest.mark.parametrize("kind", ["embedders", "rankers"])
def test_without_haystack_the_error_names_the_extra(kind: str) -> None:
    package = f"haystack_integrations.components.{kind}.qwen3_rag"
    command = [sys.executable, "-c", WITHOUT_HAYSTACK, package]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    last = run.stderr.splitlines()[-1]
    assert last.startswith(f"qwen3_rag.errors.MissingExtraError: {package} needs an extra")
    assert 'pip install "qwen3-rag[haystack]"' in last


def test_ready_component_of_the_other_kind_is_refused(embedder: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"must be a qwen3_rag\.Reranker, got Embedder"):
        Qwen3Ranker(reranker=embedder)


@pytest.mark.parametrize(
    ("name", "expected"), [*zip(["text-embedder", "document-embedder", "ranker"], CLASSES, strict=True)]
)
def test_entry_points_name_the_components(name: str, expected: Any) -> None:
    assert load_plugin(ADAPTERS, f"haystack-{name}") is expected
