"""What the two adapters have in common that wrap a `Reranker`."""

from __future__ import annotations

from typing import cast

from pydantic import ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from qwen3_rag.models import DEFAULT_RERANKING_MODEL
from qwen3_rag.pydantic_adapter import ModelName, PydanticAdapter
from qwen3_rag.reranker import Reranker


class RerankerOptions(PydanticAdapter):
    """The core's options, and a ready `Reranker` in their place. No field can be assigned."""

    core_class = Reranker
    ready = "reranker"

    model_config = ConfigDict(frozen=True)

    model: ModelName = DEFAULT_RERANKING_MODEL
    """Hub repository or local folder."""

    reranker: SkipJsonSchema[Reranker] = Field(  # never None once made
        default=cast("Reranker", None), exclude=True, repr=False
    )
    """A ready `Reranker` to use instead of the core's options, which is never closed by the adapter.
    As an attribute the one in use, given or not."""
