"""The Sentence Transformers backend: checkpoints that were fine-tuned and saved with that library.

The library's modules compute (pooling, dense layers and score heads included); prompts, token ids and
truncation are this package's own, so no text passes through a chat template.
"""

from qwen3_rag.backends.sentence_transformers.backend import SentenceTransformersBackend, create

__all__ = ["SentenceTransformersBackend", "create"]
