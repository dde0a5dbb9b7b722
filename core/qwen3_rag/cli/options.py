"""Options that several commands share."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from qwen3_rag import settings
from qwen3_rag.errors import ConfigurationError


def check_text(given: str | list[str] | None) -> str | list[str] | None:
    """Refuse arguments that are not UTF-8: Python decodes such bytes as lone surrogates."""
    for text in [given] if isinstance(given, str) else given or []:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise typer.BadParameter(f"not UTF-8 at character {error.start + 1}; convert it first") from error
    return given


Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")]
Field = Annotated[
    str,
    typer.Option(
        help="Field of JSONL rows or column of Parquet files that holds the text.", callback=check_text
    ),
]
Instruction = Annotated[
    str | None, typer.Option(help="Task sentence for queries, or a preset's name.", callback=check_text)
]
Device = Annotated[
    str | None, typer.Option(help='"cuda", "cuda:1", "mps" or "cpu"; the best there is by default.')
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        help='"cuda", "cuda:1", "mps" or "cpu"; repeat it to run on several. The best there is by default.',
    ),
]
DType = Annotated[
    settings.DType, typer.Option(help="Weights' type; auto is bfloat16 where the hardware computes it.")
]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest prompt; longer documents are cut and counted.")]
TokenBudget = Annotated[
    int | None, typer.Option(min=1, help="Most tokens of one batch; by default as free memory allows.")
]
Backend = Annotated[str, typer.Option(help="What runs the model; `qwen3-rag plugins` lists the names.")]
ModelKwargs = Annotated[
    str | None,
    typer.Option(help="JSON object of further settings of the backend, such as '{\"compile\": true}'."),
]
Hub = Annotated[settings.Hub, typer.Option(help="Where the model's repository is.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the model's repository.")]


def one_or_several(devices: list[str] | None) -> str | list[str] | None:
    """Return what repeated --device options come to: one name, several, or None for the best there is."""
    return devices[0] if devices and len(devices) == 1 else devices or None


def parse_model_kwargs(given: str | None) -> dict[str, Any] | None:
    """Return the object of --model-kwargs.

    Raises:
        ConfigurationError: it is not a JSON object. The message does not quote it, since it may hold a key.
    """
    if given is None:
        return None
    try:
        parsed = json.loads(given)
    except ValueError as error:
        raise ConfigurationError(f"--model-kwargs must be a JSON object: {error}") from error
    if not isinstance(parsed, dict):
        raise ConfigurationError(f"--model-kwargs must be a JSON object, got {type(parsed).__name__}")
    return parsed
