"""`qwen3-rag embed`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from qwen3_rag.cli import options
from qwen3_rag.embedder import Embedder
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.instructions import resolve_instruction
from qwen3_rag.models import DEFAULT_EMBEDDING_MODEL
from qwen3_rag.settings import EngineSettings
from qwen3_rag.vectors import quantize

if TYPE_CHECKING:
    from qwen3_rag.cli.job import Summary


class RoleName(str, Enum):
    """What the texts are."""

    document = "document"
    query = "query"


class PrecisionName(str, Enum):
    """Element types of vectors."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"
    uint8 = "uint8"
    binary = "binary"
    ubinary = "ubinary"


def embed(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT", help="A .txt, .jsonl or .parquet file.")],
    output_file: Annotated[Path, typer.Argument(metavar="OUTPUT", help="A .npy, .jsonl or .parquet file.")],
    model: Annotated[str, typer.Option(help="Hub repository or local folder.")] = DEFAULT_EMBEDDING_MODEL,
    role: Annotated[
        RoleName, typer.Option(help="Queries carry an instruction, documents do not.")
    ] = RoleName.document,
    instruction: Annotated[
        str | None, typer.Option(help="Task sentence for queries, or a preset's name.")
    ] = None,
    dimensions: Annotated[int | None, typer.Option(help="Length of vectors, 32 to the model's own.")] = None,
    precision: Annotated[
        PrecisionName, typer.Option(help="Elements of the vectors; int8 and uint8 need --ranges.")
    ] = PrecisionName.float32,
    ranges: Annotated[
        Path | None,
        typer.Option(help="A .npy file of shape (2, dimensions): lowest and highest value of each column."),
    ] = None,
    field: options.Field = "text",
    device: options.Device = None,
    dtype: options.DType = options.DTypeName.auto,
    max_tokens: options.MaxTokens = 8192,
    token_budget: options.TokenBudget = None,
    backend: options.Backend = "transformers",
    hub: options.Hub = options.HubName.huggingface,
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

    A .txt file has one text per line. Rows of .jsonl and .parquet keep all their fields and get
    "embedding" when OUTPUT is .jsonl or .parquet; a .npy file holds the matrix alone. Finished rows
    are kept in the folder OUTPUT.parts until OUTPUT is whole.
    """
    from qwen3_rag.cli.job import Job, run_job
    from qwen3_rag.cli.progress import hide_library_bars
    from qwen3_rag.cli.rows import open_rows

    if role is RoleName.document and instruction is not None:
        raise ConfigurationError("documents take no instruction; --instruction goes with --role query")
    resolved = None if instruction is None else resolve_instruction(instruction)
    rows = open_rows(input_file, field)
    arguments = options.model_arguments(
        backend=backend,
        device=device,
        dtype=dtype,
        max_tokens=max_tokens,
        token_budget=token_budget,
        hub=hub,
        revision=revision,
    )
    folder = Path(model).expanduser()
    settings = {
        "model": str(folder.resolve()) if folder.is_dir() else model,
        "revision": revision,
        "hub": hub.value,
        "backend": backend,
        "dimensions": dimensions,
        "max tokens": max_tokens,
        "field": field,
    }
    if quiet:
        hide_library_bars()
    with Embedder(model, dimensions=dimensions, **arguments) as embedder:
        job = Job(
            rows,
            Path(os.path.realpath(output_file)),  # a link stays a link; what it points to is replaced
            role.value,
            resolved,
            precision.value,
            _load_ranges(ranges, precision, embedder),
            chunk_size,
            settings,
        )
        engine = EngineSettings("embedding", model, hub=hub.value, revision=revision)
        summary = run_job(job, embedder, engine, restart=restart, overwrite=overwrite, progress=not quiet)
    if as_json:
        print(json.dumps(asdict(summary)))
    if not quiet:
        _print_summary(summary)


def _load_ranges(path: Path | None, precision: PrecisionName, embedder: Embedder) -> NDArray[np.float32] | None:
    """Read --ranges and check it, and the dimensions, before any work is done."""
    columns = embedder.dimensions
    if precision not in (PrecisionName.int8, PrecisionName.uint8):
        if path is not None:
            raise ConfigurationError("--ranges goes with --precision int8 or uint8")
        return None
    if path is None:
        raise ConfigurationError(
            f"--precision {precision.value} needs --ranges FILE.npy: lowest and highest value of each column, "
            "measured once on a sample of your float32 vectors. Ranges measured on each saved step would "
            "give every step another scale"
        )
    try:
        ranges = np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
    except ValueError as error:
        raise ConfigurationError(f"{path} is not a .npy file of numbers: {error}") from error
    quantize(np.zeros((1, columns), np.float32), precision.value, ranges)
    return ranges


def _print_summary(summary: Summary) -> None:
    earlier = f" ({summary.rows_of_earlier_runs} of an earlier run)" if summary.rows_of_earlier_runs else ""
    lines = [
        f"{summary.output}: {summary.rows} rows{earlier} x {summary.dimensions} {summary.precision}",
        f"{summary.prompt_tokens} tokens, {summary.computed_tokens} computed, {summary.reused_tokens} reused; "
        f"{summary.seconds:.1f} s",
    ]
    if summary.truncated_texts:
        lines.append(f"{summary.truncated_texts} texts were longer than --max-tokens and lost their end")
    print("\n".join(lines), file=sys.stderr)
