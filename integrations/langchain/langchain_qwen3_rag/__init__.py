"""Qwen3-Embedding and Qwen3-Reranker for LangChain.

>>> from langchain_qwen3_rag import Qwen3Embeddings, Qwen3Reranker
>>> vector = Qwen3Embeddings().embed_query("What is the capital of China?")  # doctest: +SKIP

Importing this package and creating its objects imports neither torch nor transformers.
"""

from qwen3_rag.errors import MissingExtraError

try:
    from langchain_qwen3_rag.cross_encoder import Qwen3CrossEncoder
    from langchain_qwen3_rag.embeddings import Qwen3Embeddings
    from langchain_qwen3_rag.reranker import SCORE_KEY, Qwen3Reranker
except ModuleNotFoundError as error:
    # langchain-core before 1.2.19 has no cross_encoders; installing the extra brings a newer one.
    if error.name not in ("langchain_core", "langchain_core.cross_encoders", "pydantic"):
        raise
    raise MissingExtraError("langchain_qwen3_rag", "langchain") from error

__all__ = ["SCORE_KEY", "Qwen3CrossEncoder", "Qwen3Embeddings", "Qwen3Reranker"]
