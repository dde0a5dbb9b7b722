"""Construction, ready components, copies, and what may be written to disk or a trace."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from typing import Any

import pytest
from langchain_core.load import dumpd, dumps
from langchain_cross_encoder import Qwen3CrossEncoder, needs_cross_encoders
from langchain_qwen3_rag import Qwen3Embeddings, Qwen3Reranker
from pydantic import SecretStr, ValidationError
from qwen3_rag import ConfigurationError, Embedder, Reranker
from qwen3_rag.plugins import ADAPTERS, load_plugin

ADAPTERS_AND_CORES = [
    (Qwen3Embeddings, Embedder),
    (Qwen3Reranker, Reranker),
    pytest.param(Qwen3CrossEncoder, Reranker, marks=needs_cross_encoders),
]
SECRET = "sk-do-not-print-me"


@pytest.mark.parametrize(("adapter", "core"), ADAPTERS_AND_CORES)
def test_an_adapter_takes_every_option_of_the_core(adapter: Any, core: Any) -> None:
    fields = adapter.model_fields
    for name, parameter in inspect.signature(core).parameters.items():
        assert fields[name].default == parameter.default, name
    given = inspect.signature(adapter).parameters
    assert set(inspect.signature(core).parameters) < set(given)
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in given.values())


@pytest.mark.parametrize(("adapter", "core"), ADAPTERS_AND_CORES)
def test_options_reach_the_core(adapter: Any, core: Any) -> None:
    given = {
        "model": "some/model",
        "backend": "somewhere",
        "instruction": "code",
        "dimensions": 128,
        "max_tokens": 77,
        "device": ["cuda:0", "cuda:1"],
        "dtype": "bfloat16",
        "revision": "main",
        "hub": "modelscope",
        "parse_special_tokens": True,
        "token_budget": 5,
        "share_prefixes": False,
        "timeout": 1.5,
        "max_wait_ms": 2.0,
        "max_queued": 3,
        "model_kwargs": {"key": object()},
    }
    expected = {name: given[name] for name in inspect.signature(core).parameters}
    assert adapter(**expected)._component.arguments == expected
    for name, value in expected.items():
        assert value != inspect.signature(core).parameters[name].default, f"{name} proves nothing"


def test_construction_imports_no_torch() -> None:
    script = (
        "import sys, langchain_qwen3_rag as q\n"
        "q.Qwen3Embeddings(); q.Qwen3Reranker(top_n=2)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from langchain_qwen3_rag import Qwen3Embeddings, Qwen3Reranker
Qwen3Embeddings(), Qwen3Reranker()
from langchain_qwen3_rag import Qwen3CrossEncoder
"""


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("langchain_core", 'langchain_qwen3_rag needs an extra that is not installed: pip install "qwen3-rag['),
        (
            "langchain_core.cross_encoders",
            "Qwen3CrossEncoder needs BaseCrossEncoder of langchain-core 1.2.19: pip",
        ),
    ],
)
def test_what_is_missing_of_langchain_is_named(absent: str, message: str) -> None:
    command = [sys.executable, "-c", WITHOUT, absent]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    raised_at = [line.strip() for line in run.stderr.splitlines() if line.startswith('  File "<string>"')]
    assert message in run.stderr.splitlines()[-1]
    assert raised_at[-1].endswith(
        "line 10, in <module>" if absent == "langchain_core" else "line 12, in <module>"
    )


@needs_cross_encoders
def test_the_cross_encoder_imports_no_torch_either() -> None:
    script = (
        "import sys, langchain_qwen3_rag as q\n"
        "q.Qwen3CrossEncoder()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        ("langchain-embeddings", Qwen3Embeddings),
        ("langchain-reranker", Qwen3Reranker),
        pytest.param("langchain-cross-encoder", Qwen3CrossEncoder, marks=needs_cross_encoders),
    ],
)
def test_adapters_are_found_by_name(name: str, adapter: Any) -> None:
    assert load_plugin(ADAPTERS, name) is adapter


def test_an_unknown_option_is_named_but_its_value_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match=r"api_key; there are: .*model_kwargs") as caught:
        Qwen3Embeddings(api_key=SECRET)  # type: ignore[call-arg]
    assert SECRET not in str(caught.value)


def test_errors_of_the_core_keep_their_class() -> None:
    with pytest.raises(ConfigurationError, match="token_budget must be 1 or more"):
        Qwen3Reranker(token_budget=0)
    with pytest.raises(ConfigurationError, match="instruction must not be blank"):
        Qwen3Embeddings(instruction=" ")


@pytest.mark.parametrize("options", [{"dtype": "float8"}, {"max_tokens": "many"}])
def test_a_wrong_type_is_a_validation_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        Qwen3Embeddings(**options)


def test_a_ready_component_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"embedder must be a qwen3_rag\.Embedder, got Reranker"):
        Qwen3Embeddings(embedder=Reranker())  # type: ignore[arg-type]


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Qwen3Reranker(top_n=-1)


def test_options_cannot_be_assigned_since_that_would_change_nothing() -> None:
    with pytest.raises(ConfigurationError, match="max_tokens of a Qwen3Reranker is fixed"):
        Qwen3Reranker().max_tokens = 5
    with pytest.raises(ValidationError, match="frozen"):
        Qwen3Reranker().top_n = 5


def test_a_ready_component_is_used_and_left_open(embedder: Embedder, reranker: Reranker) -> None:
    for adapter in (Qwen3Embeddings(embedder=embedder), Qwen3Reranker(reranker=reranker)):
        assert adapter._component in (embedder, reranker)
        assert (adapter.model, adapter.dtype) == (adapter._component.model, "float32")
        adapter.close()
    assert embedder.embed_queries(["still open"]).shape == (1, 64)
    assert reranker.score("still", ["open"]).shape == (1,)


def test_options_beside_a_ready_component_are_refused_by_name() -> None:
    embedder = Embedder(dimensions=64)
    with pytest.raises(ConfigurationError, match="embedder is given together with dimensions, max_tokens"):
        Qwen3Embeddings(embedder=embedder, dimensions=32, max_tokens=5)
    with pytest.raises(ConfigurationError, match="reranker is given together with share_prefixes"):
        Qwen3Reranker(reranker=Reranker(), share_prefixes=False)
    assert Qwen3Embeddings(embedder=embedder, max_tokens=8192, dimensions=None).dimensions == 64
    assert Qwen3Reranker(reranker=Reranker(), top_n=7).top_n == 7


def test_model_copy_replaces_and_checks_options(embedding_options: dict[str, Any], embedder: Embedder) -> None:
    whole = Qwen3Embeddings(**embedding_options)
    short = whole.model_copy(update={"dimensions": 32})
    assert (len(whole.embed_query("a")), len(short.embed_query("a"))) == (64, 32)
    assert whole.embedder.backend is short.embedder.backend is embedder.backend
    with pytest.raises(ConfigurationError, match="no option dimension;"):
        whole.model_copy(update={"dimension": 32})


def test_model_copy_keeps_a_ready_component_unless_it_changes_its_options(embedder: Embedder) -> None:
    given = Qwen3Embeddings(embedder=embedder)
    assert given.model_copy().embedder is embedder
    assert given.model_copy(update={"show_progress": True}).embedder is embedder
    assert given.model_copy(update={"dtype": "float32"}).embedder is embedder
    short = given.model_copy(update={"dimensions": 32})
    assert short.embedder.arguments == {**embedder.arguments, "dimensions": 32}
    assert len(short.embed_query("a")) == 32
    assert given.model_copy(deep=True).embedder is not embedder


def test_model_copy_takes_another_ready_component(embedder: Embedder) -> None:
    other = Embedder("some/model", dimensions=128)
    for made in (Qwen3Embeddings(embedder=embedder), Qwen3Embeddings(max_tokens=7)):
        copied = made.model_copy(update={"embedder": other})
        assert copied.embedder is other
        assert (copied.model, copied.dimensions, copied.max_tokens) == ("some/model", 128, 8192)
    own = copied.model_copy(update={"embedder": None})
    assert own.embedder is not other
    assert own.embedder.arguments == other.arguments
    with pytest.raises(ConfigurationError, match="together with max_tokens"):
        Qwen3Embeddings().model_copy(update={"embedder": other, "max_tokens": 5})


def test_progress_is_shown_when_asked_for(embedder: Embedder, capfd: pytest.CaptureFixture[str]) -> None:
    Qwen3Embeddings(embedder=embedder).embed_documents(["a"])
    assert capfd.readouterr().err == ""
    Qwen3Embeddings(embedder=embedder, show_progress=True).embed_documents(["a"])
    assert "1/1" in capfd.readouterr().err


@pytest.mark.parametrize(("adapter", "core"), ADAPTERS_AND_CORES)
def test_traces_show_the_model_but_no_loader_options(adapter: Any, core: Any) -> None:
    # Not even a plain string, which nothing marks as a secret.
    options = {"model": "some/model", "model_kwargs": {"headers": SECRET}}
    for made in (adapter(**options), adapter(**{adapter.ready: core(**options)})):
        assert made._component.arguments["model_kwargs"] == {"headers": SECRET}
        for text in (repr(made), str(made), dumps(made), str(dumpd(made)), dumps({"nested": [made]})):
            assert SECRET not in text
            assert "some/model" in text
            assert len(text) < 5000


@pytest.mark.parametrize("secret", [SecretStr(SECRET), SECRET])
@pytest.mark.parametrize(("adapter", "core"), ADAPTERS_AND_CORES)
def test_dumped_fields_leave_secrets_out(adapter: Any, core: Any, secret: Any) -> None:
    kwargs = {"api_key": secret, "hf_token": secret, "headers": [{"Authorization": secret, "x": 1}]}
    options = {"model": "some/model", "model_kwargs": kwargs}
    for made in (adapter(**options), adapter(**{adapter.ready: core(**options)})):
        assert made._component.arguments["model_kwargs"] == kwargs
        for text in (str(made.model_dump()), made.model_dump_json(), repr(made), dumps(made), str(dumpd(made))):
            assert SECRET not in text
            assert "some/model" in text
        assert made.model_dump()["model_kwargs"] == {"headers": [{"x": 1}]}


@pytest.mark.parametrize(("adapter", "core"), ADAPTERS_AND_CORES)
@pytest.mark.parametrize(
    "kwargs", [{"api_key": SecretStr(SECRET)}, {"token": SECRET}, {"a": {"X-Api-Key": SECRET}}]
)
def test_a_secret_is_copied_but_never_pickled(adapter: Any, core: Any, kwargs: dict[str, Any]) -> None:
    options = {"model_kwargs": kwargs}
    for made in (adapter(**options), adapter(**{adapter.ready: core(**options)})):
        assert copy.deepcopy(made)._component.arguments["model_kwargs"] == kwargs
        with pytest.raises(TypeError, match=r"model_kwargs.*holds a secret") as caught:
            pickle.dumps(made)
        assert SECRET not in str(caught.value)


def test_a_loaded_adapter_is_dumped_without_weights(embedding_options: dict[str, Any]) -> None:
    with Qwen3Embeddings(**embedding_options).load() as embeddings:
        assert len(dumps(embeddings)) < 5000
        assert len(embeddings.model_dump_json()) < 5000
        assert len(pickle.dumps(embeddings)) < 5000
