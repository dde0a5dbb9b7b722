"""`Qwen3Embeddings`: LangChain's `Embeddings`."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings
from pydantic import Field, PrivateAttr
from qwen3_rag.embedder import Embedder
from qwen3_rag.models import DEFAULT_EMBEDDING_MODEL

from langchain_qwen3_rag.options import ComponentOptions


class Qwen3Embeddings(ComponentOptions, Embeddings):
    """Embeds with a Qwen3-Embedding model: queries with an instruction, documents as they are.

    Texts reach the tokenizer unchanged, newlines and leading spaces included. All methods may be
    called from any thread; async calls never block the event loop and share batches.

    Args:
        model: hub repository or local folder.
        dimensions: length of vectors, 32 to the model's hidden size; None for all.
        show_progress: show a progress bar on standard error while documents are embedded.
        embedder: a ready `qwen3_rag.Embedder` to use instead of making one; excludes the core's
            options, and is never closed by this object.

    The core's options (`backend`, `instruction`, `max_tokens`, `device`, `dtype`, `revision`, `hub`,
    `parse_special_tokens`, `token_budget`, `share_prefixes`, `timeout`, `max_wait_ms`, `max_queued`,
    `model_kwargs`) are as for `qwen3_rag.Embedder`.

    Raises:
        ConfigurationError: an option is unknown or out of range, or clashes with `embedder`.
        pydantic.ValidationError: an option is of a wrong type.
    """

    core_class = Embedder
    ready = "embedder"

    model: str = DEFAULT_EMBEDDING_MODEL
    dimensions: int | None = None
    show_progress: bool = False
    embedder: Embedder | None = Field(default=None, exclude=True, repr=False)

    _component: Embedder = PrivateAttr()

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
        vectors: list[list[float]] = self._component.embed_documents(
            texts, progress=self.show_progress
        ).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Embed one query with the instruction.

        Args:
            text: the query; never cut.

        Returns:
            One vector of L2 norm 1.

        Raises:
            PromptTooLongError: the query does not fit into `max_tokens`. Otherwise as `embed_documents`.
        """
        vector: list[float] = self._component.embed_queries([text])[0].tolist()
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` without blocking the event loop; concurrent calls share batches.

        Args:
            texts: as `embed_documents`.
        """
        embedded = await self._component.aembed_documents(texts, progress=self.show_progress)
        vectors: list[list[float]] = embedded.tolist()
        return vectors

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` without blocking the event loop; concurrent calls share batches.

        Args:
            text: as `embed_query`.
        """
        vector: list[float] = (await self._component.aembed_queries([text]))[0].tolist()
        return vector
