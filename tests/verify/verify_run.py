"""Runs `qwen3-rag verify` in this process."""

from __future__ import annotations

from typing import Any

from qwen3_rag.cli import app
from typer.testing import CliRunner

DEAD = "http://127.0.0.1:9"
"""Where nothing listens."""


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["verify", "--device", "cpu", *map(str, arguments)])
