"""What differs between releases of Transformers for whoever loads a model with it."""

from __future__ import annotations

import transformers


def release() -> tuple[int, int]:
    """Return the first two numbers of the installed release."""
    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    return major, minor


def dtype_keyword() -> str:
    """Return the name by which `from_pretrained` takes the element type: renamed in transformers 4.56."""
    return "dtype" if release() >= (4, 56) else "torch_dtype"
