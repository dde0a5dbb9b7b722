"""`Qwen3CrossEncoder` where LangChain has its base class, for tests that run with older releases too."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

HAS_CROSS_ENCODERS = find_spec("langchain_core.cross_encoders") is not None
needs_cross_encoders = pytest.mark.skipif(
    not HAS_CROSS_ENCODERS, reason="langchain-core before 1.2.19 has no BaseCrossEncoder"
)

Qwen3CrossEncoder: Any
if HAS_CROSS_ENCODERS:
    from langchain_qwen3_rag import Qwen3CrossEncoder
else:
    Qwen3CrossEncoder = object
