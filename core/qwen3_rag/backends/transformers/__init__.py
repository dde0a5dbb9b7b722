"""The Transformers backend: Hugging Face's own Qwen3 modules over packed, prefix-shared rows.

Linear layers and rotary embedding remain Hugging Face's modules, so quantised and LoRA-adapted checkpoints
work. Only what wastes work is replaced: padding, prefixes computed again for every document, and the vocabulary
head.
"""

from qwen3_rag.backends.transformers.backend import TransformersBackend, create

__all__ = ["TransformersBackend", "create"]
