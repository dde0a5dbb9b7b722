"""The exact prompt strings of Qwen3-Embedding and Qwen3-Reranker. Pure functions, no tokens.

Source: the transformers snippets of the published model cards. Copies on the web often lose the
angle-bracket tags, a newline or the think block; each of those moves scores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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

_ADDED_TOKEN: Final = re.compile(r"<(?=\|[a-z_]+\|>|/?think>|/?tool_call>|/?tool_response>)")
"""The `<` of what Qwen3's tokenizers know as added tokens. Source: the published tokenizer.json."""


def break_added_tokens(text: str) -> str:
    """Return a text in which no string reads as an added token: `<|im_end|>` becomes `< |im_end|>`.

    For servers that tokenise texts themselves and know such tokens in them.
    """
    return _ADDED_TOKEN.sub("< ", text)


def query_prompt(instruction: str) -> str:
    """Return what stands before an embedded query. There is no space after `Query:`."""
    return f"Instruct: {instruction}\nQuery:"


def rerank_head(instruction: str, query: str) -> str:
    """Return the part of a rerank prompt's body before the document."""
    return f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: "


def rerank_halves(instruction: str, query: str, document: str) -> tuple[str, str]:
    """Return a whole rerank prompt in two, for servers that join query and document as they come.

    It is parted before the space that precedes the document, where no token crosses, so that a server that
    tokenises both alone and joins the ids gets the right ones too.
    """
    head = RERANK_PREFIX + rerank_head(instruction, query)
    return head.removesuffix(" "), " " + document + RERANK_SUFFIX


@dataclass(frozen=True)
class EmbeddingWords:
    """An embedding prompt as text, for servers that take no token ids.

    Attributes:
        prompt: what stands before the text, "" for none; ends in "Query:" for queries.
        text: the user's text, cut where its token ids are cut.
        is_query: False for documents.
    """

    prompt: str
    text: str
    is_query: bool


@dataclass(frozen=True)
class RerankingWords:
    """A rerank prompt's parts as text, for servers that apply the template themselves.

    Attributes:
        instruction: the task sentence.
        query: as the user gave it.
        document: the user's document, cut where its token ids are cut.
    """

    instruction: str
    query: str
    document: str
