"""Backends run token ids through a model. This module holds their contract."""

from qwen3_rag.backends.base import Backend, BackendFactory, BackendOutput

__all__ = ["Backend", "BackendFactory", "BackendOutput"]
