"""`Qwen3Embeddings`: LangChain's `Embeddings`."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import cast

from langchain_core.embeddings import Embeddings
from pydantic import ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from qwen3_rag.conversion import as_lists, convert_off_loop
from qwen3_rag.embedder import Embedder
from qwen3_rag.models import DEFAULT_EMBEDDING_MODEL
from qwen3_rag.pydantic_adapter import ModelName, PydanticAdapter


class Qwen3Embeddings(PydanticAdapter, Embeddings):
    """Embeds with a Qwen3-Embedding model: queries with an instruction, documents as they are.

    Texts reach the tokenizer unchanged, newlines and leading spaces included. All methods may be
    called from any thread; async calls never block the event loop and share batches.

    Args:
        model: hub repository or local folder; a `pathlib.Path` is a folder, and kept as a string.
        dimensions: length of vectors, 32 to the model's hidden size; None for all.
        show_progress: show a progress bar on standard error while documents are embedded.
        embedder: a ready `qwen3_rag.Embedder` to use instead of making one; excludes the core's
            options, and is never closed by this object. The attribute holds the one in use, given or not.

    The core's options (`backend`, `instruction`, `max_tokens`, `device`, `dtype`, `revision`, `hub`,
    `parse_special_tokens`, `token_budget`, `share_prefixes`, `timeout`, `max_wait_ms`, `max_queued`,
    `model_kwargs`) are as for `qwen3_rag.Embedder`.

    Raises:
        ConfigurationError: an option is unknown or out of range, or clashes with `embedder`.
        pydantic.ValidationError: an option is of a wrong type.
    """

    core_class = Embedder
    ready = "embedder"
    twins = MappingProxyType({"embed_documents": "aembed_documents", "embed_query": "aembed_query"})

    model_config = ConfigDict(frozen=True)

    model: ModelName = DEFAULT_EMBEDDING_MODEL
    dimensions: int | None = None
    show_progress: bool = False
    embedder: SkipJsonSchema[Embedder] = Field(  # never None once made
        default=cast("Embedder", None), exclude=True, repr=False
    )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents, without an instruction.

        Args:
            texts: any number of strings, the empty one included; never changed.

        Returns:
            One vector per text, in order, each of L2 norm 1.

        Raises:
            TypeError: a text is not a string (the message names its index).
            CheckpointError: the model cannot be loaded.
            DeadlineExceededError: it took longer than `timeout`.
            NonFiniteOutputError: the model returned NaN for a text.
            OutOfMemoryError: a text alone does not fit into memory.
        """
        return as_lists(self.embedder.embed_documents(texts, progress=self.show_progress))

    def embed_query(self, text: str) -> list[float]:
        """Embed one query with the instruction.

        Args:
            text: the query; never cut.

        Returns:
            One vector of L2 norm 1.

        Raises:
            PromptTooLongError: the query does not fit into `max_tokens`. Otherwise as `embed_documents`.
        """
        return as_lists(self.embedder.embed_queries([text]))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` without blocking the event loop; concurrent calls share batches.

        Args:
            texts: as `embed_documents`.
        """
        vectors = await self.embedder.aembed_documents(texts, progress=self.show_progress)
        return await convert_off_loop(partial(as_lists, vectors), vectors.size)

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` without blocking the event loop; concurrent calls share batches.

        Args:
            text: as `embed_query`.
        """
        return as_lists(await self.embedder.aembed_queries([text]))[0]
