"""The remote backend: the same prompts, computed by a server.

vLLM is sent token ids, other servers text. `servers/` has one module for each; a table in docs/remote.md says
who applies the template, who cuts, and how special tokens in texts are treated.
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
