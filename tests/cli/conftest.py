"""Fixtures of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Invoke, run_command


@pytest.fixture
def invoke() -> Invoke:
    """Run a command in this process and return its exit code and outputs."""
    return run_command


TEXTS = [
    "  two blanks before",
    "tab\tand two blanks after  ",
    "",
    "line\u2028separator",
    "数据库",
    "form\x0cfeed",
    "no newline at the end",
]
"""Texts that would show any change made to them."""


@pytest.fixture
def texts() -> list[str]:
    return TEXTS


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """The texts, one per line."""
    path = tmp_path / "lines.txt"
    path.write_bytes("\n".join(TEXTS).encode())
    return path
