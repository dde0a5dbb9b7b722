"""The remote backend: the same prompts, computed by a server.

vLLM gets token ids. Other servers take text; `servers/` has one module each, and docs/remote.md one
table that says who applies the template, who cuts, and who reads special tokens.
"""

from qwen3_rag.backends.remote.backend import RemoteBackend, create
from qwen3_rag.backends.remote.errors import (
    RemoteAnswerError,
    RemoteError,
    RemoteNonFiniteError,
    RemoteRefusalError,
    RemoteSetupError,
    RemoteTimeoutError,
    RemoteUnavailableError,
)
from qwen3_rag.backends.remote.options import RemoteOptions

__all__ = [
    "RemoteAnswerError",
    "RemoteBackend",
    "RemoteError",
    "RemoteNonFiniteError",
    "RemoteOptions",
    "RemoteRefusalError",
    "RemoteSetupError",
    "RemoteTimeoutError",
    "RemoteUnavailableError",
    "create",
]
