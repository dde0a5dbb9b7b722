"""Printing where standard output's encoding lacks a character."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

from qwen3_rag.errors import ConfigurationError


def print_json(content: Any) -> None:
    """Print JSON, escaped if standard output's encoding lacks a character: parsers read both alike."""
    text = json.dumps(content, ensure_ascii=False, indent=2)
    print(text if _first_unencodable(text) is None else json.dumps(content, indent=2))


def replace_unencodable_characters() -> None:
    """From now on print "?" for characters that the encoding lacks: for what people read, such as tables."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def print_exactly(line: str) -> None:
    """Print a line for a shell or a program, in which no character may be replaced.

    Raises:
        ConfigurationError: the encoding lacks a character.
    """
    missing = _first_unencodable(line)
    if missing is not None:
        raise ConfigurationError(
            f"standard output is {sys.stdout.encoding}, which lacks {missing!a}; set PYTHONIOENCODING=utf-8"
        )
    print(line)


def _first_unencodable(text: str) -> str | None:
    """Return the first character that standard output's encoding lacks, or None."""
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError as error:
        return text[error.start]
    return None
