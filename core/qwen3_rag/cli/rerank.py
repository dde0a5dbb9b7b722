"""`qwen3-rag rerank`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qwen3_rag.cli import options
from qwen3_rag.cli.library_bars import hide_library_bars
from qwen3_rag.cli.output import print_json, replace_unencodable_characters
from qwen3_rag.cli.truncation import suppress_truncation_warnings, truncation_lines
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.models import DEFAULT_RERANKING_MODEL
from qwen3_rag.ranking import Ranked, rank
from qwen3_rag.reranker import Reranker


def rerank(
    query: Annotated[
        str,
        typer.Argument(metavar="QUERY", help="Question or search text.", callback=options.check_text),
    ],
    input_file: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help='Documents: a .txt, .jsonl, .ndjson or .parquet file, or "-" for lines of standard input.',
        ),
    ],
    model: Annotated[str, typer.Option(help="Hub repository or local folder.")] = DEFAULT_RERANKING_MODEL,
    top_k: Annotated[
        int | None,
        typer.Option(min=0, help="Most documents to print; all by default, and nothing is computed for 0."),
    ] = None,
    instruction: options.Instruction = None,
    field: options.Field = "text",
    device: options.Devices = None,
    dtype: options.DType = "auto",
    max_tokens: options.MaxTokens = 8192,
    token_budget: options.TokenBudget = None,
    backend: options.Backend = "transformers",
    model_kwargs: options.ModelKwargs = None,
    hub: options.Hub = "huggingface",
    revision: options.Revision = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Order the documents of a file by how well they answer a query, best first.

    A score is the model's probability of "yes". "row" counts the documents from 1; the JSON's
    "index" counts from 0.
    """
    given = options.parse_model_kwargs(model_kwargs)
    documents = _read_documents(input_file, field)
    if quiet:
        hide_library_bars()
    wanted = [] if top_k == 0 else documents
    progress = sys.stderr.isatty() and not quiet
    reranker = Reranker(
        model,
        instruction=instruction,
        backend=backend,
        device=options.one_or_several(device),
        dtype=dtype,
        max_tokens=max_tokens,
        token_budget=token_budget,
        hub=hub,
        revision=revision,
        model_kwargs=given,
    )
    with reranker, suppress_truncation_warnings():
        scores, usage = reranker.evaluate([(query, document) for document in wanted], progress=progress)
    ranking = rank(scores, wanted, top_k)
    if as_json:
        print_json(
            {
                "query": query,
                "ranking": [asdict(item) for item in ranking],
                "usage": {**asdict(usage), "reused_tokens": usage.reused_tokens},
            }
        )
    else:
        _show(ranking)
    if not quiet:
        line = (
            f"{usage.texts} documents; {usage.prompt_tokens} tokens, {usage.computed_tokens} computed, "
            f"{usage.reused_tokens} reused"
        )
        print("\n".join([line, *truncation_lines(usage.truncated_texts)]), file=sys.stderr)


def _show(ranking: list[Ranked]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(expand=True)  # the text alone gives way where there is little room
    for heading in ("rank", "score", "row"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("text", ratio=1, no_wrap=True, overflow="ellipsis")
    for place, item in enumerate(ranking, 1):
        table.add_row(str(place), f"{item.score:.4f}", str(item.index + 1), one_line(item.text))
    replace_unencodable_characters()
    Console().print(table)


def one_line(text: str, width: int = 300) -> str:
    """Return the beginning of a text for a table's cell: white space collapsed, Rich's markup escaped."""
    from rich.markup import escape

    shown = " ".join(text[: 4 * width].split())
    return escape(shown if len(shown) <= width else shown[: width - 1] + "…")


def _read_documents(path: Path, field: str) -> list[str]:
    from qwen3_rag.cli.rows import TextRows, decode_line, open_rows

    if str(path) != "-":
        return list(open_rows(path, field).texts())
    if sys.stdin.isatty():
        raise ConfigurationError("standard input is a terminal; pipe one document per line into it")
    rows = TextRows(Path("standard input"), field)
    return [decode_line(rows, number, line) for number, line in enumerate(sys.stdin.buffer)]
