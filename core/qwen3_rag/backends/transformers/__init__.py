"""The Transformers backend: Hugging Face's own Qwen3 modules over packed, prefix-shared rows.

Hugging Face's code stays in charge of linear layers, norms and rotary embedding, so quantised and
LoRA-adapted checkpoints work. Replaced is only what wastes work: padding, prefixes computed again
for every document, and the vocabulary head.
"""

from qwen3_rag.backends.transformers.backend import TransformersBackend, create

__all__ = ["TransformersBackend", "create"]
