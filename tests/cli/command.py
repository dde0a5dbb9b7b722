"""Runs the command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from typer.testing import CliRunner


@dataclass(frozen=True)
class Run:
    """Exit code and outputs of one command."""

    code: int
    out: str
    err: str


Invoke = Callable[..., Run]


def run_command(*arguments: object, stdin: str | bytes | None = None, encoding: str = "utf-8") -> Run:
    """Run a command; any exception but an exit is a bug and raised. `encoding` is standard output's."""
    from qwen3_rag.cli import app

    result = CliRunner(charset=encoding).invoke(app, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Run(result.exit_code, result.stdout, result.stderr)
