"""What depends on the installed version of Transformers."""

from __future__ import annotations

import transformers


def version() -> tuple[int, int]:
    """Return major and minor number of the installed version."""
    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    return major, minor


def dtype_keyword() -> str:
    """Return the name of `from_pretrained`'s argument for the element type: renamed in transformers 4.56."""
    return "dtype" if version() >= (4, 56) else "torch_dtype"
