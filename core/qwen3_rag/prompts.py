"""The exact prompt strings of Qwen3-Embedding and Qwen3-Reranker. Pure functions, no tokens.

Source: the transformers snippets of the published model cards. Copies on the web often lose the
angle-bracket tags, a newline or the think block; each of those moves scores.
"""

from __future__ import annotations

from typing import Final

RERANK_PREFIX: Final = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
RERANK_SUFFIX: Final = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
END_OF_TEXT: Final = "<|endoftext|>"
"""Closes every embedding input; the vector is the hidden state at this token."""
YES: Final = "yes"
NO: Final = "no"


def query_prompt(instruction: str) -> str:
    """Return what stands before an embedded query. There is no space after `Query:`."""
    return f"Instruct: {instruction}\nQuery:"


def rerank_head(instruction: str, query: str) -> str:
    """Return the part of a rerank prompt's body before the document."""
    return f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: "
