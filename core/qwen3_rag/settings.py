"""Everything that makes two engines the same engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from qwen3_rag.errors import ConfigurationError
from qwen3_rag.models import ModelKind

Hub = Literal["huggingface", "modelscope"]
DType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class EngineSettings:
    """What a backend needs to know to load a model and run it.

    Attributes:
        kind: "embedding" (last-token hidden states) or "reranking" (yes/no log-odds).
        model: hub repository or local folder.
        backend: name in the entry-point group `qwen3_rag.backends`.
        device: torch device such as "cuda:1", "mps" or "cpu"; None takes the best there is.
        dtype: "auto", "float32", "bfloat16" or "float16".
        revision: branch, tag or commit of the hub repository; None for its default.
        hub: "huggingface" or "modelscope".
        token_budget: most tokens of one batch; None derives it from free memory.
        share_prefixes: compute beginnings that prompts have in common once.
        model_kwargs: passed to the backend's own loader as they are.
    """

    kind: ModelKind
    model: str
    backend: str = "transformers"
    device: str | None = None
    dtype: DType = "auto"
    revision: str | None = None
    hub: Hub = "huggingface"
    token_budget: int | None = None
    share_prefixes: bool = True
    model_kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigurationError(f"model must be a hub repository or a local folder, got {self.model!r}")
        if self.dtype not in get_args(DType):
            raise ConfigurationError(f"dtype must be one of {get_args(DType)}, got {self.dtype!r}")
        if self.hub not in get_args(Hub):
            raise ConfigurationError(f"hub must be one of {get_args(Hub)}, got {self.hub!r}")
        if self.token_budget is not None and self.token_budget < 1:
            raise ConfigurationError(f"token_budget must be 1 or more, or None, got {self.token_budget}")

    @property
    def key(self) -> str:
        """Equal for settings whose components may share one engine."""
        fields = {**self.__dict__, "model_kwargs": dict(self.model_kwargs or {})}
        return json.dumps(
            fields, sort_keys=True, default=lambda value: f"{type(value).__qualname__} {id(value)}"
        )
