"""Qwen3-Embedding and Qwen3-Reranker with nothing to get wrong.

>>> from qwen3_rag import Embedder, Reranker
>>> vectors = Embedder().embed_queries(["What is the capital of China?"])  # doctest: +SKIP
>>> Reranker().rerank("capital of China", ["Beijing is.", "Gravity pulls."])  # doctest: +SKIP

Importing this package imports neither torch nor transformers.
"""

from qwen3_rag.embedder import Embedder, Embeddings
from qwen3_rag.errors import (
    BackendError,
    CheckpointError,
    ConfigurationError,
    DeadlineExceededError,
    EngineClosedError,
    ForkedProcessError,
    MissingExtraError,
    NonFiniteOutputError,
    OutOfMemoryError,
    PromptTooLongError,
    Qwen3RagError,
    TruncationWarning,
    WorkerDiedError,
    WrongModelKindError,
)
from qwen3_rag.instructions import DEFAULT_INSTRUCTION, PRESETS
from qwen3_rag.metrics import EngineMetrics
from qwen3_rag.models import PUBLISHED_MODELS, PublishedModel
from qwen3_rag.ranking import Ranked
from qwen3_rag.reranker import Reranker, Scores
from qwen3_rag.usage import Usage
from qwen3_rag.vectors import quantize

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_INSTRUCTION",
    "PRESETS",
    "PUBLISHED_MODELS",
    "BackendError",
    "CheckpointError",
    "ConfigurationError",
    "DeadlineExceededError",
    "Embedder",
    "Embeddings",
    "EngineClosedError",
    "EngineMetrics",
    "ForkedProcessError",
    "MissingExtraError",
    "NonFiniteOutputError",
    "OutOfMemoryError",
    "PromptTooLongError",
    "PublishedModel",
    "Qwen3RagError",
    "Ranked",
    "Reranker",
    "Scores",
    "TruncationWarning",
    "Usage",
    "WorkerDiedError",
    "WrongModelKindError",
    "quantize",
]
