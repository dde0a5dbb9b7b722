"""`qwen3-rag serve`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from qwen3_rag.checkpoint import DEMO_MODEL, open_checkpoint
from qwen3_rag.cli import options
from qwen3_rag.cli.output import print_exactly, print_json
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.kinds import find_kind
from qwen3_rag.models import ModelKind, kind_of_name
from qwen3_rag.serving import Command, ServedBy, ServedDType, ServedModel, serve_command
from qwen3_rag.settings import EngineSettings


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hub repository or local folder.")],
    server: Annotated[ServedBy, typer.Option(help="What serves the model.")] = "vllm",
    kind: Annotated[ModelKind | None, typer.Option(help="Detected from the model by default.")] = None,
    dtype: Annotated[
        ServedDType | None,
        typer.Option(help="Weights' type; by default bfloat16 for vLLM and float32 for TEI."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Longest prompt that the server takes; it refuses longer ones.")
    ] = 8192,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    gpu_share: Annotated[
        float | None, typer.Option(help="vLLM's share of the GPU's memory, above 0 and at most 1.")
    ] = None,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs that vLLM spreads the model over.")] = 1,
    data_parallel: Annotated[
        int, typer.Option(min=1, help="Copies of the model that vLLM runs behind one address.")
    ] = 1,
    cpu: Annotated[bool, typer.Option("--cpu", help="Run without a GPU.")] = False,
    revision: options.Revision = None,
    run: Annotated[bool, typer.Option("--run", help="Start it instead of printing it.")] = False,
    as_json: options.Json = False,
) -> None:
    """Print the command of vLLM or TEI that serves a model with right numbers.

    The notes on standard error say how to use it. With --run it is started in place of this command.
    """
    if model == DEMO_MODEL:
        raise ConfigurationError(
            f'"{DEMO_MODEL}" names models inside this package, which no server knows; serve a published one '
            "(`qwen3-rag models`) or a local folder"
        )
    found, converted = _kind_of(model, revision)
    chosen = found if kind is None else kind
    if chosen is None:
        raise ConfigurationError(
            f"{model} does not say what it is for; give --kind embedding or --kind reranking"
        )
    default: ServedDType = "bfloat16" if server == "vllm" else "float32"
    command = serve_command(
        server,
        ServedModel(
            model,
            chosen,
            converted=converted,
            dtype=default if dtype is None else dtype,
            max_tokens=max_tokens,
            port=port,
            host=host,
            revision=revision,
            gpu_share=gpu_share,
            tensor_parallel=tensor_parallel,
            data_parallel=data_parallel,
            cpu=cpu,
        ),
    )
    if run:
        _run(command)
    if as_json:
        print_json({"argv": command.argv, "notes": command.notes})
        return
    print_exactly(command.line)
    for note in command.notes:
        print(f"# {note}", file=sys.stderr)


def _kind_of(model: str, revision: str | None) -> tuple[ModelKind | None, bool]:
    """Return what a model is for and whether it is a converted reranker; files tell before names."""
    if Path(model).expanduser().is_dir():
        settings = EngineSettings("reranking", model, revision=revision)
        kind = find_kind(settings)
        return kind, kind == "reranking" and open_checkpoint(settings, weights=False).is_classifier
    converted = "seq-cls" in model.lower()
    return ("reranking" if converted else kind_of_name(model)), converted


def _run(command: Command) -> NoReturn:
    """Become the command: it gets the signals, and nothing is left when it ends."""
    program = shutil.which(command.argv[0])
    if program is None:
        advice = 'pip install "qwen3-rag[vllm]"' if command.argv[0] == "vllm" else "install Docker"
        raise ConfigurationError(
            f"there is no {command.argv[0]!r} on the path; {advice}, or run elsewhere: {command.line}"
        )
    for note in command.notes:
        print(f"# {note}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program, command.argv)
