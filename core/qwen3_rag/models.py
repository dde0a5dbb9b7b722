"""The six published models as data.

Source: the `config.json` of each repository on the Hugging Face hub (June 2025). The code never
computes with this table: a loaded checkpoint's own config is what counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

ModelKind = Literal["embedding", "reranking"]

DEFAULT_EMBEDDING_MODEL: Final = "Qwen/Qwen3-Embedding-0.6B"
DEFAULT_RERANKING_MODEL: Final = "Qwen/Qwen3-Reranker-0.6B"


@dataclass(frozen=True)
class PublishedModel:
    """Shape of one published checkpoint.

    Attributes:
        name: repository on the Hugging Face hub and on ModelScope.
        kind: "embedding" or "reranking".
        parameters: size as its name gives it.
        layers: decoder layers.
        dimensions: hidden size; for embedding models also the length of a full vector.
        heads, kv_heads, head_dim: grouped-query attention shape.
        intermediate: width of the gated MLP.
        head: "tied" or "untied" vocabulary head; None for embedding models, which use none.
        context: longest input in tokens.
    """

    name: str
    kind: ModelKind
    parameters: str
    layers: int
    dimensions: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    head: Literal["tied", "untied"] | None
    context: int = 32768


PUBLISHED_MODELS: Final[tuple[PublishedModel, ...]] = (
    PublishedModel("Qwen/Qwen3-Embedding-0.6B", "embedding", "0.6B", 28, 1024, 16, 8, 128, 3072, None),
    PublishedModel("Qwen/Qwen3-Embedding-4B", "embedding", "4B", 36, 2560, 32, 8, 128, 9728, None),
    PublishedModel("Qwen/Qwen3-Embedding-8B", "embedding", "8B", 36, 4096, 32, 8, 128, 12288, None),
    PublishedModel("Qwen/Qwen3-Reranker-0.6B", "reranking", "0.6B", 28, 1024, 16, 8, 128, 3072, "tied"),
    PublishedModel("Qwen/Qwen3-Reranker-4B", "reranking", "4B", 36, 2560, 32, 8, 128, 9728, "tied"),
    PublishedModel("Qwen/Qwen3-Reranker-8B", "reranking", "8B", 36, 4096, 32, 8, 128, 12288, "untied"),
)


def kind_of_name(model: str) -> ModelKind | None:
    """Return the kind that a model's name or folder states, or None when it states neither."""
    name = model.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].lower()
    if "qwen3-reranker" in name:
        return "reranking"
    if "qwen3-embedding" in name:
        return "embedding"
    return None
