"""The vLLM backend: a vLLM engine in this process, or in processes that it starts.

Only vLLM's public names are imported. Prompts go in as token ids, so vLLM applies no template and truncates
nothing; what comes out is the direction of the last hidden state, or the log-odds.
"""

from qwen3_rag.backends.vllm.backend import VllmBackend, create
from qwen3_rag.backends.vllm.errors import VllmDiedError, VllmStartError
from qwen3_rag.backends.vllm.options import VllmOptions

__all__ = ["VllmBackend", "VllmDiedError", "VllmOptions", "VllmStartError", "create"]
