"""The command group: its commands, and how errors become exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from qwen3_rag import __version__
from qwen3_rag.cli.demo import demo
from qwen3_rag.cli.doctor import doctor
from qwen3_rag.cli.embed import embed
from qwen3_rag.cli.exit_codes import USAGE_ERROR
from qwen3_rag.cli.listing import models, plugins
from qwen3_rag.cli.rerank import rerank
from qwen3_rag.cli.serve import serve
from qwen3_rag.cli.verify import verify
from qwen3_rag.errors import Qwen3RagError


class _Commands(TyperGroup):
    """Turns expected errors into one line on standard error."""

    def invoke(self, ctx: Any) -> Any:
        _open_closed_streams()
        try:
            return super().invoke(ctx)
        except (Qwen3RagError, OSError) as error:
            if isinstance(error, BrokenPipeError):  # `qwen3-rag models | head -1`
                raise
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(USAGE_ERROR) from error


def _open_closed_streams() -> None:
    """Replace standard streams that a shell closed (`2>&-`), which are None in Python, by the null device."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


app = typer.Typer(cls=_Commands, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
for command in (demo, embed, rerank, verify, serve, models, plugins, doctor):
    app.command()(command)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"qwen3-rag {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Qwen3-Embedding and Qwen3-Reranker from the command line."""
