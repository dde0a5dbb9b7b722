"""Qwen3-Embedding and Qwen3-Reranker for LangChain.

>>> from langchain_qwen3_rag import Qwen3Embeddings, Qwen3Reranker
>>> vector = Qwen3Embeddings().embed_query("What is the capital of China?")  # doctest: +SKIP

Importing this package and creating its objects imports neither torch nor transformers.
"""

from typing import TYPE_CHECKING, Any

from qwen3_rag.errors import MissingExtraError, Qwen3RagError

try:
    from langchain_qwen3_rag.embeddings import Qwen3Embeddings
    from langchain_qwen3_rag.reranker import SCORE_KEY, Qwen3Reranker
except ModuleNotFoundError as error:
    if error.name not in ("langchain_core", "pydantic"):
        raise
    raise MissingExtraError("langchain_qwen3_rag", "langchain") from error

if TYPE_CHECKING:
    from langchain_qwen3_rag.cross_encoder import Qwen3CrossEncoder

__all__ = ["SCORE_KEY", "Qwen3CrossEncoder", "Qwen3Embeddings", "Qwen3Reranker"]


class OldLangChainError(Qwen3RagError, ImportError):
    """A class of LangChain's is needed that the installed release does not have yet."""


def __getattr__(name: str) -> Any:
    """Import `Qwen3CrossEncoder` when it is asked for, since its base class is newer than the others'."""
    if name != "Qwen3CrossEncoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from langchain_qwen3_rag.cross_encoder import Qwen3CrossEncoder
    except ModuleNotFoundError as error:
        if error.name != "langchain_core.cross_encoders":
            raise
        raise OldLangChainError(
            "Qwen3CrossEncoder needs BaseCrossEncoder of langchain-core 1.2.19: "
            'pip install --upgrade "langchain-core>=1.2.19"'
        ) from error
    return Qwen3CrossEncoder
