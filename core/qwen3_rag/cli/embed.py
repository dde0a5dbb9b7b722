"""`qwen3-rag embed`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray

from qwen3_rag.cli import options
from qwen3_rag.cli.truncation import truncation_lines
from qwen3_rag.embedder import Embedder
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.instructions import resolve_instruction
from qwen3_rag.models import DEFAULT_EMBEDDING_MODEL
from qwen3_rag.roles import Role
from qwen3_rag.secret import without_secrets
from qwen3_rag.vectors import Precision, quantize

if TYPE_CHECKING:
    from qwen3_rag.cli.job import Summary


_OF_TRANSPORT: Final = {
    "base_url",
    "timeout",
    "deadline",
    "max_retries",
    "max_connections",
    "max_inputs_per_request",
    "max_tokens_per_request",
    "api_key_env",
}
"""Options of the remote backend that change no vector: an interrupted job may go on with others. A server at
another address is trusted to run the model that it is asked for by name, as one at the same address is."""


def embed(
    input_file: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A .txt, .jsonl, .ndjson or .parquet file.")
    ],
    output_file: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="A .npy, .jsonl, .ndjson or .parquet file.")
    ],
    model: Annotated[str, typer.Option(help="Hub repository or local folder.")] = DEFAULT_EMBEDDING_MODEL,
    role: Annotated[Role, typer.Option(help="Queries carry an instruction, documents do not.")] = "document",
    instruction: options.Instruction = None,
    dimensions: Annotated[int | None, typer.Option(help="Length of vectors, 32 to the model's own.")] = None,
    precision: Annotated[
        Precision, typer.Option(help="Elements of the vectors; int8 and uint8 need --ranges.")
    ] = "float32",
    ranges: Annotated[
        Path | None,
        typer.Option(help="A .npy file of shape (2, dimensions): lowest and highest value of each column."),
    ] = None,
    field: options.Field = "text",
    device: options.Devices = None,
    dtype: options.DType = "auto",
    max_tokens: options.MaxTokens = 8192,
    token_budget: options.TokenBudget = None,
    backend: options.Backend = "transformers",
    model_kwargs: options.ModelKwargs = None,
    hub: options.Hub = "huggingface",
    revision: options.Revision = None,
    chunk_size: Annotated[
        int, typer.Option(min=1, help="Rows saved at a time: the most that has to be computed again.")
    ] = 512,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an interrupted run left in OUTPUT.parts.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT if it is there.")] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Embed every row of a file, however long; run it again to go on after an interruption.

    A .txt file has one text per line. Rows of .jsonl (or .ndjson) and .parquet keep all their fields and
    get "embedding" when OUTPUT is .jsonl or .parquet; a .npy file holds the matrix alone. Finished rows
    are kept in the folder OUTPUT.parts until OUTPUT is whole.
    """
    from qwen3_rag.cli.job import Job, run_job
    from qwen3_rag.cli.library_bars import hide_library_bars
    from qwen3_rag.cli.rows import open_rows

    if role == "document" and instruction is not None:
        raise ConfigurationError("documents take no instruction; --instruction goes with --role query")
    if str(input_file) == "-":
        raise ConfigurationError(
            'standard input ("-") can be read once, and embed reads its input more often, also to go on after '
            "an interruption; save it to a .txt file first"
        )
    resolved = None if instruction is None else resolve_instruction(instruction)
    rows = open_rows(input_file, field)
    given = options.parse_model_kwargs(model_kwargs)
    if quiet:
        hide_library_bars()
    with Embedder(
        model,
        dimensions=dimensions,
        backend=backend,
        device=options.one_or_several(device),
        dtype=dtype,
        max_tokens=max_tokens,
        token_budget=token_budget,
        hub=hub,
        revision=revision,
        model_kwargs=given,
    ) as embedder:
        job = Job(
            rows=rows,
            output=Path(os.path.realpath(output_file)),  # a link stays a link; its target is replaced
            role=role,
            instruction=resolved,
            precision=precision,
            ranges=_load_ranges(ranges, precision, embedder),
            chunk_size=chunk_size,
            max_tokens=max_tokens,
            settings={**_settings(embedder), "field": field},
        )
        summary = run_job(job, embedder, restart=restart, overwrite=overwrite, progress=not quiet)
    if as_json:
        print(json.dumps(asdict(summary)))
    if not quiet:
        _print_summary(summary)


def _settings(embedder: Embedder) -> dict[str, Any]:
    """Return what else the embedder was told that changes its vectors, for the manifest."""
    arguments = embedder.arguments
    folder = Path(embedder.model).expanduser()
    given = without_secrets(arguments["model_kwargs"] or {})
    if arguments["backend"] == "remote":
        given = {name: value for name, value in given.items() if name not in _OF_TRANSPORT}
    return {
        "model": str(folder.resolve()) if folder.is_dir() else embedder.model,
        "model kwargs": given or None,
        **{name: arguments[name] for name in ("revision", "hub", "backend", "dimensions")},
    }


def _load_ranges(path: Path | None, precision: Precision, embedder: Embedder) -> NDArray[np.float32] | None:
    """Read --ranges and check it, and the dimensions, before any work is done."""
    columns = embedder.dimensions
    if precision not in ("int8", "uint8"):
        if path is not None:
            raise ConfigurationError("--ranges goes with --precision int8 or uint8")
        return None
    if path is None:
        raise ConfigurationError(
            f"--precision {precision} needs --ranges FILE.npy: lowest and highest value of each column, "
            "measured once on a sample of your float32 vectors. Ranges measured on each saved step would "
            "give every step another scale"
        )
    try:
        with path.open("rb") as file:
            ranges = np.lib.format.read_array(file, allow_pickle=False).astype(np.float32, casting="same_kind")
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} is not a .npy file of real numbers: {error}") from error
    quantize(np.zeros((1, columns), np.float32), precision, ranges)
    return ranges


def _print_summary(summary: Summary) -> None:
    earlier = f" ({summary.rows_of_earlier_runs} of an earlier run)" if summary.rows_of_earlier_runs else ""
    lines = [
        f"{summary.output}: {summary.rows} rows{earlier} x {summary.dimensions} {summary.precision}, "
        f"{summary.bytes_per_row} bytes each",
        f"{summary.prompt_tokens} tokens, {summary.computed_tokens} computed, {summary.reused_tokens} reused; "
        f"{summary.seconds:.1f} s",
    ]
    print("\n".join([*lines, *truncation_lines(summary.truncated_texts)]), file=sys.stderr)
