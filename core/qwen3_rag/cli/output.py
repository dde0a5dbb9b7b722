"""Printing where standard output's encoding lacks a character."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

from qwen3_rag.errors import ConfigurationError


def print_json(content: Any) -> None:
    """Print JSON, with escapes where the encoding lacks a character: both say the same to who reads it."""
    text = json.dumps(content, ensure_ascii=False, indent=2)
    print(text if _lacking(text) is None else json.dumps(content, indent=2))


def replace_lacking_characters() -> None:
    """From now on print "?" for what the encoding lacks. For text that people read, tables above all."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def print_exactly(line: str) -> None:
    """Print what a shell or program is to get, character by character.

    Raises:
        ConfigurationError: the encoding lacks a character.
    """
    lacking = _lacking(line)
    if lacking is not None:
        raise ConfigurationError(
            f"standard output is {sys.stdout.encoding}, which lacks {lacking!a}; set PYTHONIOENCODING=utf-8"
        )
    print(line)


def _lacking(text: str) -> str | None:
    """Return the first character that standard output cannot hold, or None."""
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError as error:
        return text[error.start]
    return None
