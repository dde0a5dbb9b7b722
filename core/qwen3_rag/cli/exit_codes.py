"""Exit codes of the `qwen3-rag` command."""

from __future__ import annotations

from typing import Final

CHECK_FAILED: Final = 1
"""`doctor`, `verify` and `demo` computed everything, and something does not agree."""
USAGE_ERROR: Final = 2
"""Bad usage (Click's own code for it) and every error that this package raises."""
