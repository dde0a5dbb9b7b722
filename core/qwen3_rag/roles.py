"""What a text is embedded as, and what stands before it for that."""

from __future__ import annotations

from typing import Literal

from qwen3_rag import prompts
from qwen3_rag.checkpoint import Checkpoint
from qwen3_rag.instructions import DEFAULT_INSTRUCTION

Role = Literal["query", "document"]


def prompt_before(checkpoint: Checkpoint, role: Role, instruction: str | None) -> str:
    """Return what stands before each text.

    Args:
        checkpoint: has saved prompts, or none.
        role: "query" or "document".
        instruction: task sentence of queries; None takes the checkpoint's own prompt, or the default.
    """
    if role == "document":
        return checkpoint.document_prompt
    if instruction is not None:
        return prompts.query_prompt(instruction)
    return checkpoint.query_prompt or prompts.query_prompt(DEFAULT_INSTRUCTION)
