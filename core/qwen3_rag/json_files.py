"""Reading a checkpoint's JSON files, with errors that name the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen3_rag.errors import CheckpointError


def read_json(path: Path) -> Any:
    """Return a JSON file's content, or None when there is no such file.

    Raises:
        CheckpointError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the content of a file that holds a JSON object, or None when there is no such file.

    Raises:
        CheckpointError: it cannot be read, or holds something else.
    """
    found = read_json(path)
    if found is not None and not isinstance(found, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(found).__name__}")
    return found


def positive_integer(config: Mapping[str, Any], name: str, folder: Path) -> int:
    """Return a whole number of a configuration, 1 or more.

    Raises:
        CheckpointError: there is none of this name.
    """
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"a config.json of {folder} must have {name}, a whole number, got {value!r}")
    return value
