"""Jobs of `embed` in small parts, and how one is stopped on its way."""

from __future__ import annotations

import pytest
from qwen3_rag import Embedder

SMALL = ("--dtype", "float32", "--dimensions", "32", "--chunk-size", "2")
"""Options of one."""


class StoppedError(Exception):
    """What stops a job."""


def stop_after(calls: int, patched: pytest.MonkeyPatch, error: Exception | None = None) -> None:
    """Let a job of this process compute so many parts and no further one: that raises the error."""
    embed, made = Embedder.embed, []

    def counted(self: Embedder, *arguments: object, **options: object) -> object:
        if len(made) == calls:
            raise error or StoppedError
        made.append(1)
        return embed(self, *arguments, **options)  # type: ignore[arg-type]

    patched.setattr(Embedder, "embed", counted)
