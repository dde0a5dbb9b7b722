"""Plugins are listed without being loaded, and a missing one is answered with what would help."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from qwen3_rag import ConfigurationError, Embedder, MissingExtraError, plugins


def test_listing_plugins_loads_none() -> None:
    script = """
import sys
from qwen3_rag import plugins
print([plugin.name for plugin in plugins.list_plugins(plugins.BACKENDS)], "torch" in sys.modules)
"""
    output = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert output.strip() == "['remote', 'sentence-transformers', 'transformers', 'vllm'] False"


def test_asking_for_one_loads_it() -> None:
    from qwen3_rag.backends.transformers import create

    assert plugins.load_plugin(plugins.BACKENDS, "transformers") is create


def test_an_unknown_name_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(ConfigurationError, match="unknown backend 'x'; there are: remote, "):
        plugins.load_plugin(plugins.BACKENDS, "x")
    with pytest.raises(ConfigurationError, match="unknown adapter 'x'; there are: haystack-"):
        plugins.load_plugin(plugins.ADAPTERS, "x")


@pytest.fixture
def without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without vLLM, whatever this one has."""
    entry = SimpleNamespace(name="vllm", value="absent:create", dist=SimpleNamespace(name="qwen3-rag"))
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == plugins.BACKENDS else [])
    monkeypatch.setattr(plugins, "find_spec", lambda name: None if name == "vllm" else object())


@pytest.mark.usefixtures("without_vllm")
def test_a_plugin_whose_extra_is_missing_is_listed_and_answered_with_the_pip_line() -> None:
    (listed,) = plugins.list_plugins(plugins.BACKENDS)
    assert not listed.installed
    with pytest.raises(MissingExtraError, match=r'vllm needs .*pip install "qwen3-rag\[vllm\]"'):
        plugins.load_plugin(plugins.BACKENDS, "vllm")


def test_a_missing_framework_is_that_of_all_adapters_that_begin_with_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find_spec(name: str) -> Any:
        if name == "llama_index.core":
            raise ModuleNotFoundError("No module named 'llama_index'")
        return None if name == "langchain_core" else object()

    monkeypatch.setattr(plugins, "find_spec", find_spec)
    listed = plugins.list_plugins(plugins.ADAPTERS)
    assert {plugin.kind for plugin in listed} == {"adapter"}
    assert {plugin.name for plugin in listed if plugin.installed} == {
        *("haystack-document-embedder", "haystack-ranker", "haystack-text-embedder"),
    }
    with pytest.raises(MissingExtraError, match=r'pip install "qwen3-rag\[llama-index\]"'):
        plugins.load_plugin(plugins.ADAPTERS, "llama-index-rerank")


@pytest.mark.parametrize(
    ("plugins_begin_with", "module", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llama-index", "llama_index.core", "llama-index"),
        ("haystack", "haystack", "haystack"),
        ("vllm", "vllm", "vllm"),
        ("sentence-transformers", "sentence_transformers", "sentence-transformers"),
        ("remote", "httpx", "remote"),
    ],
)
def test_the_extra_that_brings_what_a_plugin_needs_is_named(
    plugins_begin_with: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "find_spec", lambda name: None if name == module else object())
    missing = [plugin for plugin in plugins.all_plugins() if not plugin.installed]
    assert {plugin.name for plugin in missing} == {
        plugin.name for plugin in plugins.all_plugins() if plugin.name.startswith(plugins_begin_with)
    }
    for plugin in missing:
        with pytest.raises(MissingExtraError, match=rf'pip install "qwen3-rag\[{extra}\]"'):
            plugins.load_plugin(plugin.group, plugin.name)


def test_what_other_distributions_need_is_theirs_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [
        SimpleNamespace(
            name="vllm-mine", value="mine:create", dist=SimpleNamespace(name="mine"), load=lambda: 5
        ),
        SimpleNamespace(name="remote-bare", value="bare:create", dist=None, load=lambda: 6),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: others if group == plugins.BACKENDS else [])
    monkeypatch.setattr(plugins, "find_spec", lambda _: None)
    assert [
        (one.name, one.kind, one.target, one.distribution, one.installed) for one in plugins.all_plugins()
    ] == [
        ("remote-bare", "backend", "bare:create", "", True),
        ("vllm-mine", "backend", "mine:create", "mine", True),
    ]
    assert plugins.load_plugin(plugins.BACKENDS, "vllm-mine") == 5
    assert plugins.load_plugin(plugins.BACKENDS, "remote-bare") == 6


@pytest.mark.usefixtures("without_vllm")
@pytest.mark.parametrize(
    ("backend", "error"), [("vlm", ConfigurationError), ("vllm", MissingExtraError)], ids=["unknown", "missing"]
)
def test_a_backend_that_cannot_be_had_is_told_of_before_anything_is_downloaded(
    backend: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=backend):
        Embedder("nobody/has-this-model", backend=backend).load()
