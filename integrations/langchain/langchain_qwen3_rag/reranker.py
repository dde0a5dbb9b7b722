"""`Qwen3Reranker`: LangChain's `BaseDocumentCompressor`."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import Field
from qwen3_rag.ranking import Ranked

from langchain_qwen3_rag.options import RerankerOptions

SCORE_KEY: Final = "relevance_score"
"""Where a returned document's metadata holds its score, P(yes) in [0, 1]."""


class Qwen3Reranker(RerankerOptions, BaseDocumentCompressor):
    """Reranks documents with a Qwen3-Reranker model; for `ContextualCompressionRetriever` and by itself.

    Returned documents are copies with the same id, text and metadata, and the score in
    `metadata["relevance_score"]`; the documents given are not changed. Equal scores keep the order
    given. A document without text is scored like any other.

    Args:
        top_n: most documents to return, 0 or more; None for all.
        model: hub repository or local folder; a `pathlib.Path` is a folder, and kept as a string.
        reranker: a ready `qwen3_rag.Reranker` to use instead of making one; excludes the core's
            options, and is never closed by this object. The attribute holds the one in use, given or not.

    The core's options (`backend`, `instruction`, `max_tokens`, `device`, `dtype`, `revision`, `hub`,
    `parse_special_tokens`, `token_budget`, `share_prefixes`, `timeout`, `max_wait_ms`, `max_queued`,
    `model_kwargs`) are as for `qwen3_rag.Reranker`.

    Raises:
        ConfigurationError: an option is unknown or out of range, or clashes with `reranker`.
        pydantic.ValidationError: `top_n` is negative, or an option is of a wrong type.
    """

    twins = MappingProxyType({"compress_documents": "acompress_documents"})

    top_n: int | None = Field(default=3, ge=0)

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002
    ) -> list[Document]:
        """Return copies of the best documents, best first.

        Args:
            documents: any number of documents; never changed.
            query: the question or search text; never cut.
            callbacks: accepted since LangChain's retrievers pass it; reranking starts no run of its own.

        Returns:
            At most `top_n` documents with their scores in the metadata.

        Raises:
            TypeError: the query is not a string, or one of the documents no `Document`.
            PromptTooLongError: template, instruction and query leave no room for a document.
            CheckpointError: the model cannot be loaded.
            DeadlineExceededError: it took longer than `timeout`.
            NonFiniteOutputError: the model returned NaN for a document.
            OutOfMemoryError: a document alone does not fit into memory.
        """
        documents = list(documents)  # what their owner does to theirs meanwhile is not seen
        return _pick(documents, self.reranker.rerank(query, _texts(documents), top_k=self.top_n))

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002
    ) -> list[Document]:
        """`compress_documents` without blocking the event loop; concurrent calls share batches.

        Args:
            documents, query, callbacks: as `compress_documents`.
        """
        documents = list(documents)
        return _pick(documents, await self.reranker.arerank(query, _texts(documents), top_k=self.top_n))


def _texts(documents: Sequence[Document]) -> list[str]:
    for index, document in enumerate(documents):
        if not isinstance(document, Document):  # a text, or a pair of `similarity_search_with_score`
            raise TypeError(f"documents[{index}] must be a Document, got {type(document).__name__}")
    return [document.page_content for document in documents]


def _pick(documents: Sequence[Document], ranking: Sequence[Ranked]) -> list[Document]:
    """Return scored copies of the ranked documents; nested metadata values are not copied."""
    return [
        documents[ranked.index].model_copy(
            update={"metadata": {**documents[ranked.index].metadata, SCORE_KEY: ranked.score}}
        )
        for ranked in ranking
    ]
