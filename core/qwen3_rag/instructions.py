"""The task sentences ("instructions") that Qwen3 queries carry, and presets usable by name.

The default is the sentence of the published model cards. The presets follow the form that the
cards recommend ("Given a ..., retrieve ..."), one English sentence naming what the query is and
what is wanted; wording after the tasks that the models were evaluated on (MTEB and MTEB-Code).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from qwen3_rag.errors import ConfigurationError
from qwen3_rag.inputs import as_str, check_unicode

DEFAULT_INSTRUCTION: Final = "Given a web search query, retrieve relevant passages that answer the query"
"""Source: model cards of Qwen3-Embedding and Qwen3-Reranker, the same sentence in both."""

PRESETS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "retrieval": DEFAULT_INSTRUCTION,
        "question-answering": "Given a question, retrieve passages that answer the question",
        "code": "Given a question about programming, retrieve code or passages that answer the question",
        "code-to-code": "Given a piece of code, retrieve code that does the same",
        "duplicate": "Given a question, retrieve questions that are duplicates of the given question",
        "paraphrase": "Retrieve semantically similar text",
        "classification": "Classify the topic of the given text",
        "clustering": "Identify the topic of the given text",
        "bitext": "Given a sentence, retrieve its translation in another language",
    }
)
"""Preset name -> instruction. A preset's name may stand wherever an instruction is taken."""


def resolve_instruction(instruction: str) -> str:
    """Return the preset of that name, or the text itself when it names none.

    Raises:
        TypeError: `instruction` is not a string.
        ValueError: it holds a lone surrogate.
        ConfigurationError: it is empty or blank; Qwen3 queries always carry a task sentence.
    """
    if not isinstance(instruction, str):
        raise TypeError(f"instruction must be a str, got {type(instruction).__name__}")
    instruction = as_str(instruction)
    if not instruction.strip():
        raise ConfigurationError(
            f"instruction must not be blank, got {instruction!r}; leave it None for the default, "
            f"or name a preset: {', '.join(PRESETS)}"
        )
    check_unicode(instruction, "the instruction")
    return PRESETS.get(instruction, instruction)
