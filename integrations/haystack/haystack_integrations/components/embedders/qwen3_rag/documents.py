"""From Haystack's values to texts, and from usage to a component's `meta`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from haystack import Document

from qwen3_rag.errors import ConfigurationError
from qwen3_rag.usage import Usage


def check_meta_fields(meta_fields: Sequence[str] | None) -> list[str]:
    """Return the names of meta fields as a list of their own, empty for None.

    Raises:
        ConfigurationError: it is one string, whose letters would be taken for names.
        TypeError: it is something else that is no list of strings.
    """
    if isinstance(meta_fields, str):
        raise ConfigurationError(
            f"meta_fields_to_embed must be a list of names, got the string {meta_fields!r}"
        )
    if meta_fields is None:
        return []
    if not isinstance(meta_fields, Sequence) or not all(isinstance(name, str) for name in meta_fields):
        raise TypeError(f"meta_fields_to_embed must be a list of names, got {meta_fields!r:.80}")
    return list(meta_fields)


def check_separator(separator: str) -> None:
    """Raise TypeError unless what stands between meta values and content is a string."""
    check_text("embedding_separator", separator, 'for nothing between the parts use ""')


def check_text(name: str, value: object, instead: str) -> None:
    """Raise TypeError unless `value` is a string.

    Args:
        name: what it is, for the message.
        value: what was given.
        instead: advice for the message.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {type(value).__name__}; {instead}")


def own_documents(documents: Sequence[Document]) -> list[Document]:
    """Return documents as a list of its own: what their owner does to theirs while a run waits is not seen.

    Raises:
        TypeError: `documents` is not a list of documents; the message names the first that is none.
    """
    if not isinstance(documents, (list, tuple)):
        raise TypeError(f"documents must be a list of Document, got {type(documents).__name__}")
    for i, document in enumerate(documents):
        if not isinstance(document, Document):
            raise TypeError(f"documents[{i}] must be a Document, got {type(document).__name__}")
    return list(documents)


def document_texts(documents: Sequence[Document], meta_fields: Sequence[str], separator: str) -> list[str]:
    """Return one text per document: the chosen meta values, then the content, with separators between.

    Args:
        documents: Haystack's.
        meta_fields: list of the names of meta values to put first; one that is missing or None is left
            out, 0, False and "" are kept.
        separator: stands between the parts.

    Returns:
        As many texts as documents. The content is left out if it is None, so a document without content
        and without chosen meta values gives the empty string.

    Raises:
        TypeError: `meta_fields` is no list of strings, or `separator` no string.
        ConfigurationError: `meta_fields` is one string.
    """
    meta_fields = check_meta_fields(meta_fields)
    check_separator(separator)
    return [separator.join(_parts(document, meta_fields)) for document in documents]


def usage_meta(model: str, usage: Usage) -> dict[str, Any]:
    """Return a component's `meta` in the shape that Haystack's own embedders use.

    Args:
        model: the model as the user named it.
        usage: what the call cost.

    Returns:
        `model`, and `usage` with the fields of `qwen3_rag.Usage` and `total_tokens`, equal to `prompt_tokens`.
    """
    return {"model": model, "usage": {**asdict(usage), "total_tokens": usage.prompt_tokens}}


def _parts(document: Document, meta_fields: Sequence[str]) -> list[str]:
    values = [document.meta.get(name) for name in meta_fields]
    return [str(value) for value in [*values, document.content] if value is not None]
