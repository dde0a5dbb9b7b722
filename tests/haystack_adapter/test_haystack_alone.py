"""The extra brings this framework and no other."""

from __future__ import annotations

import os
from importlib.metadata import distributions

import pytest


@pytest.mark.skipif(
    os.environ.get("QWEN3_RAG_ONLY") != "haystack", reason="only where tox has installed this extra alone"
)
def test_no_other_framework_is_installed() -> None:
    installed = {distribution.name for distribution in distributions()}
    assert "haystack-ai" in installed
    assert not installed & {"langchain-core", "llama-index-core"}
